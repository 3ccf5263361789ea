#!/usr/bin/env bash
# The paper's Tables 5 and 6 on one data set, from one first generator. Table 5: the recommender alone, the ID generator
# alone, and both in turns, for as many epochs of each. Table 6: prompts that show the user's ID, the items' or both.
#
# Reads: one of --data, a folder that `idgr prep` wrote; --prepared, a folder with sequences.jsonl.gz and meta.jsonl.gz;
#   --raw, the folder that recipes/download.sh fetched to. `--dataset demo` needs none, it is made up. Also --pairs, IDs
#   to learn the first generator from (item_id and id a line; keyphrases of the texts if not given).
# Writes: the folder --out.
# Usage: recipes/ablation/run.sh --dataset beauty|sports|toys|yelp|demo [--tables "5 6"] [--size smoke|small|paper]
#     [--data DIR | --prepared DIR | --raw DIR] [--pairs FILE] [--settings "ours paper"] [--t5 DIR] [--tags DIR]
#     [--users N] [--out DIR] [--seed N] [--dry-run] [--stage N] [--stop-stage N]
#   --dataset: with --data or --prepared it may be any name, which only chooses what the tables are compared with
#   --size: smoke, a minute on a made-up shop; small, within two hours on two CPU cores: a nano T5, begun from a
#     generator trained here, that sees a sample of the training instances; paper, a GPU day: T5-small and the paper's
#     ID generator, three rounds
#   --settings: for size paper, with what did best here (ours), or as rows of their own the paper's settings (softmax over
#     all words, generator's rate 1e-8, 10 beams); both if not given
#   --t5, --tags: for size paper, folders of T5-small and of the paper's ID generator, as recipes/prefetch.sh makes them;
#     else they come from the hub
#   --dry-run: split the data, tell what each training would take on this machine, print all other commands; idgr is
#     installed only where there is none
#   --users: test users who are scored, drawn from the seed (0: all)
#   stages: 1 prep, 2 first generator, 3 Table 5, 4 Table 6, 5 recommend and eval, 6 significance, 7 the tables against
#     recipes/ablation/expected.tsv
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
source "$root/recipes/data.sh"

dataset=
tables="5 6"
size=small
pairs=
settings=
users=
out=
seed=0

options=(dataset tables size data prepared raw pairs settings t5 tags users out seed)
flags=(dry_run)
parse_options "$@"
here=$root/recipes/ablation
settle_data_set
settle_models "$size"
[[ -z $settings || $size == paper ]] || die "--settings is for --size paper"
if [[ -z $settings ]]; then
  settings=ours
  [[ $size != paper ]] || settings="ours paper"
fi
read -ra settings <<< "$settings"
((${#settings[@]})) || die "--settings names none"
out=${out:-runs/ablation-$dataset-$size-$seed}
ready=$data
data=${data:-$out/data}

rows=() # folders in --out
for table in $tables; do
  for setting in "${settings[@]}"; do
    case $setting in
      ours) as= ;;
      paper) as=-paper ;;
      *) die "--settings ${settings[*]}: choose of ours and paper" ;;
    esac
    case $table in
      5) rows+=(table5/{rec-only,id-only,alternate}"$as") ;;
      6) rows+=(table6/{both,user-only,item-only}"$as") ;;
      *) die "--tables $tables: choose of 5 and 6" ;;
    esac
  done
done
((${#rows[@]})) || die "--tables names no table"

gen=$out/gen
text=(--max-text-tokens 64)
nano=("${text[@]}" --gen.lr 3e-4 --gen.batch-size 24 --gen.temperature 3 --ids.no-repeat-ngram 2)
case $size in # the first generator; how a round goes; how the recommenders of Table 6 are trained
  smoke)
    first=(--epochs 8 "${text[@]}")
    round=(--rec nano --rounds 1 --rec.epochs 1 --rec.epoch-instances 16 --gen.epoch-instances 8 --valid-users 10
      --valid-beams 10 "${nano[@]}")
    rec=(--model "$gen" --epochs 1 --epoch-instances 16 --valid-users 10 --valid-beams 10)
    users=${users:-30}
    ;;
  small)
    first=(--epochs 3 "${text[@]}" --precision auto)
    round=(--rec nano --rounds 2 --rec.epochs 1 --rec.epoch-instances 24000 --gen.epoch-instances 6000 --valid-users 500
      --precision auto "${nano[@]}")
    rec=(--model "$gen" --epochs 1 --epoch-instances 8000 --valid-users 500 --precision auto)
    users=${users:-3000}
    ;;
  paper)
    [[ -z $pairs ]] || die "--pairs is for a generator trained here, which --size paper has none of"
    gen=$tags
    text=()
    first=()
    round=(--rec "$t5" --rounds 3 --rec.epochs 10 --precision bf16)
    rec=(--model "$t5" --epochs 30 --precision auto)
    users=${users:-0}
    ;;
  *) die "--size $size: choose smoke, small or paper" ;;
esac
install
plan_only "$out"
SECONDS=0

# settings_of ROW: sets `how`, the objective and what else the paper does otherwise, and `what`, the row without -paper.
settings_of() {
  how=(--objective trie)
  [[ $1 != *-paper ]] || how=(--paper)
  what=${1%-paper}
  what=${what#*/}
}

if begin 1 "split the data set"; then
  [[ -n $ready ]] || split_data_set "$dataset" "$prepared" "$data" --items 40 --users 80
  sample_test "$data" "$out/test" "$users"
fi

if begin 2 "a first ID generator"; then
  if ((${#first[@]})); then
    idgr init-gen "$data/items.jsonl" ${pairs:+--pairs "$pairs"} --model nano "${first[@]}" --seed "$seed" -o "$gen"
  fi
fi

if begin 3 "train one of the two alone, and both in turns"; then
  for row in "${rows[@]}"; do
    if [[ $row == table5/* ]]; then
      settings_of "$row"
      [[ $size != paper || $row == *-paper ]] || how+=(--gen.lr 3e-4)
      idgr alternate "$data" --gen "$gen" --mode "$what" "${how[@]}" "${round[@]}" --seed "$seed" \
        -o "$out/$row/run"
    fi
  done
fi

if begin 4 "train recommenders that are shown users' IDs, items' IDs or both"; then
  if [[ " $tables " == *" 6 "* ]]; then
    idgr gen-ids "$data/items.jsonl" --model "$gen" "${text[@]}" -o "$out/table6/ids.jsonl"
  fi
  for row in "${rows[@]}"; do
    settings_of "$row"
    case ${row%-paper} in
      table6/both) shown=(--user-ids history --gen "$gen" --items "$data/items.jsonl") ;;
      table6/user-only) shown=(--user-ids history --history none --gen "$gen" --items "$data/items.jsonl") ;;
      table6/item-only) shown=() ;;
      *) continue ;;
    esac
    idgr train-rec "$data/train.jsonl" --ids "$out/table6/ids.jsonl" --valid "$data/valid.jsonl" "${how[@]}" \
      "${rec[@]}" "${shown[@]}" --seed "$seed" -o "$out/$row/rec"
  done
fi

if begin 5 "recommend and score, on the test users, once"; then
  for row in "${rows[@]}"; do
    case ${row%-paper} in # the recommender of the round before has not learnt the last IDs of id-only, hence --force
      table5/*) asked=(--rec "$out/$row/run/final/rec" --ids "$out/$row/run/final/ids.jsonl" --force) ;;
      table6/item-only) asked=(--rec "$out/$row/rec" --ids "$out/table6/ids.jsonl") ;;
      *) asked=(--rec "$out/$row/rec" --ids "$out/table6/ids.jsonl" --gen "$gen" --items "$data/items.jsonl") ;;
    esac
    [[ $row != *-paper ]] || asked+=(--beams 10 -k 10)
    idgr recommend "$out/test/test.jsonl" "${asked[@]}" -o "$out/$row/recs.jsonl"
    idgr eval "$out/$row/recs.jsonl" --truth "$out/test/test.jsonl" --train "$data/train.jsonl" \
      --per-user "$out/$row/users.jsonl" -o "$out/$row/metrics.json"
  done
fi

# files_of TABLE NAME: sets `files`, those of this name of the table's rows.
files_of() {
  local row
  files=()
  for row in "${rows[@]}"; do
    [[ $row != "table$1"/* ]] || files+=("$out/$row/$2")
  done
}

if begin 6 "which differences are more than chance"; then
  for table in $tables; do
    files_of "$table" users.jsonl
    idgr compare "${files[@]}" -m hr@10 -m ndcg@10 --seed "$seed" -o "$out/table$table/significance.json"
  done
fi

if begin 7 "the tables"; then
  failed=0
  for table in $tables; do
    files_of "$table" metrics.json
    printf 'Table %s\n' "$table"
    work python "$root/recipes/table.py" "${files[@]}"
    work python "$root/recipes/expected.py" "$here/expected.tsv" "$dataset-$size-$table${pairs:+-pairs}" \
      "${files[@]}" || failed=1
  done
  ((failed == 0)) || exit 1
fi

log "done in $SECONDS s; everything is in $out"
