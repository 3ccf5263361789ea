"""Fuzz idgr with atheris: `python -m tests.fuzz [NAME …] [--runs N]`.

Each harness runs in a process of its own, first on the corpus that is kept beside this file, then on what the fuzzer
makes of it. A table goes to standard output. An input that crashes or hangs is left in the current folder, or in that
of `--keep`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
HANG_SECONDS = 25


def fuzz(name: str, arguments: list[str]) -> None:
    """Hand one harness to atheris; never returns."""
    import atheris

    os.environ["HF_HUB_OFFLINE"] = "1"
    with atheris.instrument_imports(include=["idgr"], enable_loader_override=False):
        from tests.fuzz.harnesses import HARNESSES

    if name == "audit":
        import torch  # noqa: F401 - some inputs get as far as this import, which is no hang
        import transformers  # noqa: F401

    harness = HARNESSES[name]
    atheris.Setup([sys.argv[0], *arguments], lambda data: harness(bytes(data)))
    atheris.Fuzz()


def run_one(name: str, runs: int, keep: Path | None) -> tuple[int, int, int, float]:
    """Executions, crashes, hangs and seconds of one harness, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        found = keep / name if keep is not None else Path(scratch)
        found.mkdir(parents=True, exist_ok=True)
        seeds = CORPUS / name
        command = [sys.executable, "-m", "tests.fuzz", "--harness", name, "--", str(found), str(seeds)]
        command += [f"-runs={runs}", f"-timeout={HANG_SECONDS}", "-max_len=4096", "-seed=1", "-verbosity=1"]
        command += ["-rss_limit_mb=4096", "-print_final_stats=1", f"-artifact_prefix={keep or Path.cwd()}/{name}-"]
        started = time.monotonic()
        done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, errors="replace")
        seconds = time.monotonic() - started
    sys.stderr.write(done.stderr[-4000:])
    counted = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    hung = "ERROR: libFuzzer: timeout" in done.stderr
    crashed = done.returncode != 0 and not hung
    return int(counted[1]) if counted else 0, int(crashed), int(hung), seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", help="harnesses; all of them if none is named")
    parser.add_argument("--runs", type=int, default=10_000, help="executions of each")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the inputs found")
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.name for path in CORPUS.iterdir())
    print("| harness | executions | crashes | hangs | seconds |\n|---|---|---|---|---|", flush=True)
    sums, faults = [0, 0.0], 0
    for name in names:
        executions, crashes, hangs, seconds = run_one(name, arguments.runs, arguments.keep)
        print(f"| `{name}` | {executions:,} | {crashes} | {hangs} | {seconds:.0f} |", flush=True)
        sums = [sums[0] + executions, sums[1] + seconds]
        faults += crashes + hangs
    print(f"| all | {sums[0]:,} | {faults} | | {sums[1]:.0f} |", flush=True)
    return int(faults > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--harness"]:
        fuzz(sys.argv[2], sys.argv[4:])
    sys.exit(main())
