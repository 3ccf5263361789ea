#!/usr/bin/env bash
# The paper's Table 4 on one data set: textual IDs beside other ways to name items (P5-SID, P5-CID, P5-SemID, semantic
# codes), a SASRec with the full cross-entropy, Markov and popularity, all on one split, with paired tests.
#
# Reads: one of --data, a folder that `idgr prep` wrote; --prepared, a folder with sequences.jsonl.gz and meta.jsonl.gz;
#   --raw, the folder that recipes/download.sh fetched to. `--dataset demo` needs none, it is made up.
# Writes: the folder --out.
# Usage: recipes/standard/run.sh --dataset beauty|sports|toys|yelp|demo [--size smoke|small|paper]
#     [--data DIR | --prepared DIR | --raw DIR] [--rows "ROW ROW"] [--t5 DIR] [--tags DIR] [--users N] [--out DIR]
#     [--seed N] [--dry-run] [--stage N] [--stop-stage N]
#   --dataset: with --data or --prepared it may be any name, which only chooses what the table is compared with
#   --size: smoke, minutes on a made-up shop; small, within two hours on two CPU cores: a causal model of a million
#     parameters from random weights that sees a sample of the users in each epoch, IDs of keyphrases; paper, a GPU day:
#     T5-small and the paper's ID generator, three rounds of each in turns, with the settings that did best here and, as
#     the row `paper`, with the paper's (softmax over all words, generator's rate 1e-8, user IDs, 10 beams)
#   --rows: of textual, paper (size paper only), sequential, collaborative, category, semantic, title, random (all but the
#     last two)
#   --t5, --tags: for size paper, folders of T5-small and of the paper's ID generator, as recipes/prefetch.sh makes them;
#     else they come from the hub
#   --dry-run: split the data, tell what each training would take on this machine, print all other commands; idgr is
#     installed only where there is none
#   --users: test users who are scored, drawn from the seed (0: all)
#   stages: 1 prep, 2 IDs, 3 recommenders, 4 SASRec, 5 recommend and eval, 6 significance, 7 the table against
#     recipes/standard/expected.tsv
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
source "$root/recipes/data.sh"

dataset=
size=small
rows=
users=0
out=
seed=0

options=(dataset size data prepared raw rows t5 tags users out seed)
flags=(dry_run)
parse_options "$@"
here=$root/recipes/standard
if [[ -z $rows ]]; then
  rows="textual sequential collaborative category semantic"
  [[ $size != paper ]] || rows=${rows/ / paper }
fi
read -ra wanted <<< "$rows"
for row in "${wanted[@]}"; do
  case $row in
    paper) [[ $size == paper ]] || die "row paper is for --size paper" ;;
    textual | sequential | collaborative | category | semantic | title | random) ;;
    *) die "unknown row $row; see $0 --help" ;;
  esac
done
((${#wanted[@]})) || die "--rows names no row"

settle_data_set
settle_models "$size"

case $size in # how long each model is trained
  smoke)
    rec=(--arch causal --epochs 1 --valid-users 100 --valid-beams 10)
    sasrec=(--width 32 --epochs 2)
    ;;
  small)
    rec=(--arch causal --epochs 6 --epoch-instances 10000 --valid-users 2000 --max-history 50 --lr 2e-3 --dropout 0.2
      --weight-decay 0.05 --precision auto)
    sasrec=(--width 64 --lr 1e-3 --weight-decay 0.01 --epochs 60 --valid-users 5000 --precision auto)
    ;;
  paper)
    rec=(--model "$t5" --epochs 30 --precision auto)
    sasrec=(--width 64 --lr 1e-3 --weight-decay 0.01 --epochs 60 --valid-users 5000 --precision auto)
    ;;
  *) die "--size $size: choose smoke, small or paper" ;;
esac
out=${out:-runs/standard-$dataset-$size-$seed}
ready=$data
data=${data:-$out/data}
install schemes
plan_only "$out"
SECONDS=0

# learnt ROW: whether its IDs are learnt in rounds, not made beforehand.
learnt() {
  [[ $1 == paper || ($1 == textual && $size == paper) ]]
}

if begin 1 "split the data set"; then
  [[ -n $ready ]] || split_data_set "$dataset" "$prepared" "$data" --items 120 --users 240
  sample_test "$data" "$out/test" "$users"
fi

if begin 2 "name the items in ${#wanted[@]} ways"; then
  for row in "${wanted[@]}"; do
    mkdir -p "$out/$row"
    ! learnt "$row" || continue
    case $row in
      textual) idgr gen-ids "$data/items.jsonl" --model keyphrase -o "$out/textual/ids.jsonl" ;;
      sequential | collaborative)
        idgr gen-ids "$data/items.jsonl" --scheme "$row" --train "$data/train.jsonl" -o "$out/$row/ids.jsonl"
        ;;
      *) idgr gen-ids "$data/items.jsonl" --scheme "$row" -o "$out/$row/ids.jsonl" ;;
    esac
  done
fi

if begin 3 "train a recommender on each"; then
  for row in "${wanted[@]}"; do
    if learnt "$row"; then
      settings=(--objective trie)
      [[ $row != paper ]] || settings=(--paper --user-ids history)
      idgr alternate "$data" --gen "$tags" --rec "$t5" --rounds 3 "${settings[@]}" --precision auto --seed "$seed" \
        -o "$out/$row/run"
      work ln -sfn run/final/rec "$out/$row/rec"
      work ln -sfn run/final/ids.jsonl "$out/$row/ids.jsonl"
    else
      idgr train-rec "$data/train.jsonl" --ids "$out/$row/ids.jsonl" --valid "$data/valid.jsonl" --objective trie \
        "${rec[@]}" --seed "$seed" -o "$out/$row/rec"
    fi
  done
fi

if begin 4 "train a SASRec"; then
  idgr train-sasrec "$data/train.jsonl" --items "$data/items.jsonl" --valid "$data/valid.jsonl" "${sasrec[@]}" \
    --seed "$seed" -o "$out/sasrec/rec"
fi

if begin 5 "recommend and score, on the test users, once"; then
  test=$out/test/test.jsonl
  for row in "${wanted[@]}"; do
    asked=()
    [[ $row != paper ]] || asked=(--gen "$out/paper/run/final/gen" --items "$data/items.jsonl" --beams 10 -k 10)
    idgr recommend "$test" --rec "$out/$row/rec" --ids "$out/$row/ids.jsonl" "${asked[@]}" -o "$out/$row/recs.jsonl"
  done
  idgr recommend "$test" --rec "$out/sasrec/rec" --batch-size 256 -o "$out/sasrec/recs.jsonl"
  for row in markov popularity; do
    mkdir -p "$out/$row"
    idgr recommend "$test" --baseline "$row" --train "$data/train.jsonl" -o "$out/$row/recs.jsonl"
  done
  for row in "${wanted[@]}" sasrec markov popularity; do
    idgr eval "$out/$row/recs.jsonl" --truth "$test" --train "$data/train.jsonl" --segments \
      --per-user "$out/$row/users.jsonl" -o "$out/$row/metrics.json"
  done
fi

if begin 6 "which differences are more than chance"; then
  files=()
  for row in "${wanted[@]}" sasrec markov popularity; do
    files+=("$out/$row/users.jsonl")
  done
  idgr compare "${files[@]}" -m hr@10 -m ndcg@10 --seed "$seed" -o "$out/significance.json"
fi

if begin 7 "the table"; then
  files=()
  for row in "${wanted[@]}" sasrec markov popularity; do
    files+=("$out/$row/metrics.json")
  done
  work python "$root/recipes/table.py" --no-baselines "${files[@]}"
  work python "$root/recipes/expected.py" "$here/expected.tsv" "$dataset-$size" "${files[@]}"
fi

log "done in $SECONDS s; everything is in $out"
