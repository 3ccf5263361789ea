#!/usr/bin/env bash
# Does learning the IDs pay? A made-up shop whose texts begin with words that say nothing, and a first ID generator that
# copies a text's first words: alternate training against training the recommender alone, for as many epochs. New IDs
# have to be learnt anew, so at the end both recommenders are trained some epochs more on their last IDs. Since each of
# these trainings begins at the highest learning rate, there are also recommenders from random weights that have all epochs
# in one go: on the first IDs (scratch-first), on the learnt ones (scratch-alternate) and on keyphrases of the texts.
#
# With --select 1 also what choosing IDs is worth (alternate --method select), among the generator's candidates and among
# other choices of the words of an item's text, beside as many drawn from the same (random, random-words), the
# recommender alone for as many epochs, rounds that were undone counted, and recommenders in one go on the first IDs
# (scratch-long), the chosen words and the drawn ones (scratch-words, scratch-random-words).
#
# Reads: nothing; stage 1 makes the data up from the seed. Writes: the folder --out.
# Usage: recipes/ablation/distracting.sh [--seed N] [--soft 0|1] [--select 0|1] [--rec nano|nano-causal] [--rec-epochs N]
#     [--valid-users N] [--out DIR] [--stage N] [--stop-stage N]
#   stages: 1 prep, 2 init-gen, 3 rec-only, 4 alternate, 5 select, 6 train-rec, 7 recommend and eval, 8 show
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

seed=0
out=runs/distracting
items=400
users=1200
rounds=2
rec_epochs=5      # of a round
gen_epochs=8      # of the first generator
settle_epochs=5   # of the recommender at the end
soft=1            # train the recommender alone, and both in turns
select=0          # choose IDs
select_rounds=2   # that choose, after the recommender's first training
select_epochs=4   # of the recommender in each of them
held_out=0.4      # the share of sequences that rounds are judged by; fewer cannot tell so small gains from chance
rec=nano
valid_users=0     # who choose a training's epoch; 0: all

options=(seed out items users rounds rec_epochs gen_epochs settle_epochs soft select select_rounds select_epochs
  held_out rec valid_users)
parse_options "$@"
((soft || select)) || die "--soft 0 with --select 0: nothing is left to do"
[[ $seed =~ ^[0-9]+$ ]] || die "--seed takes a number"
case $rec in
  nano) arch=t5 new=(--model nano --tokenizer "$out/gen") slots=() ;;
  nano-causal) arch=causal new=(--model nano-causal) slots=(--no-item-slots) ;;
  *) die "--rec $rec: name nano or nano-causal" ;;
esac
install
SECONDS=0
here=$root/recipes/ablation
data=$out/data
one_go=$((rounds * rec_epochs + settle_epochs))                      # epochs of a recommender whose IDs are learnt
long_epochs=$((rounds * rec_epochs + select_rounds * select_epochs)) # of a recommender whose IDs are chosen

alternate() {
  idgr alternate "$data" --gen "$out/gen" --rec "$rec" --mode "$1" --rounds "$rounds" --rec.epochs "$rec_epochs" \
    --objective trie --gen.lr 3e-4 --gen.batch-size 24 --gen.temperature 3 --ids.no-repeat-ngram 2 --max-text-tokens 64 \
    --valid-users "$valid_users" --precision auto --seed "$seed" -o "$out/$1"
}

if begin 1 "make up a shop with distracting texts"; then
  idgr prep demo --distracting --items "$items" --users "$users" --seed "$seed" -o "$data"
  idgr gen-ids "$data/items.jsonl" --model keyphrase -o "$out/keyphrase.jsonl"
fi

if begin 2 "train an ID generator that copies the first words"; then
  python "$here/first_words.py" "$data/items.jsonl" "$seed" > "$out/pairs.jsonl"
  idgr init-gen "$data/items.jsonl" --pairs "$out/pairs.jsonl" --model nano --epochs "$gen_epochs" \
    --max-text-tokens 64 --precision auto --seed "$seed" -o "$out/gen"
fi

if ((soft)) && begin 3 "train the recommender alone"; then
  alternate rec-only
fi

if ((soft)) && begin 4 "train both in turns"; then
  alternate alternate
fi

# choose METHOD ROW [OPTION…]: ten epochs, then rounds of four; the recommender alone has as many, with no choice.
choose() {
  idgr alternate "$data" --rec "$rec" --method "$1" --rounds "$((select_rounds + 1))" \
    --rec.epochs "$((rounds * rec_epochs))" --objective trie --round-epochs "$select_epochs" --held-out "$held_out" \
    --valid-users "$valid_users" --precision auto --seed "$seed" "${@:3}" -o "$out/$2"
}

if ((select)) && begin 5 "choose among the generator's candidates and among words of the texts, and at random"; then
  offered=(--gen "$out/gen" --ids.no-repeat-ngram 2 --ids.beams 10 --ids.groups 10 --ids.penalty-start 1
    --max-text-tokens 64 --share-changed 0.3)
  choose select select "${offered[@]}"
  choose random random "${offered[@]}"
  of_texts=(--ids "$out/select/round-0/ids.jsonl" --share-changed 0.5)
  choose select words "${of_texts[@]}"
  choose random random-words "${of_texts[@]}"
  idgr train-rec "$out/select/round-0/train.jsonl" --ids "$out/select/round-0/ids.jsonl" --valid "$data/valid.jsonl" \
    --arch "$arch" "${new[@]}" --objective trie --epochs "$long_epochs" --valid-users "$valid_users" --precision auto \
    --seed "$seed" -o "$out/rec-only-long/rec"
fi

rows=(keyphrase)
((soft)) && rows+=(rec-only alternate scratch-first scratch-alternate)
((select)) && rows+=(select random words random-words rec-only-long scratch-long scratch-words scratch-random-words)

# A row's last IDs.
ids_of() {
  case $1 in
    keyphrase) echo "$out/keyphrase.jsonl" ;;
    scratch-first) echo "$out/rec-only/round-0/ids.jsonl" ;;
    rec-only-long | scratch-long) echo "$out/select/round-0/ids.jsonl" ;;
    select | random | words | random-words) echo "$out/$1/round-$((select_rounds + 1))/ids.jsonl" ;;
    scratch-*) ids_of "${1#scratch-}" ;;
    *) echo "$out/$1/round-$rounds/ids.jsonl" ;;
  esac
}

# settle ROW EPOCHS OPTION…: a row's last training.
settle() {
  idgr train-rec "$data/train.jsonl" --ids "$(ids_of "$1")" --valid "$data/valid.jsonl" --arch "$arch" \
    --objective trie --epochs "$2" --valid-users 400 --precision auto --seed "$((seed + 9))" "${@:3}" \
    -o "$out/$1-settled"
}

if begin 6 "train all recommenders on their last IDs"; then
  for row in "${rows[@]}"; do
    case $row in
      keyphrase) settle "$row" "$one_go" "${new[@]}" ;;
      scratch-first | scratch-alternate) settle "$row" "$one_go" "${new[@]}" "${slots[@]}" ;;
      scratch-*) settle "$row" "$((long_epochs + settle_epochs))" "${new[@]}" ;;
      rec-only-long) settle "$row" "$settle_epochs" --model "$out/rec-only-long/rec" ;;
      *) settle "$row" "$settle_epochs" --model "$(dirname -- "$(ids_of "$row")")/rec" ;;
    esac
  done
fi

if begin 7 "recommend to every user and score"; then
  for row in "${rows[@]}"; do
    idgr recommend "$data/test.jsonl" --rec "$out/$row-settled" --ids "$(ids_of "$row")" -o "$out/$row-recs.jsonl"
    idgr eval "$out/$row-recs.jsonl" --truth "$data/test.jsonl" --train "$data/train.jsonl" \
      --per-user "$out/$row-users.jsonl" -o "$out/$row-metrics.json"
  done
fi

if begin 8 "what the IDs say, and what they are worth"; then
  files=()
  for row in "${rows[@]}"; do
    [[ $row == scratch-* ]] || files+=("$(ids_of "$row")")
  done
  python "$here/telling.py" "$data/items.jsonl" "${files[@]}"
  python "$root/recipes/table.py" "$out"/*-metrics.json
  users=("${rows[@]/#/$out/}")
  idgr compare "${users[@]/%/-users.jsonl}" -m hr@10 -m ndcg@10 --seed "$seed" -o "$out/significance.json"
fi

log "done in $SECONDS s; everything is in $out"
