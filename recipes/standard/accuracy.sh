#!/usr/bin/env bash
# How accurate textual IDs can be beside the strongest rivals on one split: a causal model whose IDs begin with a word that
# items bought together share, alone and with an item head, which is told the vectors of a SASRec and heeds whose texts
# and buyers are alike; that SASRec, with the full cross-entropy; STAR's retrieval, Markov and popularity; blends with
# weights chosen on validation; for several seeds. The textual recommender also learns the items' texts; the rest of its
# settings are the defaults of `idgr train-rec`.
# Every choice is made on validation; test is scored once a row and seed.
#
# Reads: the folder --data, made by `idgr prep`. Writes: the folder --out.
# Usage: recipes/standard/accuracy.sh --data DIR [--seeds "0 1 2"] [--epochs N] [--near-epochs N]
#     [--reconstruction RATIO] [--sasrec-epochs N] [--candidates K] [--weight-users N] [--out DIR] [--stage N] [--stop-stage N]
#   stages: 1 IDs, STAR, Markov and popularity, 2 SASRec, 3 textual recommenders, 4 recommend and blend, 5 eval and compare,
#     6 the table
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

data=
seeds="0 1 2"
epochs=6
near_epochs=3 # of the row near, which needs no more
sasrec_epochs=60
reconstruction=0.5
candidates=20     # of each recommender, for the blend
weight_users=5000 # of validation, on whom its weight is chosen
out=runs/accuracy

# What the row `near` has beside `textual`, with the vectors of the SASRec.
near=(--item-head 1 --tell-items)

options=(data seeds epochs near_epochs reconstruction sasrec_epochs candidates weight_users out)
parse_options "$@"
[[ -n $data ]] || die "--data is missing: name a folder that idgr prep wrote"
[[ -f $data/items.jsonl ]] || die "$data has no items.jsonl; name a folder that idgr prep wrote"
read -ra chosen <<< "$seeds"
((${#chosen[@]})) || die "--seeds names no seed"
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
    idgr recommend "$data/test.jsonl" --baseline "$row" --train "$data/train.jsonl" "${texts[@]}" -k "$candidates" \
      -o "$out/$row/test.jsonl"
    idgr eval "$out/$row/test.jsonl" --truth "$data/test.jsonl" --train "$data/train.jsonl" \
      --per-user "$out/$row/users.jsonl" -o "$out/$row/metrics.json"
  done
fi

for seed in "${chosen[@]}"; do
  run=$out/seed-$seed
  mkdir -p "$run"/{textual,near,sasrec,star,blend,blend-star}

  if begin 2 "seed $seed: train a SASRec"; then
    idgr train-sasrec "$data/train.jsonl" --items "$data/items.jsonl" --valid "$data/valid.jsonl" --width 64 \
      --lr 1e-3 --weight-decay 0.01 --epochs "$sasrec_epochs" --valid-users 5000 --precision auto --seed "$seed" \
      -o "$run/sasrec/rec"
  fi

  if begin 3 "seed $seed: train the recommender, alone and with an item head"; then
    for row in textual near; do
      more=(--epochs "$epochs")
      [[ $row == textual ]] || more=(--epochs "$near_epochs" "${near[@]}" --item-vectors "$run/sasrec/rec")
      idgr train-rec "$data/train.jsonl" --ids "$out/ids.jsonl" --valid "$data/valid.jsonl" --arch causal \
        --reconstruction "$reconstruction" --items "$data/items.jsonl" "${more[@]}" --valid-users "$weight_users" \
        --precision auto --seed "$seed" -o "$run/$row/rec"
    done
  fi

  if begin 4 "seed $seed: recommend, and blend by the weight that is best on validation"; then
    python "$root/recipes/sample.py" "$data/valid.jsonl" "$weight_users" "$seed" > "$run/valid.jsonl"
    for part in valid test; do
      users=$data/test.jsonl
      [[ $part == test ]] || users=$run/valid.jsonl
      for row in textual near; do
        idgr recommend "$users" --rec "$run/$row/rec" --ids "$out/ids.jsonl" -k "$candidates" --beams "$candidates" \
          -o "$run/$row/$part.jsonl"
      done
      idgr recommend "$users" --rec "$run/sasrec/rec" -k "$candidates" --batch-size 256 \
        -o "$run/sasrec/$part.jsonl"
    done
    idgr blend "$run"/{textual,sasrec}/valid.jsonl --truth "$run/valid.jsonl" -o "$run/blend/weight.json"
    idgr blend "$run"/{textual,sasrec}/test.jsonl --weight "$run/blend/weight.json" -o "$run/blend/test.jsonl"
    idgr recommend "$run/valid.jsonl" --baseline star --train "$data/train.jsonl" --items "$data/items.jsonl" \
      -k "$candidates" -o "$run/star/valid.jsonl"
    idgr blend "$run"/{near,star}/valid.jsonl --truth "$run/valid.jsonl" -o "$run/blend-star/weight.json"
    idgr blend "$run/near/test.jsonl" "$out/star/test.jsonl" --weight "$run/blend-star/weight.json" -o "$run/blend-star/test.jsonl"
  fi

  if begin 5 "seed $seed: score, and test what is more than chance"; then
    for row in textual near sasrec blend blend-star; do
      idgr eval "$run/$row/test.jsonl" --truth "$data/test.jsonl" --train "$data/train.jsonl" --segments \
        --per-user "$run/$row/users.jsonl" -o "$run/$row/metrics.json"
    done
    idgr compare "$run"/{sasrec,textual,near,blend,blend-star}/users.jsonl "$out"/{star,markov}/users.jsonl \
      -m hr@10 -m ndcg@10 --seed "$seed" -o "$run/significance.json"
  fi
done

if begin 6 "the table"; then
  echo "| ${#chosen[@]} seeds | HR@5 | NDCG@5 | HR@10 | NDCG@10 | HR@10, target bought at most 3 times |"
  echo "|---|---|---|---|---|---|"
  for row in textual near sasrec blend blend-star; do
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
