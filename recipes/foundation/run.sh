#!/usr/bin/env bash
# The paper's zero-shot experiment: one pair of models trained on some platforms, tried with no training on platforms
# never seen (Table 7), alone and beside the other's untrained counterpart; the data sets by density (Tables 2 and 3).
#
# Reads: one of --data, --prepared and --raw, a folder with a folder for each data set: as `idgr prep` wrote it, or with
#   sequences.jsonl.gz and meta.jsonl.gz in it, or as recipes/download.sh fetched it. `--size smoke` needs none, its
#   shops are made up.
# Writes: the folder --out.
# Usage: recipes/foundation/run.sh [--size smoke|small|paper] [--data DIR | --prepared DIR | --raw DIR]
#     [--train "NAME NAME"] [--test "NAME NAME"] [--users N] [--max-users N] [--t5 DIR] [--tags DIR] [--out DIR] [--seed N]
#     [--dry-run] [--stage N] [--stop-stage N]
#   --size: smoke, a minute on made-up shops; small, within two hours on two CPU cores: sports and office, then beauty
#     and yelp, with a nano T5 begun from a generator trained here, that sees a sample of the training instances; paper,
#     a GPU day: 19 of Amazon's categories, then six sets, with T5-small and the paper's ID generator, one epoch of each,
#     with the settings that did best here and, as the row `paper`, with the paper's
#   --train, --test: other data sets; at least two to train on; with --data and --prepared any folders there
#   --t5, --tags: for size paper, folders of T5-small and of the paper's ID generator, as recipes/prefetch.sh makes them;
#     else they come from the hub
#   --dry-run: split the data, tell what each training would take on this machine, print all other commands; idgr is
#     installed only where there is none
#   --max-users: users of each data set to train on, drawn from the seed (30000, as in the paper)
#   --users: test users of each platform who are scored, drawn from the seed (0: all)
#   stages: 1 prep, 2 Tables 2 and 3, 3 fuse, 4 first generator, 5 train both, 6 zeroshot, 7 Table 7 against
#     recipes/foundation/expected.tsv
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
source "$root/recipes/data.sh"

size=small
train=
test=
users=
out=
seed=0
max_users=30000   # of each data set to train on

options=(size data prepared raw train test users max_users t5 tags out seed)
flags=(dry_run)
parse_options "$@"
settle_models "$size"
here=$root/recipes/foundation
out=${out:-runs/foundation-$size-$seed}
gen=$out/gen
base=$gen # what the recommender begins from

case $size in # the first generator; how both are trained; how the platforms are named
  smoke)
    train=${train:-demo-1 demo-2}
    test=${test:-demo-3}
    first=(--epochs 8 --max-text-tokens 64)
    rounds=2
    round=(--order rec-first --rec.epoch-instances 16 --gen.epoch-instances 8 --gen.lr 3e-4 --gen.temperature 3
      --max-text-tokens 64 --valid-users 10 --valid-beams 10)
    text=(--max-text-tokens 64)
    users=${users:-30}
    ;;
  small)
    train=${train:-sports office}
    test=${test:-beauty yelp}
    first=(--epochs 3 --max-text-tokens 64 --precision auto)
    rounds=2
    # The recommender begins from the generator, which has learnt to copy words from what it reads.
    round=(--order rec-first --rec.epoch-instances 40000 --gen.epoch-instances 6000 --gen.lr 3e-4 --gen.batch-size 24
      --gen.temperature 3 --max-text-tokens 64 --valid-users 500 --valid-beams 10 --precision auto)
    text=(--max-text-tokens 64)
    users=${users:-1000}
    ;;
  paper)
    train=${train:-amazon-instant-video apps-for-android automotive baby books cds-and-vinyl cell-phones-and-accessories
      clothing-shoes-and-jewelry electronics grocery-and-gourmet-food health-and-personal-care home-and-kitchen
      kindle-store movies-and-tv office patio-lawn-and-garden pet-supplies tools-and-home-improvement video-games}
    test=${test:-sports beauty toys music instruments yelp}
    gen=$tags
    base=$t5
    first=()
    rounds=1
    round=(--order gen-first --precision bf16)
    text=()
    users=${users:-0}
    ;;
  *) die "--size $size: choose smoke, small or paper" ;;
esac
read -ra known <<< "${train//$'\n'/ }"
read -ra foreign <<< "$test"
((${#known[@]} > 1 && ${#foreign[@]})) || die "--train takes at least two data sets, --test one"
for name in "${known[@]}" "${foreign[@]}"; do
  check_data_set "$name"
  check_data_folder "$name"
done
for name in "${foreign[@]}"; do
  [[ " ${known[*]} " != *" $name "* ]] || die "$name is to train on and to test on; take it out of one of the two"
done
install
plan_only "$out"
SECONDS=0

folder_of() {
  if [[ -n $data ]]; then
    printf '%s\n' "$data/$1"
  else
    printf '%s\n' "$out/sets/$1"
  fi
}

# folders_of NAME…: sets `folders`.
folders_of() {
  local name
  folders=()
  for name in "$@"; do
    folders+=("$(folder_of "$name")")
  done
}

if begin 1 "split the data sets"; then
  for name in "${known[@]}" "${foreign[@]}"; do
    [[ -n $data ]] || split_data_set "$name" "$prepared/$name" "$out/sets/$name" --items 40 --users 80
  done
fi

if begin 2 "the data sets by density (Tables 2 and 3)"; then
  folders_of "${known[@]}" "${foreign[@]}"
  idgr stats "${folders[@]}" -o "$out/stats.jsonl"
fi

if begin 3 "join those to train on"; then
  folders_of "${known[@]}"
  idgr prep fuse "${folders[@]}" --max-users "$max_users" --seed "$seed" -o "$out/data"
fi

if begin 4 "a first ID generator"; then
  if ((${#first[@]})); then
    idgr init-gen "$out/data/items.jsonl" --model nano "${first[@]}" --seed "$seed" -o "$gen"
  fi
fi

if begin 5 "train generator and recommender in turns"; then
  ours=(--objective trie)
  [[ $size != paper ]] || ours+=(--gen.lr 3e-4)
  idgr alternate "$out/data" --gen "$gen" --rec "$base" "${ours[@]}" --rounds "$rounds" --rec.epochs 1 \
    --gen.epochs 1 "${round[@]}" --seed "$seed" -o "$out/run"
  if [[ $size == paper ]]; then
    idgr alternate "$out/data" --gen "$gen" --rec "$base" --paper --rounds "$rounds" --rec.epochs 1 \
      --gen.epochs 1 "${round[@]}" --seed "$seed" -o "$out/run-paper"
  fi
fi

# Untrained is what each of them began from. Where there are two rounds, the pair of the first is tried too: its
# recommender has learnt, its generator has not, and they belong together.
rows=(both gen-only rec-only)
((rounds == 1)) || rows+=(round-1)
[[ $size != paper ]] || rows+=(paper)

if begin 6 "recommend where neither model has been"; then
  for name in "${foreign[@]}"; do
    sample_test "$(folder_of "$name")" "$out/test/$name" "$users"
    for row in "${rows[@]}"; do
      run=$out/run
      from=round-$rounds
      swap=()
      case $row in
        gen-only) swap=(--models gen-only --base-rec "$base") ;;
        rec-only) swap=(--models rec-only --base-gen "$gen") ;;
        round-1) from=round-1 ;;
        paper) run=$out/run-paper ;;
      esac
      mkdir -p "$out/$name"
      idgr zeroshot "$out/test/$name" --gen "$run/$from/gen" --rec "$run/$from/rec" "${swap[@]}" \
        "${text[@]}" -o "$out/$name/$row"
    done
  done
fi

if begin 7 "the tables"; then
  failed=0
  for name in "${foreign[@]}"; do
    files=("${rows[@]/#/$out/$name/}")
    files=("${files[@]/%//metrics.json}")
    printf 'Table 7, %s\n' "$name"
    work python "$root/recipes/table.py" "${files[@]}"
    work python "$root/recipes/expected.py" "$here/expected.tsv" "$size-$name" "${files[@]}" || failed=1
  done
  ((failed == 0)) || exit 1
fi

log "done in $SECONDS s; everything is in $out"
