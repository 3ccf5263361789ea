#!/usr/bin/env bash
# Run the checks: style, types, tests. Makes or reuses .venv, with pip alone.
#
# Reads: this repository. Writes: .venv and caches, nothing else.
# Usage: recipes/test.sh [--stage N] [--stop-stage N]
#   stages: 1 style, 2 types, 3 tests
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

options=()
parse_options "$@"
cd "$root"
install test,dev

if begin 1 "style"; then
  ruff check .
  ruff format --check .
fi

if begin 2 "types"; then
  mypy
fi

if begin 3 "tests"; then
  # A test process a core; each of them computes on one.
  OMP_NUM_THREADS=1 python -m pytest -n auto --dist worksteal --durations 15
fi

log "passed in $SECONDS s"
