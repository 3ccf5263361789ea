"""Files of other kinds than a command reads: gzip is unpacked whatever its name, the rest is named, the same by all."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.cli.main import run
from idgr.errors import IdgrError
from idgr.formats.jsonl import Lines, parse_object, read_jsonl

RECORDS: list[dict[str, Any]] = [{"user_id": "u", "item_id": f"0{n}", "timestamp": 1_500_000_000 + n} for n in range(4)]
TEXT = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
CSV = b"user_id,item_id,timestamp\n" + b"".join(b"u,0%d,%d\n" % (n, 1_500_000_000 + n) for n in range(4))


def zipped() -> bytes:
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        archive.writestr("x.jsonl", TEXT)
    return packed.getvalue()


def tarred() -> bytes:
    with tarfile.open(fileobj=(packed := io.BytesIO()), mode="w") as archive:
        entry = tarfile.TarInfo("x.jsonl")
        entry.size = len(TEXT)
        archive.addfile(entry, io.BytesIO(TEXT))
    return packed.getvalue()


def parquet() -> bytes:
    polars.DataFrame(RECORDS).write_parquet(packed := io.BytesIO())
    return packed.getvalue()


KINDS: list[tuple[str, Callable[[], bytes], str]] = [
    ("x.zip", zipped, r"is a zip archive; unpack it first: unzip \S*x.zip"),
    ("x.jsonl", zipped, "is a zip archive"),
    ("x.tar", tarred, r"is a tar archive; unpack it first: tar -xf \S*x.tar"),
    ("x.tar.gz", lambda: gzip.compress(tarred()), r"is a tar archive inside gzip; unpack it first: tar -xzf"),
    ("x.gz", lambda: gzip.compress(gzip.compress(TEXT)), "is gzip inside gzip; unpack it once first: gunzip -c"),
    ("x.gz", lambda: gzip.compress(zipped()), "is a zip archive inside gzip"),
    (
        "x.parquet",
        parquet,
        r"is a Parquet file; `idgr prep table` reads it; .* turn it into JSON Lines first: python -c",
    ),
    ("x.bz2", lambda: bz2.compress(TEXT), "is compressed by bzip2; unpack it first: bunzip2"),
    ("x.xz", lambda: lzma.compress(TEXT), "is compressed by xz; unpack it first: unxz"),
    ("x.jsonl", lambda: TEXT.decode().encode("utf-16"), "is UTF-16 text; turn it into UTF-8 first: iconv -f UTF-16"),
    ("x.jsonl", lambda: TEXT.decode().encode("utf-16-le"), "is UTF-16 text"),
    ("x.jsonl", lambda: TEXT.decode().encode("utf-16-be"), "is UTF-16 text"),
    ("x.jsonl", lambda: b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ("x.jsonl", lambda: b"", "is empty"),
    ("x.jsonl.gz", lambda: b"", "is empty"),
    ("x.jsonl.gz", lambda: gzip.compress(b""), "is empty"),
    ("x.jsonl.gz", lambda: TEXT, "damaged gzip data .*give it a name without .gz if it is not compressed"),
    ("x.csv", lambda: CSV, r":1: not valid JSON: the file is CSV .*python -c"),
    ("x.csv", lambda: b"A1,0205616461,5.0,1369699200\n", r"is CSV .*has_header=False"),
    ("x.csv", lambda: b"userId,movieId,rating,timestamp\n", "is MovieLens' ratings.csv; read it with `idgr prep movie"),
    ("x.inter", lambda: b"user_id:token\titem_id:token\n1\t2\n", "is RecBole's atomic file .*python -c"),
    ("x.tsv", lambda: b"user_id\titem_id\n1\t2\n", "is a table with fields between tabs; .*python -c"),
    ("u.data", lambda: b"1\t1\t5\t838985046\n", "MovieLens 100K's u.data .* read it with `idgr prep movielens`"),
    ("r.dat", lambda: b"1::2::3::4\n", "MovieLens' .dat files; read it with `idgr prep movielens`"),
    ("x.json", lambda: json.dumps(RECORDS).encode(), r":1: a JSON list, not an object; .*jq -c '\.\[\]'"),
    ("x.json", lambda: json.dumps(RECORDS, indent=1).encode(), r"begins a JSON array, .*jq -c '\.\[\]'"),
    ("x.json", lambda: json.dumps(RECORDS[0], indent=1).encode(), "begins a JSON object over many lines"),
    ("x.jsonl", lambda: b"<!DOCTYPE html>\n<html>\n", "is HTML or XML"),
]


@pytest.mark.parametrize(("name", "make", "what"), KINDS)
def test_each_kind_is_named_with_what_to_do(
    tmp_path: Path, name: str, make: Callable[[], bytes], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(IdgrError, match=what) as caught:
        list(read_jsonl(path, lambda row: row))
    assert caught.value.todo
    # Every command gives the same message.
    commands = (
        ["prep", "jsonl", str(path), "--meta", str(path), "-o", str(tmp_path / "data")],
        ["prep", "amazon", str(path), "--meta", str(path), "-o", str(tmp_path / "data")],
        ["gen-ids", str(path), "--model", "keyphrase", "-o", str(tmp_path / "ids.jsonl")],
        ["eval", str(path), "--truth", str(path), "--train", str(path), "-o", str(tmp_path / "m.json")],
    )
    for command in commands:
        assert run(command) == 1
        assert str(caught.value) in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["x", "x.jsonl", "x.json.gz"])
def test_gzip_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(TEXT))
    assert list(read_jsonl(tmp_path / name, lambda row: row)) == RECORDS
    (tmp_path / name).write_bytes(gzip.compress(TEXT * 50)[:-30])
    with pytest.raises(IdgrError, match="damaged gzip data"):
        list(Lines(tmp_path / name))


def test_gzip_comes_through_standard_input_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for content, whole in ((gzip.compress(TEXT), True), (gzip.compress(TEXT)[:-9], False)):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(content))))  # type: ignore[arg-type]
        if whole:
            assert list(read_jsonl("-", lambda row: row)) == RECORDS
        else:
            with pytest.raises(IdgrError, match="stdin: damaged gzip data"):
                list(Lines("-"))


@pytest.mark.parametrize(("name", "content"), [("x.csv", CSV), ("x.parquet", parquet()), ("x.inter", None)])
def test_the_command_that_is_given_turns_the_file(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    header = b"user_id:token\titem_id:token\ttimestamp:float\n"
    path.write_bytes(content or header + CSV.split(b"\n", 1)[1].replace(b",", b"\t"))
    with pytest.raises(IdgrError) as caught:
        list(read_jsonl(path, lambda row: row))
    command = re.sub(r".*first: python", sys.executable, caught.value.todo)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)  # noqa: S607
    apply_rotary = list(read_jsonl(tmp_path / "lines.jsonl", lambda row: row))
    assert [(row["user_id"], row["item_id"], int(row["timestamp"])) for row in apply_rotary] == [
        (row["user_id"], row["item_id"], row["timestamp"]) for row in RECORDS
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["NaN", 'a "NaN', "\\Infinity", "-Infinity"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_nan_counts_as_null_outside_of_texts(record: dict[str, Any]) -> None:
    assert parse_object("x", 1, json.dumps(record).encode()) == without_nan(record)


def test_a_line_that_is_cut_off_is_told_though_it_holds_nan() -> None:
    with pytest.raises(IdgrError, match="x:2: not valid JSON"):
        parse_object("x", 2, b'{"a": NaN, "b": "' + b'\\"' * 100_000)
