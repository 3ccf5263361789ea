#!/usr/bin/env bash
# A pretrained causal language model on platforms it has never seen: as it comes, and trained on other platforms.
# Histories are keyphrase IDs, one a line, which it continues under the prefix tree. Beside it a SASRec of text vectors
# trained on the same platforms (UniSRec's place), the rare words that texts share, popularity, and Markov, which alone
# learns from the platform itself; and a ranker of texts, a small network that learns on the same platforms what likeness
# of texts is worth.
#
# Reads: --rec, a folder of a causal language model, and --text-vectors, one of a sentence encoder, such as those of
#   recipes/pretrained.sh; one of --data, --prepared and --raw, a folder with a folder for each data set: as `idgr prep`
#   wrote it, or with sequences.jsonl.gz and meta.jsonl.gz in it, or as recipes/download.sh fetched it.
# Writes: the folder --out.
# Usage: recipes/foundation/pretrained.sh --rec DIR [--text-vectors DIR] [--data DIR | --prepared DIR | --raw DIR]
#     [--train "NAME NAME"] [--test "NAME NAME"] [--rows "ROW ROW"] [--users N] [--draws "N N"] [--history N]
#     [--max-users N] [--sequences N] [--layers N] [--freeze N] [--sasrec-epochs N] [--weights "W W"] [--valid-users N]
#     [--precision fp32|bf16] [--out DIR] [--seed N] [--stage N] [--stop-stage N]
#   --rows: of untrained, calibrated, trained, text-sasrec, text-ranker, text-rule, popularity, markov (all but
#     calibrated); calibrated is untrained with a share of the score without a history taken away
#   --train: platforms to train on; --max-users of each are drawn; --sequences: so many sequences are trained on
#   --layers: train the model's first layers only (0: all); --freeze: leave its first layers as they are
#   --weights: that share is the one of these with the best NDCG@10 on --valid-users validation users of each platform to
#     train on (500), the mean over the platforms
#   --users: test users of each platform who are scored, in each of the --draws, which are seeds (0: all)
#   --history: newest items of a history that are shown
#   stages: 1 prep, 2 join those to train on, 3 train the language model, 4 train the SASRec and the ranker, 5 IDs, 6 choose the
#     calibration, 7 recommend and score, 8 tables
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
source "$root/recipes/data.sh"

rec=
text_vectors=
train="sports office"
test="beauty yelp"
rows="untrained trained text-sasrec text-ranker text-rule popularity markov"
users=2000
draws="0 1 2"
history=10
max_users=30000
sequences=6400
layers=0
freeze=
weights="0 0.25 0.5 0.75 1"
valid_users=500
sasrec_epochs=4
precision=bf16
out=
seed=0

options=(rec text_vectors data prepared raw train test rows users draws history max_users sequences layers freeze
  sasrec_epochs weights valid_users precision out seed)
parse_options "$@"
out=${out:-runs/pretrained-$seed}
read -ra known <<< "$train"
read -ra foreign <<< "$test"
read -ra rows <<< "$rows"
read -ra draws <<< "$draws"
read -ra weights <<< "$weights"
((${#foreign[@]} && ${#rows[@]} && ${#draws[@]})) || die "--test, --rows and --draws take at least one each"
wanted() { [[ " ${rows[*]} " == *" $1 "* ]]; }
wanted trained || wanted text-sasrec || wanted text-ranker || wanted calibrated || known=()
! wanted calibrated || ((${#known[@]} && ${#weights[@]})) || die "calibrated takes at least one of --train and --weights"
for name in "${known[@]}" "${foreign[@]}"; do
  check_data_set "$name"
  check_data_folder "$name"
done
for row in "${rows[@]}"; do
  case $row in
    untrained | calibrated | trained) [[ -n $rec ]] || die "name a causal language model by --rec; recipes/pretrained.sh makes one" ;;
    text-sasrec) [[ -n $text_vectors ]] || die "name a sentence encoder by --text-vectors, or leave text-sasrec out of --rows" ;;
    text-ranker | text-rule | popularity | markov) ;;
    *) die "--rows: there is no row $row; see $0 --help" ;;
  esac
done
install
SECONDS=0

folder_of() {
  printf '%s\n' "${data:-$out/sets}/$1"
}

if begin 1 "split the data sets"; then
  for name in "${known[@]}" "${foreign[@]}"; do
    [[ -n $data ]] || split_data_set "$name" "$prepared/$name" "$out/sets/$name" --items 40 --users 80
  done
fi

if { wanted trained || wanted text-sasrec; } && begin 2 "join the platforms to train on"; then
  folders=()
  for name in "${known[@]}"; do
    folders+=("$(folder_of "$name")")
  done
  idgr prep fuse "${folders[@]}" --max-users "$max_users" --seed "$seed" -o "$out/data"
fi

if wanted trained && begin 3 "train the language model there"; then
  idgr gen-ids "$out/data/items.jsonl" --model keyphrase --rec-tokenizer "$rec" -o "$out/ids.jsonl"
  kept=()
  ((layers == 0)) || kept=(--layers "$layers")
  [[ -z $freeze ]] || kept+=(--freeze "$freeze")
  idgr train-rec "$out/data/train.jsonl" --ids "$out/ids.jsonl" --arch causal --model "$rec" "${kept[@]}" \
    --separator newline --objective full --max-history "$history" --lr 2e-4 --dropout 0 --batch-size 32 --epochs 1 \
    --epoch-instances "$sequences" --precision "$precision" --seed "$seed" -o "$out/trained"
fi

if wanted text-sasrec && begin 4 "train a SASRec of text vectors there"; then
  idgr train-sasrec "$out/data/train.jsonl" --items "$out/data/items.jsonl" --valid "$out/data/valid.jsonl" \
    --text-vectors "$text_vectors" --epochs "$sasrec_epochs" --lr 3e-3 --dropout 0.1 --valid-users 2000 \
    --precision auto --seed "$seed" -o "$out/text-sasrec"
fi

if wanted text-ranker && begin 4 "train a ranker of texts there"; then
  folders=()
  for name in "${known[@]}"; do
    folders+=("$(folder_of "$name")")
  done
  idgr train-text-ranker "${folders[@]}" --seed "$seed" -o "$out/text-ranker"
fi

if begin 5 "IDs of the platforms never seen"; then
  for name in "${foreign[@]}"; do
    mkdir -p "$out/$name"
    [[ -z $rec ]] || idgr gen-ids "$(folder_of "$name")/items.jsonl" --model keyphrase --rec-tokenizer "$rec" \
      -o "$out/$name/ids.jsonl"
  done
fi

# The language model as it comes, on IDs of a platform.
as_it_comes=(--rec "$rec" --force --separator newline --max-history "$history" --precision "$precision" --batch-size 64)

if wanted calibrated && begin 6 "choose how much of the score without a history is taken away, where it may be seen"; then
  for name in "${known[@]}"; do
    of=$(folder_of "$name")
    at=$out/calibration/$name
    mkdir -p "$at"
    idgr gen-ids "$of/items.jsonl" --model keyphrase --rec-tokenizer "$rec" -o "$at/ids.jsonl"
    python "$root/recipes/sample.py" "$of/valid.jsonl" "$valid_users" "$seed" > "$at/valid.jsonl"
    for weight in "${weights[@]}"; do
      mkdir -p "$at/$weight"
      idgr recommend "$at/valid.jsonl" "${as_it_comes[@]}" --ids "$at/ids.jsonl" --calibration-weight "$weight" -k 10 \
        -o "$at/$weight/recs.jsonl"
      idgr eval "$at/$weight/recs.jsonl" --truth "$at/valid.jsonl" --items "$of/items.jsonl" --no-baselines \
        -o "$at/$weight/metrics.json"
    done
  done
  python "$root/recipes/foundation/best_weight.py" "$out/calibration" "${known[*]}" "${weights[@]}" \
    > "$out/calibration/weight"
fi

# how_of ROW NAME: sets `how`, the options by which a row recommends on a platform.
how_of() {
  local at
  at=$(folder_of "$2")
  case $1 in
    untrained) how=("${as_it_comes[@]}" --ids "$out/$2/ids.jsonl") ;;
    calibrated)
      how=("${as_it_comes[@]}" --ids "$out/$2/ids.jsonl" --calibration-weight "$(< "$out/calibration/weight")")
      ;;
    trained)
      how=(--rec "$out/trained" --ids "$out/$2/ids.jsonl" --force --precision "$precision" --batch-size 64)
      ;;
    text-sasrec) how=(--rec "$out/text-sasrec" --items "$at/items.jsonl" --batch-size 256) ;;
    text-ranker) how=(--rec "$out/text-ranker" --items "$at/items.jsonl") ;;
    text-rule) how=(--baseline text --items "$at/items.jsonl") ;;
    *) how=(--baseline "$1" --train "$at/train.jsonl") ;;
  esac
}

if begin 7 "recommend where nobody has been, and score"; then
  for draw in "${draws[@]}"; do
    for name in "${foreign[@]}"; do
      of=$(folder_of "$name")
      drawn=$out/$name/draw-$draw
      mkdir -p "$drawn"
      python "$root/recipes/sample.py" "$of/test.jsonl" "$users" "$draw" > "$drawn/test.jsonl"
      for row in "${rows[@]}"; do
        mkdir -p "$drawn/$row"
        how_of "$row" "$name"
        idgr recommend "$drawn/test.jsonl" "${how[@]}" -k 10 -o "$drawn/$row/recs.jsonl"
        idgr eval "$drawn/$row/recs.jsonl" --truth "$drawn/test.jsonl" --train "$of/train.jsonl" --items "$of/items.jsonl" \
          --per-user "$drawn/$row/users.jsonl" -o "$drawn/$row/metrics.json"
      done
    done
  done
fi

if begin 8 "tables"; then
  for name in "${foreign[@]}"; do
    printf '\n%s\n\n' "$name"
    echo "| ${#draws[@]} draws of users | HR@5 | NDCG@5 | HR@10 | NDCG@10 | HR@10, target bought at most 3 times |"
    echo "|---|---|---|---|---|---|"
    for row in "${rows[@]}"; do
      files=("${draws[@]/#/$out/$name/draw-}")
      python "$root/recipes/seeds.py" "$row" "${files[@]/%//$row/users.jsonl}"
    done
    files=("${rows[@]/#/$out/$name/draw-${draws[0]}/}")
    ((${#rows[@]} == 1)) || idgr compare "${files[@]/%//users.jsonl}" -m hr@10 -m ndcg@10 -o "$out/$name/significance.json"
  done
fi

log "done in $SECONDS s; everything is in $out"
