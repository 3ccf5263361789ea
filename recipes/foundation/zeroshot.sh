#!/usr/bin/env bash
# Recommending on platforms never seen: one pair of models trained on some data sets, tried on others with no training.
#
# Reads: the folders in --train and --test, made by `idgr prep`; several are separated by spaces. Writes: the folder
#   --out.
# Usage: recipes/foundation/zeroshot.sh --train "DIR DIR" --test "DIR DIR" [--out DIR] [--epoch-instances N]
#     [--users N] [--seed N] [--stage N] [--stop-stage N]
#   stages: 1 fuse, 2 init-gen, 3 gen-ids, 4 train-rec, 5 zeroshot, 6 show
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

train=
test=
out=runs/zeroshot
seed=0
gen_epochs=3
rec_epochs=1
epoch_instances=0   # training instances of the recommender an epoch; 0 for all
users=3000          # test users of each platform who are scored, drawn from the seed

options=(train test out seed gen_epochs rec_epochs epoch_instances users)
parse_options "$@"
read -ra known <<< "$train"
read -ra foreign <<< "$test"
((${#known[@]} && ${#foreign[@]})) || die "--train and --test each take folders that idgr prep wrote"
for folder in "${known[@]}" "${foreign[@]}"; do
  [[ -f $folder/items.jsonl ]] || die "$folder has no items.jsonl; name folders that idgr prep wrote"
done
install
SECONDS=0

if begin 1 "join the data sets to train on"; then
  idgr prep fuse "${known[@]}" -o "$out/data"
fi

if begin 2 "train an ID generator on keyphrases of their texts"; then
  idgr init-gen "$out/data/items.jsonl" --model nano --epochs "$gen_epochs" --max-text-tokens 64 \
    --precision auto --seed "$seed" -o "$out/gen"
fi

if begin 3 "give every item a textual ID"; then
  idgr gen-ids "$out/data/items.jsonl" --model "$out/gen" --max-text-tokens 64 -o "$out/ids.jsonl"
fi

# The recommender begins from the generator, which has learnt to copy words from what it reads.
if begin 4 "train the recommender"; then
  idgr train-rec "$out/data/train.jsonl" --ids "$out/ids.jsonl" --valid "$out/data/valid.jsonl" --model "$out/gen" \
    --objective trie --epochs "$rec_epochs" --epoch-instances "$epoch_instances" --valid-users 500 --valid-beams 10 \
    --precision auto --seed "$seed" -o "$out/rec"
fi

if begin 5 "recommend where neither model has been"; then
  for folder in "${foreign[@]}"; do
    name=${folder%/}
    name=${name##*/}
    mkdir -p "$out/$name-data"
    cp "$folder/items.jsonl" "$folder/train.jsonl" "$out/$name-data/"
    python "$root/recipes/sample.py" "$folder/test.jsonl" "$users" "$seed" > "$out/$name-data/test.jsonl"
    idgr zeroshot "$out/$name-data" --gen "$out/gen" --rec "$out/rec" --max-text-tokens 64 -o "$out/$name"
  done
fi

if begin 6 "the tables"; then
  for folder in "${foreign[@]}"; do
    name=${folder%/}
    python "$root/recipes/table.py" "$out/${name##*/}/metrics.json"
  done
fi

log "done in $SECONDS s; everything is in $out"
