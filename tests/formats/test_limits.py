"""Bombs: lines and gzip files that hold far more than they seem to, refused before they fill the memory."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest

from idgr.errors import IdgrError, UsageError
from idgr.formats import limits
from idgr.formats.jsonl import Lines, read_jsonl

MIB = 1 << 20


def rows(path: Path | str) -> int:
    return sum(1 for _ in read_jsonl(path, lambda row: row))


def test_a_line_that_is_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDGR_MAX_LINE_MIB", "1")
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "' + b"x" * (2 * MIB) + b'"}\n')
    with pytest.raises(IdgrError, match="a line of more than 1 MiB; mend the file, or set IDGR_MAX_LINE_MIB") as caught:
        rows(path)
    assert (caught.value.where, caught.value.line) == (str(path), 2)
    monkeypatch.setenv("IDGR_MAX_LINE_MIB", "3")
    assert rows(path) == 2


def test_a_line_on_standard_input_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDGR_MAX_LINE_MIB", "1")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b'{"a": "' + b"x" * (2 * MIB))))
    with pytest.raises(IdgrError, match="stdin:1: a line of more than 1 MiB"):
        rows("-")


def test_a_bomb_of_one_line_costs_no_more_than_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDGR_MAX_LINE_MIB", "2")
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", 9) as packed:
        packed.write(b'{"a": 1}\n')
        for _ in range(64):
            packed.write(bytes(MIB))
    assert path.stat().st_size < MIB // 10
    tracemalloc.start()
    with pytest.raises(IdgrError, match="a line of more than 2 MiB") as caught:
        rows(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.line == 2
    assert peak < 24 * MIB, "not the 64 that it unpacks to"


def test_a_bomb_of_many_lines_is_told_by_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_NOT_COUNTED", MIB)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 500_000, 9))
    with pytest.raises(IdgrError, match=r"unpacks to more than 200 times its size.*IDGR_MAX_GZIP_RATIO") as caught:
        rows(path)
    assert caught.value.line is not None
    monkeypatch.setenv("IDGR_MAX_GZIP_RATIO", "1000")
    assert rows(path) == 500_000


def test_small_files_may_be_as_repetitive_as_they_like(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 500_000, 9))
    assert rows(path) == 500_000


@pytest.mark.parametrize("value", ["", "0", "-3", "many", "1e9", "١"])
def test_a_bound_that_is_no_number_is_told(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDGR_MAX_LINE_MIB", value)
    (tmp_path / "x").write_bytes(b"{}\n")
    with pytest.raises(UsageError, match=r"IDGR_MAX_LINE_MIB is .*; set it to a whole number above 0"):
        list(Lines(tmp_path / "x"))
