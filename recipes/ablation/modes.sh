#!/usr/bin/env bash
# The paper's Table 5 on a prepared data set: the recommender alone, the ID generator alone, and both in turns, from one
# first generator and for as many epochs of each.
#
# Reads: the folder --data, made by `idgr prep`; --pairs, IDs to learn the first generator from (item_id and id a line;
#   keyphrases of the texts if not given). Writes: the folder --out.
# Usage: recipes/ablation/modes.sh --data DIR [--pairs FILE] [--out DIR] [--rec-epoch-instances N] [--users N]
#     [--seed N] [--stage N] [--stop-stage N]
#   stages: 1 init-gen, 2 rec-only, 3 id-only, 4 alternate, 5 recommend and eval, 6 show
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

data=
pairs=
out=runs/modes
seed=0
rounds=3
gen_epochs=3                # of the first generator
rec_epoch_instances=24000   # training instances of the recommender a round; 0 for all
gen_epoch_instances=6000    # of the generator
valid_users=500
users=3000                  # test users who are scored, drawn from the seed

options=(data pairs out seed rounds gen_epochs rec_epoch_instances gen_epoch_instances valid_users users)
parse_options "$@"
[[ -n $data ]] || die "--data is missing: name a folder that idgr prep wrote"
[[ -f $data/items.jsonl ]] || die "$data has no items.jsonl; name a folder that idgr prep wrote"
install
SECONDS=0

alternate() {
  idgr alternate "$data" --gen "$out/gen" --rec nano --mode "$1" --rounds "$rounds" --rec-epochs 1 \
    --rec-epoch-instances "$rec_epoch_instances" --objective trie --gen-epoch-instances "$gen_epoch_instances" \
    --gen-lr 3e-4 --gen-batch-size 24 --temperature 3 --no-repeat-ngram 2 --max-text-tokens 64 \
    --valid-users "$valid_users" --precision auto --seed "$seed" -o "$out/$1"
}

if begin 1 "train a first ID generator"; then
  idgr init-gen "$data/items.jsonl" ${pairs:+--pairs "$pairs"} --model nano --epochs "$gen_epochs" \
    --max-text-tokens 64 --precision auto --seed "$seed" -o "$out/gen"
fi

if begin 2 "train the recommender alone"; then
  alternate rec-only
fi

if begin 3 "train the ID generator alone, through the recommender of the first round"; then
  alternate id-only
fi

if begin 4 "train both in turns"; then
  alternate alternate
fi

if begin 5 "recommend and score"; then
  python "$root/recipes/sample.py" "$data/test.jsonl" "$users" "$seed" > "$out/test.jsonl"
  for mode in rec-only id-only alternate; do
    idgr recommend "$out/test.jsonl" --rec "$out/$mode/final/rec" --ids "$out/$mode/final/ids.jsonl" --force \
      -o "$out/$mode-recs.jsonl"
    idgr eval "$out/$mode-recs.jsonl" --truth "$out/test.jsonl" --train "$data/train.jsonl" \
      -o "$out/$mode-metrics.json"
  done
fi

if begin 6 "the table"; then
  python "$root/recipes/table.py" "$out"/*-metrics.json
fi

log "done in $SECONDS s; everything is in $out"
