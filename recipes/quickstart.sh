#!/usr/bin/env bash
# From nothing to recommendations and an honest score, on a made-up shop, on two CPU cores, with no network once
# installed. Makes or reuses .venv, with pip alone.
#
# Reads: nothing; stage 1 makes the data up from the seed. Writes: the folder --out (runs/quickstart-SEED).
# Usage: recipes/quickstart.sh [--seed N] [--out DIR] [--stage N] [--stop-stage N]
#   stages: 1 prep, 2 init-gen, 3 gen-ids, 4 train-rec, 5 recommend, 6 eval, 7 show
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

seed=0
out=
gen_epochs=6
rec_epochs=3

options=(seed out gen_epochs rec_epochs)
parse_options "$@"
[[ $seed =~ ^[0-9]+$ ]] || die "--seed takes a number"
out=${out:-runs/quickstart-$seed}
install
SECONDS=0

if begin 1 "make up a shop, split its histories"; then
  idgr prep demo --seed "$seed" -o "$out/data"
fi

if begin 2 "train a first ID generator on keyphrases of the catalogue"; then
  idgr init-gen "$out/data/items.jsonl" --model nano --epochs "$gen_epochs" --seed "$seed" -o "$out/gen"
fi

if begin 3 "give every item a textual ID"; then
  idgr gen-ids "$out/data/items.jsonl" --model "$out/gen" --rec-tokenizer "$out/gen" -o "$out/ids.jsonl"
fi

if begin 4 "train the recommender"; then
  idgr train-rec "$out/data/train.jsonl" --ids "$out/ids.jsonl" --valid "$out/data/valid.jsonl" \
    --model nano --tokenizer "$out/gen" --objective trie --epochs "$rec_epochs" \
    --valid-users 500 --seed "$seed" -o "$out/rec"
fi

if begin 5 "recommend to every user"; then
  idgr recommend "$out/data/test.jsonl" --rec "$out/rec" --ids "$out/ids.jsonl" -k 10 -o "$out/recs.jsonl"
fi

if begin 6 "score the recommendations"; then
  idgr eval "$out/recs.jsonl" --truth "$out/data/test.jsonl" --train "$out/data/train.jsonl" --segments \
    --per-user "$out/users.jsonl" -o "$out/metrics.json"
fi

if begin 7 "a few users, in words"; then
  python "$root/recipes/show.py" "$out/data/test.jsonl" "$out/ids.jsonl" "$out/recs.jsonl"
fi

log "done in $SECONDS s; everything is in $out"
