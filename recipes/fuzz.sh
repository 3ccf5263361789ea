#!/usr/bin/env bash
# Fuzz idgr's readers, its audit and its command line with atheris. Makes or reuses .venv, with pip alone.
#
# Reads: this repository and tests/fuzz/corpus. Writes: the folder --keep, with inputs that found something new and
# those that crashed or hung.
# Usage: recipes/fuzz.sh [--runs N] [--keep DIR] [--stage N] [--stop-stage N]
#   stages: 1 readers of text, N inputs each, 2 slower ones (gzip, audit, command line), a fortieth of N each
set -euo pipefail

source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

runs=200000
keep=runs/fuzz

options=(runs keep)
parse_options "$@"
[[ $runs =~ ^[0-9]+$ ]] || die "--runs takes a number"
cd "$root"
install fuzz
mkdir -p "$keep"

if begin 1 "readers of text"; then
  python -m tests.fuzz records raw text templates run-file --runs "$runs" --keep "$keep"
fi

if begin 2 "gzip, audit, command line"; then
  python -m tests.fuzz packed audit command-line --runs "$((runs / 40))" --keep "$keep"
fi

log "done in $SECONDS s; new inputs are in $keep"
