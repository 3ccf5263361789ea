#!/usr/bin/env bash
# What choosing IDs is worth on a data set: a causal recommender is trained on IDs made by a rule, then its items get
# others for some rounds, and it goes on. The others are words of each item's text that it chooses (alternate --method
# select), as many that are drawn (random), or words for what the item is bought with (cluster). Beside them the same
# recommender on the first IDs for as many epochs, and recommenders trained from random weights on the first IDs and on
# those of the first row.
#
# Reads: the folder --data, made by `idgr prep`. Writes: the folder --out.
# Usage: recipes/ablation/choose.sh --data DIR [--ids shared|keyphrase] [--rows "ROW ROW…"] [--epochs N] [--rounds N]
#     [--round-epochs N] [--candidates N] [--contexts N] [--share-changed F] [--held-out F] [--settle-epochs N]
#     [--valid-users N] [--out DIR] [--seed N] [--stage N] [--stop-stage N]
#   --rows: of select, cluster, random, rec-only, scratch-first, scratch-last; one of the first three stands first
#   stages: 1 IDs, 2 the first row, 3 the other ones with new IDs, 4 rec-only, 5 train on the last IDs,
#     6 recommend and eval, 7 show
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

data=
ids=shared
rows="select cluster random rec-only scratch-first scratch-last"
epochs=6          # of the recommender on the first IDs
rounds=1          # that choose
round_epochs=2    # of the recommender in each of them
candidates=5
contexts=3
share_changed=0.2
held_out=0.1
settle_epochs=2   # of the recommender at the end
valid_users=2000  # who choose a training's epoch
out=
seed=0

options=(data ids rows epochs rounds round_epochs candidates contexts share_changed held_out settle_epochs valid_users
  out seed)
parse_options "$@"
[[ -n $data ]] || die "--data is missing: name a folder that idgr prep wrote"
[[ -f $data/items.jsonl ]] || die "$data has no items.jsonl; name a folder that idgr prep wrote"
case $ids in
  shared) rule=(--scheme shared --train "$data/train.jsonl") ;;
  keyphrase) rule=(--model keyphrase) ;;
  *) die "--ids $ids: name shared or keyphrase" ;;
esac
out=${out:-runs/choose-$ids-$seed}
read -ra rows <<< "$rows"
wanted() { [[ " ${rows[*]} " == *" $1 "* ]]; }
row=${rows[0]}  # the one whose first round trains the recommender that all others begin from
case $row in
  select | cluster | random) ;;
  *) die "--rows \"${rows[*]}\": begin with select, cluster or random" ;;
esac
install schemes
SECONDS=0
here=$root/recipes/ablation

# train IDS OUT [OPTION…]: the data as the rounds saw them, unless an option names others.
train() {
  idgr train-rec "$out/$row/round-0/train.jsonl" --ids "$1" --valid "$data/valid.jsonl" --arch causal \
    --valid-users "$valid_users" --precision auto "${@:3}" -o "$2"
}

# choose METHOD REC ROUNDS [OPTION…]
choose() {
  local scoring=(--candidates "$candidates" --contexts "$contexts" --share-changed "$share_changed")
  [[ $1 != cluster ]] || scoring=()
  idgr alternate "$data" --method "$1" --rec "$2" --rounds "$3" --ids "$out/ids.jsonl" "${scoring[@]}" \
    --held-out "$held_out" --round-epochs "$round_epochs" --valid-users "$valid_users" --precision auto \
    --seed "$seed" "${@:4}" -o "$out/$1"
}

if begin 1 "give every item an ID"; then
  mkdir -p "$out"
  idgr gen-ids "$data/items.jsonl" "${rule[@]}" -o "$out/ids.jsonl"
fi

if begin 2 "train on the first IDs, then by --method $row"; then
  choose "$row" nano-causal "$((rounds + 1))" --rec.epochs "$epochs"
fi

if begin 3 "the same recommender, by the other methods"; then
  for method in select cluster random; do
    if [[ $method != "$row" ]] && wanted "$method"; then
      choose "$method" "$out/$row/round-1/rec" "$rounds"
    fi
  done
fi

if wanted rec-only && begin 4 "the same recommender on the first IDs, for as many epochs"; then
  train "$out/ids.jsonl" "$out/rec-only/rec" --model "$out/$row/round-1/rec" \
    --epochs "$((rounds * round_epochs))" --seed "$seed"
fi

# The folder in which a row's IDs and its recommender lie before the last training; the first IDs lie in $out.
last_of() {
  case $1 in
    "$row" | scratch-last) echo "$out/$row/round-$((rounds + 1))" ;;
    select | cluster | random) echo "$out/$1/round-$rounds" ;;
    rec-only) echo "$out/rec-only" ;;
  esac
}

ids_of() {
  case $1 in
    rec-only | scratch-first) echo "$out/ids.jsonl" ;;
    *) echo "$(last_of "$1")/ids.jsonl" ;;
  esac
}

rec_of() {
  case $1 in
    scratch-*) echo nano-causal ;;
    *) echo "$(last_of "$1")/rec" ;;
  esac
}

if begin 5 "train all recommenders on their last IDs"; then
  for one in "${rows[@]}"; do
    last=$settle_epochs
    [[ $one != scratch-* ]] || last=$epochs
    idgr train-rec "$data/train.jsonl" --ids "$(ids_of "$one")" --valid "$data/valid.jsonl" --arch causal \
      --model "$(rec_of "$one")" --epochs "$last" --valid-users "$valid_users" --precision auto \
      --seed "$((seed + 9))" -o "$out/$one-settled"
  done
fi

if begin 6 "recommend to every user and score"; then
  for one in "${rows[@]}"; do
    idgr recommend "$data/test.jsonl" --rec "$out/$one-settled" --ids "$(ids_of "$one")" -o "$out/$one-recs.jsonl"
    idgr eval "$out/$one-recs.jsonl" --truth "$data/test.jsonl" --train "$data/train.jsonl" --segments \
      --per-user "$out/$one-users.jsonl" -o "$out/$one-metrics.json"
  done
fi

if begin 7 "what it is worth, and which items gained"; then
  others=("${rows[@]/#/$out/}")
  idgr compare "${others[@]/%/-users.jsonl}" -m hr@10 -m ndcg@10 --seed "$seed" -o "$out/significance.json"
  ! wanted rec-only || python "$here/moved.py" "$data/items.jsonl" "$data/test.jsonl" "$out/ids.jsonl" \
    "$out/rec-only-users.jsonl" "$(ids_of "$row")" "$out/$row-users.jsonl" | tee "$out/moved.md"
  python "$root/recipes/table.py" "${others[@]/%/-metrics.json}"
fi

log "done in $SECONDS s; everything is in $out"
