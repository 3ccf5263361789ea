#!/usr/bin/env bash
# Fetches models and data sets on a machine with network, such as a cluster's login node, into folders that the recipes
# take where there is none:
#
#   --out/models/t5-small   T5-small, from the hub                                --t5 of recipes/standard|ablation|foundation
#   --out/models/tags       the paper's ID generator, a T5-small for tags         --tags of the same
#   --out/models/smollm2    SmolLM2, and minilm beside it, of recipes/pretrained.sh    --model, --rec, --causal
#   --out/raw/NAME          the data sets, by recipes/download.sh                 --raw
#
# The hub has the tag generator's weights as pickle only (pytorch_model.bin), which idgr does not read, from a folder or
# from the hub's cache. They are fetched into --out/models/tags-pickle, and stage 2 turns them into safetensors, in an
# environment of its own, .venv-convert, with a loader that takes tensors and nothing else:
#
#   recipes/prefetch.sh --stage 2 --stop-stage 2
#
# Then, without network, with a look at what it takes first:
#
#   recipes/standard/run.sh --dataset beauty --raw raw/ --t5 models/t5-small --tags models/tags --size paper --dry-run
#
# Reads: the hub, the registry of Python packages, and the addresses of recipes/dumps.tsv. Writes: the folders above,
#   .venv-convert and .venv-pretrained. What is there and whole is left as it is.
# Usage: recipes/prefetch.sh [--out DIR] [--dataset "beauty-2014 …"] [--stage N] [--stop-stage N]
#   stages: 1 models of the hub, 2 the tag generator to safetensors, 3 SmolLM2, 4 data sets
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
source "$root/recipes/data.sh"

out=.
dataset=

options=(out dataset)
parse_options "$@"
own=$root/.venv-convert
models=$out/models

# An environment of its own, since idgr's opens no pickle.
own_environment() {
  local python
  python=$(find_python)
  [[ -x $own/bin/python ]] || "$python" -m venv "$own"
  "$own/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/recipes/constraints.txt" \
    torch transformers safetensors huggingface_hub sentencepiece protobuf
}

if begin 1 "models of the hub, into $models"; then
  own_environment
  "$own/bin/python" "$root/recipes/prefetch.py" fetch "$hub_t5" "$models/t5-small"
  [[ -d $models/tags ]] || "$own/bin/python" "$root/recipes/prefetch.py" fetch --pickle "$hub_tags" "$models/tags-pickle"
fi

if begin 2 "the tag generator's pickled weights to safetensors, into $models/tags"; then
  if [[ ! -d $models/tags ]]; then
    [[ -d $models/tags-pickle ]] || die "$models/tags-pickle is not there; run stage 1 first, where there is a network"
    own_environment
    "$own/bin/python" "$root/recipes/prefetch.py" convert "$models/tags-pickle" "$models/tags"
  fi
fi

if begin 3 "SmolLM2 and MiniLM, into $models"; then
  "$root/recipes/pretrained.sh" --out "$models"
fi

if begin 4 "data sets, into $out/raw"; then
  if [[ -n $dataset ]]; then
    "$root/recipes/download.sh" --dataset "$dataset" --out "$out/raw"
  else
    log "no --dataset is named, so none is fetched"
  fi
fi

log "then: --t5 $models/t5-small --tags $models/tags --raw $out/raw, with HF_HUB_OFFLINE=1"
