#!/usr/bin/env bash
# Baselines of other libraries on a prepared data set, trained on the same split and scored by the same `idgr eval`:
# GRU4Rec, Caser, HGN, SASRec, BERT4Rec, FDSA and S3Rec of RecBole, TIGER and LETTER of cornac.
#
# Reads: the folder --data, made by `idgr prep`. Writes: the folder --out; the libraries' environments into --envs.
# Usage: recipes/baselines/run.sh --data DIR [--models "GRU4Rec SASRec …"] [--out DIR] [--epochs N] [--users N]
#     [--valid-users N] [--k N] [--seed N] [--envs DIR] [--stage N] [--stop-stage N]
#   --epochs: at most so many (default: 300 of RecBole's, which stop early, and 20 of cornac's)
#   --users: test users who are scored, drawn from the seed (0: all)
#   --valid-users: validation users who choose the epoch of cornac's models (2000); RecBole's take all
#   stages: 1 export, 2 environments, 3 train and recommend, 4 eval, 5 table
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

data=
models="GRU4Rec SASRec"
out=runs/baselines
envs=runs/environments
epochs=
users=0
valid_users=2000
k=10
seed=0

options=(data models out envs epochs users valid_users k seed)
parse_options "$@"
[[ -n $data ]] || die "--data is missing: name a folder that idgr prep wrote"
[[ -f $data/items.jsonl ]] || die "$data has no items.jsonl; name a folder that idgr prep wrote"
read -ra wanted <<< "$models"
((${#wanted[@]})) || die "--models names no model, such as SASRec"

library_of() {
  case $1 in
    GRU4Rec | Caser | HGN | SASRec | BERT4Rec | FDSA | S3Rec) echo recbole ;;
    TIGER | LETTER) echo cornac ;;
    UniSRec) die "UniSRec needs a pretrained text encoder and its own pretrained weights, which no package brings" ;;
    *) die "unknown model $1; see $0 --help" ;;
  esac
}

libraries=()
for model in "${wanted[@]}"; do
  library=$(library_of "$model")
  [[ " ${libraries[*]} " == *" $library "* ]] || libraries+=("$library")
done
install
SECONDS=0
here=$root/recipes/baselines
split=$out/data

if begin 1 "export the split"; then
  mkdir -p "$split"
  cp "$data"/{items,train,valid}.jsonl "$split/"
  if ((users)); then
    python "$root/recipes/sample.py" "$data/test.jsonl" "$users" "$seed" > "$split/test.jsonl"
  else
    cp "$data/test.jsonl" "$split/"
  fi
  for library in "${libraries[@]}"; do
    idgr export "$split" --to "$library" -o "$out/$library"
  done
fi

if begin 2 "environments of their own"; then
  for library in "${libraries[@]}"; do
    pins=$here/$library-constraints.txt
    stamp=$envs/$library/.installed
    if [[ ! -f $stamp ]] || ! cmp -s "$pins" "$stamp"; then
      python -m venv "$envs/$library"
      "$envs/$library/bin/python" -m pip install --quiet --disable-pip-version-check -r "$pins"
      cp "$pins" "$stamp"
    fi
  done
fi

if begin 3 "train, the epoch chosen on validation; recommend"; then
  for model in "${wanted[@]}"; do
    library=$(library_of "$model")
    log "$model"
    more=()
    case $library in
      recbole) more+=(--work "$out/$model-work") ;;
      cornac) more+=(--valid-users "$valid_users") ;;
    esac
    "$envs/$library/bin/python" "$here/${library}_runner.py" "$model" "$out/$library" "$split/test.jsonl" \
      "$out/$model-recs.jsonl" -k "$k" --seed "$seed" ${epochs:+--epochs "$epochs"} "${more[@]}"
  done
fi

if begin 4 "score"; then
  for model in "${wanted[@]}"; do
    idgr eval "$out/$model-recs.jsonl" --truth "$split/test.jsonl" --train "$split/train.jsonl" \
      --per-user "$out/$model-users.jsonl" -o "$out/$model-metrics.json"
  done
fi

if begin 5 "the table"; then
  metrics=("${wanted[@]/#/$out/}")
  python "$root/recipes/table.py" "${metrics[@]/%/-metrics.json}" > "$out/table.md"
  cat "$out/table.md"
fi

log "done in $SECONDS s; everything is in $out"
