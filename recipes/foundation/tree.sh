#!/usr/bin/env bash
# What the prefix tree is worth to a pretrained causal language model, beside what others do with one: its free answers,
# grounded to the nearest item by its own vectors (BIGRec), its yes or no to each of twenty candidates (TALLRec), and a
# model that is told a SASRec's vectors beside the words (LLaRA). One data set, one draw of its users.
#
# Reads: --rec, a folder of a causal language model, such as that of recipes/pretrained.sh; one of --data, a folder that
#   `idgr prep` wrote; --prepared, a folder with sequences.jsonl.gz and meta.jsonl.gz; --raw, the folder that
#   recipes/download.sh fetched to. `--dataset demo` needs none, it is made up.
# Writes: the folder --out.
# Usage: recipes/foundation/tree.sh --rec DIR [--dataset NAME] [--data DIR | --prepared DIR | --raw DIR]
#     [--rows "ROW ROW"] [--users N] [--candidates N] [--history N] [--sequences N] [--freeze N] [--told-sequences N]
#     [--sasrec DIR] [--sasrec-epochs N] [--beams N] [--free-beams N] [--precision fp32|bf16] [--batch-size N]
#     [--out DIR] [--seed N] [--stage N] [--stop-stage N]
#   --rows: of tree, free, told and popularity, which rank all items, and tree-20, yes-no-20 and popularity-20, which
#     rank the target among candidates drawn at random (all of them)
#   --users: test users who are scored, drawn from the seed (1000; 0: all)
#   --candidates: how many a user has, the target with them (20)
#   --sequences: train the model on so many sequences of the data set first, and ask that one in all rows but told (0:
#     the model as it comes); --freeze: leave its first layers as they are
#   --told-sequences: what the row told is trained on, always from --rec (6400)
#   --sasrec: a folder of `idgr train-sasrec` on the same training sequences, instead of one trained here
#   --free-beams: of the free answers, as in BIGRec (4)
#   stages: 1 prep, users and candidates, 2 IDs, 3 train the model, 4 SASRec and the model that is told its vectors,
#     5 recommend and score, 6 the table
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
source "$root/recipes/data.sh"

rec=
dataset=
rows="tree free told popularity tree-20 yes-no-20 popularity-20"
users=1000
candidates=20
history=10
sequences=0
freeze=
told_sequences=6400
sasrec=
sasrec_epochs=60
beams=20
free_beams=4
precision=bf16
batch_size=32
out=
seed=0

options=(rec dataset data prepared raw rows users candidates history sequences freeze told_sequences sasrec sasrec_epochs
  beams free_beams precision batch_size out seed)
parse_options "$@"
settle_data_set
[[ -n $rec ]] || die "name a causal language model by --rec; recipes/pretrained.sh makes one"
[[ -z $sasrec || -d $sasrec ]] || die "--sasrec $sasrec is no folder; name one of idgr train-sasrec"
[[ -z $freeze || $sequences != 0 ]] || die "--freeze is of the training that --sequences asks for"
read -ra rows <<< "$rows"
((${#rows[@]})) || die "--rows names no row"
wanted() { [[ " ${rows[*]} " == *" $1 "* ]]; }
for row in "${rows[@]}"; do
  case $row in
    tree | free | told | popularity | tree-20 | yes-no-20 | popularity-20) ;;
    *) die "--rows: there is no row $row; see $0 --help" ;;
  esac
done
out=${out:-runs/tree-$dataset-$seed}
ready=$data
data=${data:-$out/data}
test=$out/test/test.jsonl
ids=$out/ids.jsonl
twenty=$out/candidates.jsonl
vectors=${sasrec:-$out/sasrec}
without_tree() { python "$root/recipes/foundation/without_tree.py" "$@"; }
install
SECONDS=0

if begin 1 "split the data set, draw users and candidates"; then
  [[ -n $ready ]] || split_data_set "$dataset" "$prepared" "$data" --items 60 --users 120
  sample_test "$data" "$out/test" "$users"
  without_tree draw "$test" --items "$data/items.jsonl" --n "$candidates" --seed "$seed" -o "$twenty"
fi

if begin 2 "name the items"; then
  idgr gen-ids "$data/items.jsonl" --model keyphrase --rec-tokenizer "$rec" -o "$ids"
fi

# Of a training from --rec, on so many sequences.
training_of() {
  how=(--ids "$ids" --arch causal --model "$rec" --separator newline --objective full --max-history "$history" --lr 2e-4
    --dropout 0 --batch-size 32 --epochs 1 --epoch-instances "$1" --precision "$precision" --seed "$seed")
}

model=$rec
untrained=(--force --separator newline --max-history "$history")
if ((sequences)); then
  model=$out/trained
  untrained=()
fi
if ((sequences)) && begin 3 "train the model here"; then
  training_of "$sequences"
  [[ -z $freeze ]] || how+=(--freeze "$freeze")
  idgr train-rec "$data/train.jsonl" "${how[@]}" -o "$model"
fi

if wanted told && begin 4 "train the model that is told a SASRec's vectors"; then
  [[ -n $sasrec ]] || idgr train-sasrec "$data/train.jsonl" --items "$data/items.jsonl" --valid "$data/valid.jsonl" \
    --width 64 --lr 1e-3 --weight-decay 0.01 --epochs "$sasrec_epochs" --valid-users 2000 --precision auto \
    --seed "$seed" -o "$vectors"
  training_of "$told_sequences"
  idgr train-rec "$data/train.jsonl" "${how[@]}" --item-head 1 --item-vectors "$vectors" --tell-items -o "$out/told-model"
fi

if begin 5 "recommend and score, each row the same users"; then
  for row in "${rows[@]}"; do
    mkdir -p "$out/$row"
    recs=$out/$row/recs.jsonl
    asked=(--rec "$model" --ids "$ids" --history "$history" --precision "$precision" --batch-size "$batch_size")
    search=(--beams "$beams" --precision "$precision" --batch-size "$batch_size" -o "$recs")
    began=$SECONDS
    case $row in
      tree) idgr recommend "$test" --rec "$model" --ids "$ids" "${untrained[@]}" "${search[@]}" ;;
      told) idgr recommend "$test" --rec "$out/told-model" --ids "$ids" "${search[@]}" ;;
      popularity) idgr recommend "$test" --baseline popularity --train "$data/train.jsonl" -o "$recs" ;;
      free) without_tree free "$test" "${asked[@]}" --beams "$free_beams" --told "$out/free/free.json" -o "$recs" ;;
      popularity-20) without_tree rank "$twenty" --by popularity --train "$data/train.jsonl" -o "$recs" ;;
      *-20) without_tree rank "$twenty" --by "${row%-20}" "${asked[@]}" -o "$recs" ;;
    esac
    printf '%s\n' $((SECONDS - began)) > "$out/$row/seconds"
    [[ $row != *-20 ]] || printf '%s\n' "$candidates" > "$out/$row/twenty"
    idgr eval "$recs" --truth "$test" --train "$data/train.jsonl" --items "$data/items.jsonl" --no-baselines \
      -k 1 -k 5 -k 10 --per-user "$out/$row/users.jsonl" -o "$out/$row/metrics.json"
  done
fi

if begin 6 "the table"; then
  without_tree table "$out" "${rows[@]}"
fi

log "done in $SECONDS s; everything is in $out"
