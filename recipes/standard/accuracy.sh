#!/usr/bin/env bash
# How accurate textual IDs can be beside the strongest rivals on one split: a causal model whose IDs begin with a word that
# items bought together share, a SASRec with the full cross-entropy, their blend with a weight chosen on validation,
# Markov and popularity, for several seeds. The textual recommender also learns the items' texts; the rest of its settings
# are the defaults of `idgr train-rec`.
# Every choice is made on validation; test is scored once a row and seed.
#
# Reads: the folder --data, made by `idgr prep`. Writes: the folder --out.
# Usage: recipes/standard/accuracy.sh --data DIR [--seeds "0 1 2"] [--epochs N] [--reconstruction RATIO]
#     [--sasrec-epochs N] [--candidates K] [--weight-users N] [--out DIR] [--stage N] [--stop-stage N]
#   stages: 1 IDs, Markov and popularity, 2 textual recommender, 3 SASRec, 4 recommend and blend, 5 eval and compare, 6 the table
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

data=
seeds="0 1 2"
epochs=6
sasrec_epochs=60
reconstruction=0.5
candidates=20     # of each recommender, for the blend
weight_users=5000 # of validation, on whom its weight is chosen
out=runs/accuracy

options=(data seeds epochs reconstruction sasrec_epochs candidates weight_users out)
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

if begin 1 "Markov and popularity"; then
  for row in markov popularity; do
    mkdir -p "$out/$row"
    idgr recommend "$data/test.jsonl" --baseline "$row" --train "$data/train.jsonl" -o "$out/$row/test.jsonl"
    idgr eval "$out/$row/test.jsonl" --truth "$data/test.jsonl" --train "$data/train.jsonl" \
      --per-user "$out/$row/users.jsonl" -o "$out/$row/metrics.json"
  done
fi

for seed in "${chosen[@]}"; do
  run=$out/seed-$seed
  mkdir -p "$run"/{textual,sasrec,blend}

  if begin 2 "seed $seed: train the recommender"; then
    idgr train-rec "$data/train.jsonl" --ids "$out/ids.jsonl" --valid "$data/valid.jsonl" --arch causal \
      --reconstruction "$reconstruction" --items "$data/items.jsonl" --epochs "$epochs" --precision auto \
      --seed "$seed" -o "$run/textual/rec"
  fi

  if begin 3 "seed $seed: train a SASRec"; then
    idgr train-sasrec "$data/train.jsonl" --items "$data/items.jsonl" --valid "$data/valid.jsonl" --width 64 \
      --lr 1e-3 --weight-decay 0.01 --epochs "$sasrec_epochs" --valid-users 5000 --precision auto --seed "$seed" \
      -o "$run/sasrec/rec"
  fi

  if begin 4 "seed $seed: recommend, and blend by the weight that is best on validation"; then
    python "$root/recipes/sample.py" "$data/valid.jsonl" "$weight_users" "$seed" > "$run/valid.jsonl"
    for part in valid test; do
      users=$data/test.jsonl
      [[ $part == test ]] || users=$run/valid.jsonl
      idgr recommend "$users" --rec "$run/textual/rec" --ids "$out/ids.jsonl" -k "$candidates" \
        --beams "$candidates" -o "$run/textual/$part.jsonl"
      idgr recommend "$users" --rec "$run/sasrec/rec" -k "$candidates" --batch-size 256 \
        -o "$run/sasrec/$part.jsonl"
    done
    idgr blend "$run"/{textual,sasrec}/valid.jsonl --truth "$run/valid.jsonl" -o "$run/blend/weight.json"
    idgr blend "$run"/{textual,sasrec}/test.jsonl --weight "$run/blend/weight.json" -o "$run/blend/test.jsonl"
  fi

  if begin 5 "seed $seed: score, and test what is more than chance"; then
    for row in textual sasrec blend; do
      idgr eval "$run/$row/test.jsonl" --truth "$data/test.jsonl" --train "$data/train.jsonl" --segments \
        --per-user "$run/$row/users.jsonl" -o "$run/$row/metrics.json"
    done
    idgr compare "$run"/{sasrec,textual,blend}/users.jsonl "$out/markov/users.jsonl" -m hr@10 -m ndcg@10 --seed "$seed" -o "$run/significance.json"
  fi
done

if begin 6 "the table"; then
  echo "| ${#chosen[@]} seeds | HR@5 | NDCG@5 | HR@10 | NDCG@10 | HR@10, target bought at most 3 times |"
  echo "|---|---|---|---|---|---|"
  for row in textual sasrec blend; do
    files=()
    for seed in "${chosen[@]}"; do
      files+=("$out/seed-$seed/$row/users.jsonl")
    done
    python "$root/recipes/seeds.py" "$row" "${files[@]}"
  done
  for row in markov popularity; do
    python "$root/recipes/seeds.py" "$row" "$out/$row/users.jsonl"
  done
fi

log "done in $SECONDS s; everything is in $out"
