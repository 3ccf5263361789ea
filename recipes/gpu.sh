#!/usr/bin/env bash
# Measures on a GPU what the tables of docs/gpu.md and docs/benchmarks.md have as not measured, in parts of at most nine
# minutes. What a part has measured stands in files of its own; called again, it goes on with what is missing, and a
# training from its checkpoint. Ends with code 75 where a part needs another call, 2 where there is no GPU: then it says
# what it would do.
#
# It needs no network and no environment: Python from 3.11 with PyTorch and transformers (from 2.6 and 5.17; 2.11 and 5.17
# are meant), on which idgr runs from this checkout. recipes/constraints.txt is not heeded, it would ask for another
# PyTorch. What else idgr needs may travel along as wheels:
#
#   python -m pip download --no-deps --only-binary :all: --dest wheels accelerate annotated-doc isal orjson polars \
#     polars-runtime-32 protobuf rich markdown-it-py mdurl pygments scipy sentencepiece shellingham tqdm typer
#
# on a machine with the same Python and system; leave out what is there, such as scipy. They are unpacked into the folder
# --out/site.
#
# Reads: one of --data, a folder that `idgr prep` wrote; --prepared, a folder with sequences.jsonl.gz and meta.jsonl.gz;
#   --raw, the folder that recipes/download.sh fetched to; a made-up shop where none is given. --t5, a folder whose
#   tokenizer is T5's (a vocabulary is learnt if not given); --causal, a folder of SmolLM2 (random weights of its shape if
#   not given). Writes: the folder --out, in it results.jsonl and table.md.
# Usage: recipes/gpu.sh [--part N] [--dataset NAME] [--data DIR | --prepared DIR | --raw DIR] [--t5 DIR] [--causal DIR]
#     [--wheels DIR] [--minutes N] [--size full|smoke] [--device cuda|cpu] [--out DIR] [--seed N] [--dry-run]
#     [--stage N] [--stop-stage N]
#   --part: one part; all in turn if not given; --stage and --stop-stage name a first and a last one
#   --minutes: for part 10, the training of Beauty: so long in all, over as many calls as that takes (18)
#   --size, --device: smoke with cpu goes through everything with tiny models on a made-up shop
#   --dry-run: what it would do, part by part, with estimates for an H100
#   parts: 1 lists beside the CPU's, 2 decoding fp32, 3 decoding bf16, 4 decoding causal, 5 IDs, 6 training, 7 waits,
#     8 validation after fp32, 9 validation after bf16, 10 Beauty with a T5,
#     11 decoding and training with and without torch.compile
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
source "$root/recipes/data.sh"

part=
dataset=
causal=
wheels=
minutes=18
size=full
device=cuda
out=
seed=0
most=520 # seconds of a part

options=(part dataset data prepared raw t5 causal wheels minutes size device out seed)
flags=(dry_run)
parse_options "$@"
if [[ -n $part ]]; then
  [[ $part =~ ^([1-9]|1[01])$ ]] || die "--part $part: choose 1 to 11"
  stage=$part
  stop_stage=$part
fi
[[ $minutes =~ ^[1-9][0-9]*$ ]] || die "--minutes takes a number from 1"
[[ $device == cuda || $device == cpu ]] || die "--device $device: choose cuda or cpu"
for folder in t5 causal wheels; do
  [[ -z ${!folder} || -d ${!folder} ]] || die "--$folder ${!folder} is no folder"
done
[[ -n $dataset || -n $data$prepared$raw ]] || dataset=demo
[[ -n $dataset || -z $prepared$raw ]] || dataset=beauty
settle_data_set

rec=(--arch t5 --objective trie --seed "$seed" --device "$device")
case $size in
  smoke)
    shop=(--items 40 --users 60)
    llama=tiny
    shape=(--shape nano)
    decode=(--users 3 --repeats 1 --batch-size 2 --beams 4 -k 3)
    latency=(--users 2 --repeats 1 --beams 4 -k 3)
    gen=(--items 3 --repeats 1)
    train=(--batches 5 --batch-size 2 --repeats 1)
    slots=(--batches 5 --batch-size 2 --repeats 1)
    rec+=(--model nano --valid-users 5 --valid-beams 10 --epoch-instances 16)
    few=(--epochs 1)
    dtypes=(fp32)
    # Compiling takes minutes of a processor; only what surrounds it is tried.
    export IDGR_COMPILE_BACKEND=${IDGR_COMPILE_BACKEND:-none}
    ;;
  full)
    shop=(--items 12000 --users 22000)
    llama=smollm2
    shape=(--shape small)
    decode=(--users 128 --repeats 3 --batch-size 64)
    latency=(--users 16 --repeats 3)
    gen=(--items 64 --repeats 2)
    train=(--batches 60 --repeats 3)
    slots=(--batches 30 --repeats 3)
    rec+=(--model small --valid-users 2000)
    few=(--epochs 2 --epoch-instances 40000)
    dtypes=(fp32 bf16)
    ;;
  *) die "--size $size: choose full or smoke" ;;
esac
tokenizer=()
[[ -z $t5 ]] || tokenizer=(--tokenizer "$t5")
out=${out:-runs/gpu-$dataset-$size-$seed}
ready=$data
data=${data:-$out/data}
ids=$out/ids.jsonl
causal=${causal:-$out/$llama}

# settle_python: sets `idgr`, the words that start it, and puts what travels along on its path.
settle_python() {
  local missing site=$out/site
  if [[ -n ${IDGR_INSTALLED:-} ]]; then
    type idgr > /dev/null || die "IDGR_INSTALLED is set, but there is no idgr on the PATH"
    idgr=(idgr)
    python=(python)
    return
  fi
  python=("$(find_python)")
  idgr=("${python[@]}" -m idgr)
  export PYTHONPATH=$root:$site${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1
  if [[ -n $wheels && ! -f $site/.whole && -z $dry_run ]]; then
    log "unpacking $wheels into $site"
    "${python[@]}" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --upgrade \
      --target "$site" "$wheels"/*.whl
    touch "$site/.whole"
  fi
  [[ -z $dry_run ]] || return 0
  missing=$("${python[@]}" "$root/recipes/missing.py" "$root/pyproject.toml") || die "this Python cannot be asked"
  [[ -z $missing ]] \
    || die "this Python lacks ${missing//$'\n'/, }; put wheels into a folder, see $0 --help, and give it to --wheels"
}

settle_python
refused=
if [[ -z $dry_run && $device == cuda ]] \
  && ! "${python[@]}" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  log "there is no GPU that PyTorch sees; with one, this would be done (--device cpu --size smoke tries it out):"
  refused=1
  dry_run=1
fi

# part NUMBER MINUTES WHAT: whether this part is asked for; says so, and starts its clock.
part() {
  (($1 >= stage && $1 <= stop_stage)) || return 1
  deadline=$((SECONDS + most))
  if [[ -n $dry_run ]]; then
    printf 'part %s: %s (about %s minutes)\n' "$1" "$3" "$2"
  else
    log "part $1: $3"
  fi
}

# limited COMMAND…: runs it until the part's time is up; then the recipe ends with 75.
limited() {
  local code=0 left=$((deadline - SECONDS))
  if [[ -n $dry_run ]]; then
    printf '  '
    work "$@"
    return
  fi
  ((left > 0)) || code=124
  ((code)) || timeout --signal TERM --kill-after 20 "$left" "$@" || code=$?
  case $code in
    0) ;;
    124 | 137 | 143)
      log "the time of this part is up; the same call goes on"
      table
      exit 75
      ;;
    *) exit "$code" ;;
  esac
}

# measure NAME COMMAND…: `idgr bench COMMAND…`, whose records go into --out/NAME.jsonl, unless they are there.
measure() {
  local name=$1
  shift
  [[ -z $dry_run && -s $out/$name.jsonl ]] || limited "${idgr[@]}" bench "$@" --device "$device" --seed "$seed" \
    -o "$out/$name.jsonl"
}

# learn NAME OPTION…: a recommender in --out/NAME.
learn() {
  local name=$1
  shift
  limited "${idgr[@]}" train-rec "$data/train.jsonl" --ids "$ids" --valid "$data/valid.jsonl" "${rec[@]}" \
    "${tokenizer[@]}" --checkpoint-minutes 2 "$@" -o "$out/$name"
}

table() {
  [[ -n $dry_run ]] || "${python[@]}" "$root/recipes/gpu_table.py" "$out" > "$out/table.md.part"
  [[ -n $dry_run ]] || mv "$out/table.md.part" "$out/table.md"
}

# idgr in this file is an array; what data.sh and the lines below ask of it goes through this.
idgr() {
  if [[ -n $dry_run ]]; then
    printf '  '
    work "${idgr[@]}" "$@"
  else
    command "${idgr[@]}" "$@"
  fi
}

deadline=$((SECONDS + most))
[[ -n $dry_run ]] || mkdir -p "$out"
[[ -z $dry_run ]] || printf 'first: the data, IDs of keyphrases (about a minute, once)\n'
[[ -n $ready || -d $data ]] || split_data_set "$dataset" "$prepared" "$data" "${shop[@]}"
[[ -s $ids ]] || idgr gen-ids "$data/items.jsonl" --model keyphrase -o "$ids"
if [[ ! -d $causal ]]; then
  work "${python[@]}" "$root/recipes/random_llama.py" "$llama" "$ids" "$causal.part"
  work mv "$causal.part" "$causal"
fi
t5=("${shape[@]}" "${tokenizer[@]}")
asked=(--ids "$ids" --histories "$data/test.jsonl")

if part 1 4 "are the lists those of the CPU"; then
  measure parity-t5-fp32 decode "${asked[@]}" "${t5[@]}" "${decode[@]}" --against cpu
  measure parity-t5-bf16 decode "${asked[@]}" "${t5[@]}" "${decode[@]}" --against cpu --dtype bf16
  measure parity-causal-fp32 decode "${asked[@]}" --arch causal --model "$causal" "${latency[@]}" --against cpu
fi

if part 2 6 "decoding beside transformers at its best batch, and what the tree costs, T5, fp32"; then
  measure decode-t5-fp32 decode "${asked[@]}" "${t5[@]}" "${decode[@]}"
fi

if part 3 7 "the same in bf16; one user at a time in fp32"; then
  measure decode-t5-bf16 decode "${asked[@]}" "${t5[@]}" "${decode[@]}" --dtype bf16
  measure latency-t5-fp32 decode "${asked[@]}" "${t5[@]}" "${latency[@]}" --latency
fi

if part 4 8 "the same of a causal model in SmolLM2's shape, fp32 and bf16"; then
  for dtype in "${dtypes[@]}"; do
    measure "decode-causal-$dtype" decode "${asked[@]}" --arch causal --model "$causal" "${decode[@]}" --dtype "$dtype"
  done
fi

if part 5 5 "making IDs beside Algorithm 1 item by item"; then
  measure gen-ids-t5 gen-ids "$data/items.jsonl" "${t5[@]}" "${gen[@]}"
fi

if part 6 7 "training beside Seq2SeqTrainer, tokens a second and share of the peak rate; the generator's share"; then
  for precision in "${dtypes[@]}"; do
    measure "train-t5-$precision" train "$data" --ids "$ids" "${t5[@]}" "${train[@]}" --precision "$precision"
  done
  measure train-generator train "$data" "${t5[@]}" "${slots[@]}" --part generator
fi

if part 7 4 "what each command waits for, as docs/gpu.md counts it"; then
  if [[ $device == cuda ]]; then
    [[ -s $out/waits.jsonl ]] || limited env PYTHONPATH="$root:${PYTHONPATH:-}" "${python[@]}" -m tests.cuda.commands \
      --real "$out/waits.jsonl"
  else
    log "no waits to count on a CPU"
  fi
fi

if part 8 8 "validation after a training in fp32"; then
  learn quality-fp32 "${few[@]}" --precision fp32
fi

if part 9 5 "validation after the same in bf16"; then
  learn quality-bf16 "${few[@]}" --precision bf16
fi

if part 10 "$minutes, at most nine a call, and two more" "Beauty with a T5 of T5-small's shape"; then
  if [[ -n $dry_run ]]; then
    learn beauty --precision auto --epochs "as many as $minutes minutes take"
  else
    if [[ ! -s $out/epochs ]]; then
      learn beauty --precision auto --epochs 1 --dry-run > "$out/forecast.json"
      "${python[@]}" "$root/recipes/gpu_table.py" --epochs "$minutes" "$out/forecast.json" > "$out/epochs"
      [[ $size != smoke ]] || printf '1\n' > "$out/epochs"
    fi
    learn beauty --precision auto --epochs "$(< "$out/epochs")"
  fi
  limited "${idgr[@]}" recommend "$data/test.jsonl" --rec "$out/beauty" --ids "$ids" --device "$device" --batch-size 64 \
    -o "$out/recs.jsonl"
  idgr eval "$out/recs.jsonl" --truth "$data/test.jsonl" --train "$data/train.jsonl" -o "$out/metrics.json"
fi

if part 11 9 "decoding and training with and without torch.compile"; then
  for dtype in "${dtypes[@]}"; do
    measure "compile-decode-$dtype" decode "${asked[@]}" "${t5[@]}" "${decode[@]}" --dtype "$dtype" --compile
    measure "compile-train-$dtype" train "$data" --ids "$ids" "${t5[@]}" "${train[@]}" --precision "$dtype" --compile
  done
fi

[[ -z $refused ]] || exit 2
[[ -z $dry_run ]] || exit 0
table
cat "$out/table.md"
log "done in $SECONDS s; everything is in $out"
