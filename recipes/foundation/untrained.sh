#!/usr/bin/env bash
# A causal language model that has never recommended anything, on platforms it has never seen: histories are keyphrase
# IDs, one a line, which it continues under the prefix tree; beside the rare words that texts share, popularity, Markov.
#
# Reads: --rec, a folder of a causal language model, such as models/smollm2 of recipes/pretrained.sh; one of --data,
#   --prepared and --raw, a folder with a folder for each data set: as `idgr prep` wrote it, or with sequences.jsonl.gz
#   and meta.jsonl.gz in it, or as recipes/download.sh fetched it.
# Writes: the folder --out.
# Usage: recipes/foundation/untrained.sh --rec DIR [--data DIR | --prepared DIR | --raw DIR] [--test "NAME NAME"]
#     [--users N] [--history N] [--out DIR] [--seed N] [--stage N] [--stop-stage N]
#   --users: test users of each platform who are scored, drawn from the seed (0: all)
#   --history: newest items of a history that are shown
#   stages: 1 prep, 2 zeroshot, 3 text rule, 4 tables
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
source "$root/recipes/data.sh"

rec=
test="beauty yelp"
users=2000
history=10
out=
seed=0

options=(rec data prepared raw test users history out seed)
parse_options "$@"
out=${out:-runs/untrained-$seed}
read -ra sets <<< "$test"
((${#sets[@]})) || die "--test takes at least one data set"
for name in "${sets[@]}"; do
  check_data_set "$name"
  check_data_folder "$name"
done
[[ -n $rec ]] || die "name a folder of a causal language model by --rec; recipes/pretrained.sh makes one"
install
SECONDS=0

if begin 1 "split the data sets"; then
  for name in "${sets[@]}"; do
    [[ -n $data ]] || split_data_set "$name" "$prepared/$name" "$out/sets/$name" --items 40 --users 80
    sample_test "${data:-$out/sets}/$name" "$out/test/$name" "$users"
  done
fi

if begin 2 "IDs, recommendations and metrics, without training"; then
  for name in "${sets[@]}"; do
    idgr zeroshot "$out/test/$name" --scheme keyphrase --rec "$rec" --max-history "$history" -o "$out/$name/untrained"
  done
fi

if begin 3 "items whose texts share rare words with the history"; then
  for name in "${sets[@]}"; do
    data_of=$out/test/$name
    mkdir -p "$out/$name/text"
    idgr recommend "$data_of/test.jsonl" --baseline text --items "$data_of/items.jsonl" -k 10 -o "$out/$name/text/recs.jsonl"
    idgr eval "$out/$name/text/recs.jsonl" --truth "$data_of/test.jsonl" --train "$data_of/train.jsonl" \
      --items "$data_of/items.jsonl" -o "$out/$name/text/metrics.json"
  done
fi

if begin 4 "tables"; then
  for name in "${sets[@]}"; do
    printf '\n%s\n\n' "$name"
    python "$root/recipes/table.py" "$out/$name"/{untrained,text}/metrics.json
  done
fi

log "done in $SECONDS s; everything is in $out"
