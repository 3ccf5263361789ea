#!/usr/bin/env bash
# How accurate textual IDs can be beside the strongest rivals on one split: a causal model whose IDs begin with a word that
# items bought together share, alone, with an item head that heeds whose texts and buyers are alike, and with one that is
# given the vectors of a SASRec; that SASRec, with the full cross-entropy; STAR's retrieval, Markov and popularity; for
# several seeds. The textual recommender also learns the items' texts; the rest of its settings are the defaults of
# `idgr train-rec`.
# Every choice is made on validation; test is scored once a row and seed.
#
# Reads: the folder --data, made by `idgr prep`. Writes: the folder --out.
# Usage: recipes/standard/accuracy.sh --data DIR [--seeds "0 1 2"] [--rows "near near-sasrec textual"] [--epochs N] [--near-epochs N]
#     [--reconstruction RATIO] [--sasrec-epochs N] [--beams K] [--valid-users N] [--out DIR] [--stage N] [--stop-stage N]
#   --rows: of textual (no item head), near (with one) and near-sasrec (with one that is given vectors)
#   stages: 1 IDs, STAR, Markov and popularity, 2 SASRec, 3 textual recommenders, 4 recommend, 5 eval and compare, 6 the table
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

data=
seeds="0 1 2"
rows="near near-sasrec textual"
epochs=6       # of the row textual
near_epochs=3  # of the rows with an item head, which need no more
sasrec_epochs=60
reconstruction=0.5
beams=20
valid_users=5000
out=runs/accuracy

options=(data seeds rows epochs near_epochs reconstruction sasrec_epochs beams valid_users out)
parse_options "$@"
[[ -n $data ]] || die "--data is missing: name a folder that idgr prep wrote"
[[ -f $data/items.jsonl ]] || die "$data has no items.jsonl; name a folder that idgr prep wrote"
read -ra chosen <<< "$seeds"
read -ra rows <<< "$rows"
((${#chosen[@]})) || die "--seeds names no seed"
for row in "${rows[@]}"; do
  [[ $row =~ ^(near|near-sasrec|textual)$ ]] || die "--rows $row: name near, near-sasrec or textual"
done
install schemes
SECONDS=0

if begin 1 "give every item a textual ID"; then
  mkdir -p "$out"
  idgr gen-ids "$data/items.jsonl" --scheme shared --train "$data/train.jsonl" -o "$out/ids.jsonl"
fi

if begin 1 "STAR, Markov and popularity"; then
  for row in star markov popularity; do
    mkdir -p "$out/$row"
    texts=()
    [[ $row != star ]] || texts=(--items "$data/items.jsonl")
    idgr recommend "$data/test.jsonl" --baseline "$row" --train "$data/train.jsonl" "${texts[@]}" -k "$beams" \
      -o "$out/$row/test.jsonl"
    idgr eval "$out/$row/test.jsonl" --truth "$data/test.jsonl" --train "$data/train.jsonl" \
      --per-user "$out/$row/users.jsonl" -o "$out/$row/metrics.json"
  done
fi

for seed in "${chosen[@]}"; do
  run=$out/seed-$seed
  mkdir -p "$run"

  if begin 2 "seed $seed: train a SASRec"; then
    idgr train-sasrec "$data/train.jsonl" --items "$data/items.jsonl" --valid "$data/valid.jsonl" --width 64 \
      --lr 1e-3 --weight-decay 0.01 --epochs "$sasrec_epochs" --valid-users "$valid_users" --precision auto \
      --seed "$seed" -o "$run/sasrec/rec"
  fi

  if begin 3 "seed $seed: train the textual recommenders"; then
    for row in "${rows[@]}"; do
      case $row in
        textual) more=(--epochs "$epochs") ;;
        near) more=(--epochs "$near_epochs" --item-head 1 --tell-items) ;;
        near-sasrec) more=(--epochs "$near_epochs" --item-head 1 --tell-items --item-vectors "$run/sasrec/rec") ;;
      esac
      idgr train-rec "$data/train.jsonl" --ids "$out/ids.jsonl" --valid "$data/valid.jsonl" --arch causal \
        --reconstruction "$reconstruction" --items "$data/items.jsonl" "${more[@]}" --valid-users "$valid_users" \
        --precision auto --seed "$seed" -o "$run/$row/rec"
    done
  fi

  if begin 4 "seed $seed: recommend"; then
    for row in "${rows[@]}"; do
      idgr recommend "$data/test.jsonl" --rec "$run/$row/rec" --ids "$out/ids.jsonl" -k "$beams" --beams "$beams" \
        -o "$run/$row/test.jsonl"
    done
    idgr recommend "$data/test.jsonl" --rec "$run/sasrec/rec" -k "$beams" --batch-size 256 -o "$run/sasrec/test.jsonl"
  fi

  if begin 5 "seed $seed: score, and test what is more than chance"; then
    for row in "${rows[@]}" sasrec; do
      idgr eval "$run/$row/test.jsonl" --truth "$data/test.jsonl" --train "$data/train.jsonl" --segments \
        --per-user "$run/$row/users.jsonl" -o "$run/$row/metrics.json"
    done
    others=("${rows[@]/#/$run/}")
    idgr compare "$run/sasrec/users.jsonl" "${others[@]/%//users.jsonl}" "$out"/{star,markov}/users.jsonl -m hr@10 \
      -m ndcg@10 --seed "$seed" -o "$run/significance.json"
  fi
done

if begin 6 "the table"; then
  echo "| ${#chosen[@]} seeds | HR@5 | NDCG@5 | HR@10 | NDCG@10 | HR@10, target bought at most 3 times |"
  echo "|---|---|---|---|---|---|"
  for row in "${rows[@]}" sasrec; do
    files=()
    for seed in "${chosen[@]}"; do
      files+=("$out/seed-$seed/$row/users.jsonl")
    done
    python "$root/recipes/seeds.py" "$row" "${files[@]}"
  done
  for row in star markov popularity; do
    python "$root/recipes/seeds.py" "$row" "$out/$row/users.jsonl"
  done
fi

log "done in $SECONDS s; everything is in $out"
