"""The benchmark of reading: it measures what it says, on a dump of the form that it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from idgr.bench.prep import CONTENDERS, bench_memory, bench_tables, write_reviews
from idgr.bench.processes import measure
from idgr.cli.main import run
from idgr.errors import IdgrError


def test_every_contender_reads_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas")
    path = tmp_path / "reviews.json.gz"
    write_reviews(str(path), 700, seed=1, words=5)
    assert run(["bench", "prep", str(path), "--repeats", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["contender"] for line in lines] == list(CONTENDERS)
    assert [line["rows"] for line in lines] == [700] * len(CONTENDERS)
    assert lines[0]["ratio_to_pandas"] == 1.0
    assert all(line["peak_mib"] > 10 for line in lines)


def test_the_memory_run_prepares_everything() -> None:
    record = bench_memory(30_000, seed=0)
    assert record["rows"] == 30_000
    assert 20_000 < record["interactions"] <= 30_000
    assert record["peak_mib"] > 10


def test_pandas_keeps_what_idgr_keeps() -> None:
    pytest.importorskip("pandas", reason="the bench's rival is not installed")
    ours, peer = bench_tables(30_000, seed=0, with_pandas=True)
    assert [ours["contender"], peer["contender"]] == ["idgr, whole prep", "pandas, whole prep"]
    assert ours["rows"] == peer["rows"] == 30_000
    for name in ("users", "items", "interactions"):
        assert ours[name] == peer[name] > 100


def test_dumps_repeat_with_their_seed(tmp_path: Path) -> None:
    for name, seed in (("a.gz", 1), ("b.gz", 1), ("c.gz", 2)):
        write_reviews(str(tmp_path / name), 200, seed=seed, words=3)
    a, b, c = ((tmp_path / f"{name}.gz").read_bytes() for name in "abc")
    assert a == b != c


def _exits() -> None:
    raise SystemExit(7)


def test_a_contender_that_dies_is_told() -> None:
    with pytest.raises(IdgrError, match="ended with code 7"):
        measure(_exits)
