#!/usr/bin/env bash
# Does learning the IDs pay? A made-up shop whose texts begin with words that say nothing, and a first ID generator that
# copies a text's first words: alternate training against training the recommender alone, for as many epochs.
#
# Reads: nothing; stage 1 makes the data up from the seed. Writes: the folder --out.
# Usage: recipes/ablation/distracting.sh [--seed N] [--out DIR] [--stage N] [--stop-stage N]
#   stages: 1 prep, 2 init-gen, 3 rec-only, 4 alternate, 5 recommend and eval, 6 show
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

seed=0
out=runs/distracting
items=400
users=1200
rounds=2
rec_epochs=5
gen_epochs=8

options=(seed out items users rounds rec_epochs gen_epochs)
parse_options "$@"
[[ $seed =~ ^[0-9]+$ ]] || die "--seed takes a number"
install
SECONDS=0
here=$root/recipes/ablation
data=$out/data

alternate() {
  idgr alternate "$data" --gen "$out/gen" --rec nano --mode "$1" --rounds "$rounds" --rec-epochs "$rec_epochs" \
    --objective trie --gen-lr 3e-4 --gen-batch-size 24 --temperature 3 --no-repeat-ngram 2 --max-text-tokens 64 \
    --valid-users 0 --precision auto --seed "$seed" -o "$out/$1"
}

if begin 1 "make up a shop with distracting texts"; then
  idgr prep demo --distracting --items "$items" --users "$users" --seed "$seed" -o "$data"
fi

if begin 2 "train an ID generator that copies the first words"; then
  python "$here/first_words.py" "$data/items.jsonl" "$seed" > "$out/pairs.jsonl"
  idgr init-gen "$data/items.jsonl" --pairs "$out/pairs.jsonl" --model nano --epochs "$gen_epochs" \
    --max-text-tokens 64 --precision auto --seed "$seed" -o "$out/gen"
fi

if begin 3 "train the recommender alone"; then
  alternate rec-only
fi

if begin 4 "train both in turns"; then
  alternate alternate
fi

if begin 5 "recommend to every user and score"; then
  for mode in rec-only alternate; do
    idgr recommend "$data/test.jsonl" --rec "$out/$mode/final/rec" --ids "$out/$mode/final/ids.jsonl" \
      -o "$out/$mode-recs.jsonl"
    idgr eval "$out/$mode-recs.jsonl" --truth "$data/test.jsonl" --train "$data/train.jsonl" \
      -o "$out/$mode-metrics.json"
  done
fi

if begin 6 "what the IDs say, and what they are worth"; then
  python "$here/telling.py" "$data/items.jsonl" "$out/alternate/round-0/ids.jsonl" "$out/alternate/final/ids.jsonl"
  python "$root/recipes/table.py" "$out"/*-metrics.json
fi

log "done in $SECONDS s; everything is in $out"
