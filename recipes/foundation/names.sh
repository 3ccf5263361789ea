#!/usr/bin/env bash
# Names of items by a pretrained causal language model, beside the keyphrase rule, words shared with what is bought
# together, and a small T5 of one's own: how many of their words are garbled, how fast they are made, and what a
# recommender makes of them that is trained on each in the same way.
#
# Reads: --model, a folder of a causal language model, such as that of recipes/pretrained.sh; --gen, the folder of an ID
#   generator; one of --data, a folder that `idgr prep` wrote; --prepared, a folder with sequences.jsonl.gz and
#   meta.jsonl.gz; --raw, the folder that recipes/download.sh fetched to. `--dataset demo` needs none, it is made up.
# Writes: the folder --out.
# Usage: recipes/foundation/names.sh [--model DIR] [--gen DIR] [--dataset NAME]
#     [--data DIR | --prepared DIR | --raw DIR] [--rows "ROW ROW"] [--items N] [--users N] [--neighbours N] [--alone N]
#     [--rec DIR] [--epochs N] [--epoch-instances N] [--max-text-tokens N] [--out DIR] [--seed N] [--stage N]
#     [--stop-stage N]
#   --rows: of model, model-beside (shown what is bought with an item too), keyphrase, shared, clusters, gen (model,
#     keyphrase, shared, and gen where --gen is given)
#   --items: of the data set the items that are bought most, as so many (0: all); a language model on a processor names
#     one to a few a second
#   --neighbours: of so many items bought with an item model-beside is shown a few words (3)
#   --alone: items that are named one by one too, to compare the speed (16; 0: none)
#   --rec: a causal model that each recommender begins from, with an ID a line; else a small one from random weights
#   --epochs, --epoch-instances: of each recommender (8 epochs of all)
#   --users: test users who are scored, drawn from the seed (0: all)
#   stages: 1 prep, 2 IDs, 3 the generator's speed, 4 a recommender for each, 5 recommend and score, 6 the table
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
source "$root/recipes/data.sh"

model=
gen=
dataset=
rows=
items=0
users=0
neighbours=3
alone=16
rec=
epochs=8
epoch_instances=0
max_text_tokens=256
out=
seed=0

options=(model gen dataset data prepared raw rows items users neighbours alone rec epochs epoch_instances
  max_text_tokens out seed)
parse_options "$@"
settle_data_set
[[ -n $rows ]] || rows="model keyphrase shared${gen:+ gen}"
read -ra rows <<< "$rows"
((${#rows[@]})) || die "--rows names no row"
by_model=
extras=
for row in "${rows[@]}"; do
  case $row in
    model | model-beside)
      [[ -n $model ]] || die "name a causal language model by --model, or leave $row out of --rows"
      by_model=1
      ;;
    gen) [[ -n $gen ]] || die "name an ID generator by --gen, or leave gen out of --rows" ;;
    keyphrase | shared) ;;
    clusters) extras=schemes ;;
    *) die "--rows: there is no row $row; see $0 --help" ;;
  esac
done
out=${out:-runs/names-$dataset-$seed}
whole=${data:-$out/whole}
ready=$data
data=$out/data
names() { python "$root/recipes/foundation/names.py" "$@"; }
install "$extras"
SECONDS=0

if begin 1 "split the data set, and keep what is bought most"; then
  [[ -n $ready ]] || split_data_set "$dataset" "$prepared" "$whole" --items 60 --users 120
  names cut "$whole" "$items" "$data"
  sample_test "$data" "$out/test" "$users"
fi

if begin 2 "name the items"; then
  for row in "${rows[@]}"; do
    mkdir -p "$out/$row"
    case $row in
      model) how=(--model "$model" --max-text-tokens "$max_text_tokens") ;;
      model-beside)
        how=(--model "$model" --max-text-tokens "$max_text_tokens" --neighbours "$neighbours" --train "$data/train.jsonl")
        ;;
      keyphrase) how=(--model keyphrase) ;;
      shared | clusters) how=(--scheme "$row" --train "$data/train.jsonl") ;;
      gen) how=(--model "$gen" --max-text-tokens "$max_text_tokens") ;;
    esac
    [[ -z $rec ]] || how+=(--rec-tokenizer "$rec")
    idgr gen-ids "$data/items.jsonl" "${how[@]}" --skip-finished -o "$out/$row/ids.jsonl"
  done
fi

if [[ -n $by_model ]] && ((alone)) && begin 3 "how fast the language model names items"; then
  names speed "$data/items.jsonl" "$model" "$alone" | tee "$out/speed.txt"
fi

if begin 4 "train a recommender for each"; then
  how=(--arch causal --epochs "$epochs" --epoch-instances "$epoch_instances" --precision auto --seed "$seed")
  [[ -z $rec ]] || how+=(--model "$rec" --separator newline --objective full --lr 2e-4 --dropout 0 --batch-size 32)
  for row in "${rows[@]}"; do
    idgr train-rec "$data/train.jsonl" --ids "$out/$row/ids.jsonl" --valid "$data/valid.jsonl" "${how[@]}" \
      -o "$out/$row/rec"
  done
fi

if begin 5 "recommend and score, on the test users, once"; then
  test=$out/test/test.jsonl
  for row in "${rows[@]}"; do
    idgr recommend "$test" --rec "$out/$row/rec" --ids "$out/$row/ids.jsonl" -o "$out/$row/recs.jsonl"
    idgr eval "$out/$row/recs.jsonl" --truth "$test" --train "$data/train.jsonl" --items "$data/items.jsonl" \
      --per-user "$out/$row/users.jsonl" -o "$out/$row/metrics.json"
  done
fi

if begin 6 "the table"; then
  names table "$out" "$data/items.jsonl" "${rows[@]}"
  [[ ! -f $out/speed.txt ]] || cat "$out/speed.txt"
  files=("${rows[@]/#/$out/}")
  ((${#rows[@]} == 1)) || idgr compare "${files[@]/%//users.jsonl}" -m hr@10 -m ndcg@10 --seed "$seed" \
    -o "$out/significance.json"
fi

log "done in $SECONDS s; everything is in $out"
