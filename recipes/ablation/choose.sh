#!/usr/bin/env bash
# What choosing IDs is worth on a data set (alternate --method select): a causal recommender is trained on IDs made by
# a rule, chooses among other words of each item's text for some rounds, and goes on. Beside it the same recommender on
# the first IDs for as many epochs, with and without an epoch in which items go by two names; one whose items get as
# many words that are drawn; Table 5's other rows, with IDs of a generator before and after it has learnt through the
# same recommender; and recommenders trained from random weights, in one go of as many epochs, on the first IDs and on
# the last ones.
#
# Reads: the folder --data, made by `idgr prep`. Writes: the folder --out.
# Usage: recipes/ablation/choose.sh --data DIR [--ids shared|keyphrase|clusters] [--rows "ROW ROW"] [--epochs N]
#     [--rounds N] [--round-epochs N] [--candidates N] [--contexts N] [--share-changed F] [--go-back 0|1]
#     [--held-out F] [--settle-epochs N] [--gen-epochs N] [--gen-instances N] [--valid-users N] [--out DIR]
#     [--seed N] [--stage N] [--stop-stage N]
#   --rows: of select, random, rec-only, names-back, untaught, soft, id-only, scratch-first, scratch-select,
#     scratch-soft; select is always there. names-back has the first IDs again after the last round's epoch with two
#     names for an item. soft is Table 5's alternate, id-only its IDs for the recommender that never learnt them, and
#     untaught has IDs of the generator before it learns through the recommender
#   stages: 1 IDs, 2 select, 3 random, 4 rec-only and names-back, 5 untaught and soft, 6 train on the last IDs,
#     7 recommend and eval, 8 show
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

data=
ids=shared
rows="select random rec-only names-back untaught soft id-only scratch-first scratch-select scratch-soft"
epochs=6          # of the recommender on the first IDs
rounds=1          # that choose
round_epochs=2    # of the recommender in each of them
candidates=5
contexts=3
share_changed=0.2
go_back=0         # 1: names that are the worse once learnt go back
held_out=0.1
gen_epochs=4      # of the first generator, on the first IDs
gen_instances=0   # of the epoch in which it learns through the recommender (0: all)
settle_epochs=2   # of the recommender at the end
valid_users=2000  # who choose a training's epoch
out=
seed=0

options=(data ids rows epochs rounds round_epochs candidates contexts share_changed go_back held_out settle_epochs
  gen_epochs gen_instances valid_users out seed)
parse_options "$@"
[[ -n $data ]] || die "--data is missing: name a folder that idgr prep wrote"
[[ -f $data/items.jsonl ]] || die "$data has no items.jsonl; name a folder that idgr prep wrote"
case $ids in
  shared | clusters) rule=(--scheme "$ids" --train "$data/train.jsonl") ;;
  keyphrase) rule=(--model keyphrase) ;;
  *) die "--ids $ids: name shared, keyphrase or clusters" ;;
esac
out=${out:-runs/choose-$ids-$seed}
read -ra rows <<< "$rows"
wanted() { [[ " ${rows[*]} " == *" $1 "* ]]; }
needs_soft() { wanted soft || wanted id-only || wanted scratch-soft; }
wanted select || rows=(select "${rows[@]}")
more=()
((go_back == 0)) || more=(--go-back)
install schemes
SECONDS=0
here=$root/recipes/ablation
base=$out/select/round-1/rec # trained on the first IDs
text=(--max-text-tokens 64)  # that a generator reads

# Where a row's IDs and its recommender lie before the last training.
ids_of() {
  case $1 in
    select | scratch-select) echo "$out/select/round-$((rounds + 1))/ids.jsonl" ;;
    random) echo "$out/random/round-$rounds/ids.jsonl" ;;
    untaught) echo "$out/untaught/ids.jsonl" ;;
    soft | id-only | scratch-soft) echo "$out/soft/ids.jsonl" ;;
    *) echo "$out/ids.jsonl" ;;
  esac
}

rec_of() {
  case $1 in
    select) echo "$out/select/round-$((rounds + 1))/rec" ;;
    random) echo "$out/random/round-$rounds/rec" ;;
    rec-only | names-back | untaught | soft) echo "$out/$1/rec" ;;
    *) echo nano-causal ;;
  esac
}

# train IDS OUT [OPTION…]: the data as the rounds saw them, unless an option names others.
train() {
  idgr train-rec "$out/select/round-0/train.jsonl" --ids "$1" --valid "$data/valid.jsonl" --arch causal \
    --valid-users "$valid_users" --precision auto "${@:3}" -o "$2"
}

# choose METHOD REC ROUNDS ROW [OPTION…]
choose() {
  idgr alternate "$data" --method "$1" --rec "$2" --rounds "$3" --ids "$out/ids.jsonl" --candidates "$candidates" \
    --contexts "$contexts" --share-changed "$share_changed" --held-out "$held_out" --round-epochs "$round_epochs" \
    --valid-users "$valid_users" --precision auto --seed "$seed" "${more[@]}" "${@:5}" -o "$out/$4"
}

# go_on ROW: the recommender of the first IDs learns on the row's for as many epochs as the rounds have.
go_on() {
  train "$(ids_of "$1")" "$out/$1/rec" --model "$base" --epochs "$((rounds * round_epochs))" --seed "$seed"
}

# rename GEN ROW: IDs that the generator writes.
rename() {
  mkdir -p "$out/$2"
  # One range of lengths alone, since the recommender has so many places for an item: an EOS and a number may follow.
  local slots
  slots=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["item_slots"])' "$base/config.json")
  idgr gen-ids "$data/items.jsonl" --model "$1" "${text[@]}" --own-words --no-repeat-ngram 1 \
    --length-step "$((slots < 12 ? slots - 2 : 10))" --max-length-rounds 1 -o "$out/$2/ids.jsonl"
}

if begin 1 "give every item an ID"; then
  mkdir -p "$out"
  idgr gen-ids "$data/items.jsonl" "${rule[@]}" -o "$out/ids.jsonl"
fi

if begin 2 "train on the first IDs, then choose"; then
  choose select nano-causal "$((rounds + 1))" select --rec.epochs "$epochs"
fi

if wanted random && begin 3 "the same recommender, with words that are drawn"; then
  choose random "$base" "$rounds" random
fi

if wanted rec-only && begin 4 "the same recommender on the first IDs, for as many epochs"; then
  go_on rec-only
fi

if wanted names-back && begin 4 "the same recommender on the first IDs again, after an epoch with two names"; then
  # With the seed of the round's own last epochs.
  train "$out/ids.jsonl" "$out/names-back/rec" --model "$out/select/round-$((rounds + 1))/mixed" \
    --epochs "$((round_epochs - 1))" --seed "$((seed + 10001))"
fi

if { wanted untaught || needs_soft; } && begin 5 "IDs of a generator, before and after it learns"; then
  idgr init-gen "$data/items.jsonl" --pairs "$out/ids.jsonl" --model nano --tokenizer "$base" --epochs "$gen_epochs" \
    "${text[@]}" --precision auto --seed "$seed" -o "$out/soft/gen-1"
  if wanted untaught; then
    rename "$out/soft/gen-1" untaught
    go_on untaught
  fi
  if needs_soft; then
    idgr train-gen "$out/select/round-0/train.jsonl" --items "$data/items.jsonl" --ids "$out/ids.jsonl" --rec "$base" \
      --gen "$out/soft/gen-1" "${text[@]}" --own-words --temperature 3 --batch-size 24 \
      --epoch-instances "$gen_instances" --precision auto --seed "$seed" -o "$out/soft/gen-2"
    rename "$out/soft/gen-2" soft
    ! wanted soft || go_on soft
  fi
fi

if begin 6 "train all recommenders on their last IDs"; then
  for row in "${rows[@]}"; do
    [[ $row != id-only ]] || continue
    last=$settle_epochs
    [[ $row != scratch-* ]] || last=$((epochs + rounds * round_epochs + settle_epochs)) # as many as the others in all
    idgr train-rec "$data/train.jsonl" --ids "$(ids_of "$row")" --valid "$data/valid.jsonl" --arch causal \
      --model "$(rec_of "$row")" --epochs "$last" --valid-users "$valid_users" --precision auto \
      --seed "$((seed + 9))" -o "$out/$row-settled"
  done
fi

if begin 7 "recommend to every user and score"; then
  for row in "${rows[@]}"; do
    asked=(--rec "$out/$row-settled")
    [[ $row != id-only ]] || asked=(--rec "$base" --force)
    idgr recommend "$data/test.jsonl" "${asked[@]}" --ids "$(ids_of "$row")" -o "$out/$row-recs.jsonl"
    idgr eval "$out/$row-recs.jsonl" --truth "$data/test.jsonl" --train "$data/train.jsonl" --segments \
      --per-user "$out/$row-users.jsonl" -o "$out/$row-metrics.json"
  done
fi

if begin 8 "what it is worth, and which items gained"; then
  others=("${rows[@]/#/$out/}")
  idgr compare "${others[@]/%/-users.jsonl}" -m hr@10 -m ndcg@10 --seed "$seed" -o "$out/significance.json"
  ! wanted rec-only || python "$here/moved.py" "$data/items.jsonl" "$data/test.jsonl" "$out/ids.jsonl" \
    "$out/rec-only-users.jsonl" "$(ids_of select)" "$out/select-users.jsonl" | tee "$out/moved.md"
  python "$root/recipes/table.py" "${others[@]/%/-metrics.json}"
fi

log "done in $SECONDS s; everything is in $out"
