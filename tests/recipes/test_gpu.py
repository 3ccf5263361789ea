"""`recipes/gpu.sh`: the whole of it with tiny models on the CPU, what it says where there is no GPU, and its table."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes/gpu.sh"
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not there")

# By measurement, the lines that it gives.
BENCHES = {
    "parity-t5-fp32": 4,
    "parity-t5-bf16": 4,
    "parity-causal-fp32": 4,
    "decode-t5-fp32": 5,
    "decode-t5-bf16": 5,
    "latency-t5-fp32": 5,
    "decode-causal-fp32": 5,
    "decode-causal-bf16": 5,
    "gen-ids-t5": 2,
    "train-t5-fp32": 3,
    "train-t5-bf16": 3,
    "train-generator": 2,
    "compile-decode-fp32": 7,
    "compile-decode-bf16": 7,
    "compile-train-fp32": 4,
    "compile-train-bf16": 4,
}
# With tiny models bf16 is tried once.
SMOKE = {
    name: lines
    for name, lines in BENCHES.items()
    if name not in ("decode-causal-bf16", "train-t5-bf16", "compile-decode-bf16", "compile-train-bf16")
}


def gpu(path: str, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    assert BASH is not None
    given = {"PATH": path, "PYTHONPATH": str(ROOT), "IDGR_INSTALLED": "1", "OMP_NUM_THREADS": "1", "MEASURE_HERE": "1"}
    return subprocess.run(
        [BASH, SCRIPT, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | given | environment,
    )


@pytest.fixture(scope="module")
def everything(warm_path: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a whole run with tiny models, and what it printed."""
    out = tmp_path_factory.mktemp("gpu") / "out"
    done = gpu(warm_path, "--device", "cpu", "--size", "smoke", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_everything_runs_with_tiny_models(warm_path: str, everything: tuple[Path, str]) -> None:
    """Every part, its files, the table; called again, nothing is measured anew."""
    out, told = everything
    words = ("--device", "cpu", "--size", "smoke", "--out", out)
    for name, lines in SMOKE.items():
        assert len((out / f"{name}.jsonl").read_text().splitlines()) == lines, name
    found = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    same = [
        record["same_lists_as_cpu"]
        for record in found
        if record["measurement"] == "parity-t5-fp32" and "same_lists_as_cpu" in record
    ]
    assert same == [1.0, 1.0]
    assert {record["measurement"] for record in found} == {*SMOKE, "quality-fp32", "quality-bf16", "beauty"}
    assert (out / "table.md").read_text() in told
    rows = [line for line in told.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(found)
    assert any("| idgr train-rec, test |" in row and "NDCG@10" in row for row in rows)
    before = {file: file.stat().st_mtime_ns for file in out.glob("*-*.jsonl")}
    again = gpu(warm_path, *words, "--part", "6")
    assert again.returncode == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in out.glob("*-*.jsonl")} == before


def test_a_part_without_time_left_goes_on_another_time(
    warm_path: str, everything: tuple[Path, str], tmp_path: Path
) -> None:
    """What cuts a command off ends the recipe with 75, and the call after it measures what is missing."""
    (tmp_path / "bin").mkdir()
    timeout = tmp_path / "bin/timeout"
    timeout.write_text("#!/bin/sh\nexit 124\n")
    timeout.chmod(0o755)
    shutil.copytree(everything[0], tmp_path / "out")
    (tmp_path / "out/gen-ids-t5.jsonl").unlink()
    words = ("--device", "cpu", "--size", "smoke", "--part", "5", "--out", tmp_path / "out")
    done = gpu(f"{tmp_path}/bin:{warm_path}", *words)
    assert done.returncode == 75, done.stderr
    assert "the same call goes on" in done.stderr
    assert not (tmp_path / "out/gen-ids-t5.jsonl").exists()
    assert gpu(warm_path, *words).returncode == 0
    assert (tmp_path / "out/gen-ids-t5.jsonl").exists()


@pytest.mark.parametrize(("words", "code"), [((), 2), (("--dry-run",), 0)])
def test_without_a_gpu_it_says_what_it_would_do(
    warm_path: str, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    done = gpu(warm_path, *words, "--out", tmp_path / "out", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == code
    assert re.findall(r"^part (\d+): .*\(about \d+", done.stdout, flags=re.MULTILINE) == [str(n) for n in range(1, 12)]
    assert ("there is no GPU" in done.stderr) is bool(code)
    lines = [line for line in done.stdout.splitlines() if line.startswith("  idgr bench ")]
    assert len(lines) == len(BENCHES)
    assert all("--device cuda" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--part", "12"], "--part 12: choose 1 to 11"),
        (["--minutes", "0"], "--minutes takes a number"),
        (["--device", "tpu"], "--device tpu"),
        (["--size", "big"], "--size big"),
        (["--wheels", "none"], "--wheels none is no folder"),
        (["--dataset", "beauty"], "by one of --data, --prepared and --raw"),
    ],
)
def test_refused(warm_path: str, words: list[str], hint: str) -> None:
    done = gpu(warm_path, *words)
    assert done.returncode == 2
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_packages_are_told(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["torch>=2.6", "numpy>=999", "no-such-package-here>=1"]\n'
    )
    done = subprocess.run(
        [sys.executable, ROOT / "recipes/missing.py", tmp_path / "pyproject.toml"],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("numpy>=999 (there is ")
    assert second == "no-such-package-here>=1"


def test_bounds_allow_the_versions_of_the_bare_machine() -> None:
    """PyTorch 2.11 and transformers 5.17, as docs/gpu.md promises."""
    import tomllib

    from packaging.requirements import Requirement

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = {one.name: one.specifier for one in map(Requirement, wanted)}
    for name, version in {"torch": "2.11.0+cu130", "transformers": "5.17.0", "accelerate": "1.15.0"}.items():
        assert bounds[name].contains(version), name
