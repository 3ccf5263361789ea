"""Lines in and out: gzip, standard input, faults with file and line, and nothing partial under the final name."""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.errors import IdgrError
from idgr.formats.jsonl import Lines, dump_line, read_jsonl, replace_file, write_json, write_jsonl
from idgr.formats.streams import ReaderGoneError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def rows(path: Path | str) -> list[dict[str, Any]]:
    return list(read_jsonl(path, lambda row: row))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    records=st.lists(st.dictionaries(st.text(), json_values, max_size=3), min_size=1, max_size=300),
    packed=st.booleans(),
)
def test_reading_agrees_with_the_standard_library(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], packed: bool
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / ("x.jsonl.gz" if packed else "x.jsonl")
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    assert rows(path) == records


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    records=st.lists(st.dictionaries(st.text(), json_values, max_size=3), min_size=1, max_size=5), packed=st.booleans()
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], packed: bool
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / ("x.jsonl.gz" if packed else "x.jsonl")
    assert write_jsonl(path, records) == len(records)
    assert rows(path) == records


def test_lines_are_numbered_with_blank_ones_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n  \ntwo")
    assert list(Lines(path)) == [(1, b"one"), (4, b"two")]
    assert list(Lines(path).blocks(3)) == [(1, [b"one\r\n", b"\n", b"  \n"]), (4, [b"two"])]


def test_standard_input_is_not_waited_for_beyond_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.RawIOBase):
        """Gives one line at a time, and fails the test where a second is asked for before the first is used."""

        def __init__(self) -> None:
            self.given = 0
            self.used = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            assert self.given == self.used, "read ahead"
            if self.given == 3:
                return 0
            self.given += 1
            line = b'{"n": %d}\n' % self.given
            buffer[: len(line)] = line
            return len(line)

    slow = Slow()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(slow)))
    for row in read_jsonl("-", lambda row: row):
        slow.used += 1
        assert row == {"n": slow.used}
    assert slow.used == 3


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        (b'{"a": 1}\n{"a": \n', 2, "not valid JSON"),
        (b'{"a": 1}\n\n[1]\n', 3, "a JSON list, not an object"),
        (b'{"a": "\xff"}\n', 1, "UTF-8"),
        (b'{"a": "\\ud800"}\n', 1, "not valid JSON"),
        (b"\n \n", None, "is empty"),
        (b"", None, "is empty"),
    ],
)
def test_a_faulty_file_is_named_with_its_line(tmp_path: Path, content: bytes, line: int | None, what: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(IdgrError, match=what) as caught:
        rows(path)
    assert (caught.value.where, caught.value.line) == (str(path), line)
    assert "\n" not in str(caught.value)


def test_a_value_error_of_the_parser_gets_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n')

    def parse(row: dict[str, Any]) -> int:
        if row["a"] == 2:
            raise ValueError("two is too much; take one")
        return int(row["a"])

    with pytest.raises(IdgrError, match=f"{path}:2: two is too much; take one"):
        list(read_jsonl(path, parse))


def test_a_truncated_gzip_names_the_line_after_the_last_good_one(tmp_path: Path) -> None:
    text = b"".join(b'{"n": %d, "x": "%s"}\n' % (n, bytes([65 + n * n % 26]) * (n % 97)) for n in range(20_000))
    packed = gzip.compress(text)
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(packed[: len(packed) * 2 // 3])
    whole = zlib.decompressobj(31).decompress(path.read_bytes()).count(b"\n")
    assert 0 < whole < 20_000
    with pytest.raises(IdgrError, match="damaged gzip data") as caught:
        rows(path)
    assert caught.value.line == whole + 1


def test_gzip_files_may_be_concatenated(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    members = [gzip.compress(b'{"n": 1}\n'), gzip.compress(b'{"n": 2}\n')]
    path.write_bytes(b"".join(members))
    assert rows(path) == [{"n": 1}, {"n": 2}]
    path.write_bytes(b"".join(members)[:-9])
    with pytest.raises(IdgrError) as caught:
        rows(path)
    assert caught.value.line == 3


@pytest.mark.parametrize("damage", ["plain text", "flipped", "checksum"])
def test_a_damaged_gzip_is_told(tmp_path: Path, damage: str) -> None:
    packed = bytearray(gzip.compress(b"".join(b'{"n": %d}\n' % n for n in range(5_000))))
    if damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
        packed[len(packed) // 2 + 1] ^= 0xFF
    elif damage == "checksum":
        packed[-6] ^= 0xFF
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(b'{"n": 1}\n' if damage == "plain text" else bytes(packed))
    with pytest.raises(IdgrError) as caught:
        rows(path)
    assert caught.value.where == str(path)
    assert caught.value.line is not None


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path / "none.jsonl.gz", tmp_path):
        with pytest.raises(IdgrError, match="cannot be read"):
            rows(path)


def test_equal_records_give_equal_bytes_when_compressed(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_jsonl(tmp_path / name, [{"a": 1}])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("before")

    def records() -> Any:
        yield {"a": 1}
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError):
        write_jsonl(path, records())
    assert [file.name for file in tmp_path.iterdir()] == ["x.jsonl"]
    assert path.read_text() == "before"


def test_lone_surrogates_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        dump_line({"a": "\ud800"})


def test_a_file_is_not_written_over_a_folder_or_below_a_file(tmp_path: Path) -> None:
    with pytest.raises(IdgrError, match="is a folder"):
        write_json(tmp_path, {})
    (tmp_path / "file").touch()
    with pytest.raises(IdgrError, match="cannot be written"):
        write_json(tmp_path / "file" / "x.json", {})


def test_a_new_file_has_the_permissions_that_the_user_wants(tmp_path: Path) -> None:
    with replace_file(tmp_path / "x") as stream:
        stream.write(b"1")
    (tmp_path / "plain").touch()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_reader_of_another_output_that_goes_away_is_told_where_a_file_is_lost(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    def write() -> None:
        with replace_file(tmp_path / "x") as stream, replace_file(f"/dev/fd/{writer}") as data:
            stream.write(b"1")
            data.write(b"1" * 100_000)

    if not Path("/dev/fd").exists():
        pytest.skip("this system has no such names for descriptors")
    with pytest.raises(IdgrError, match="x: is not written, since the reader of the other output went away"):
        write()
    with pytest.raises(ReaderGoneError), replace_file(f"/dev/fd/{writer}") as data:
        data.write(b"1" * 100_000)
    os.close(writer)
    assert list(tmp_path.iterdir()) == []


def test_a_named_pipe_is_written_and_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_json(tmp_path / "pipe", {"a": 1})
    assert os.read(reader, 100) == b'{\n  "a": 1\n}\n'
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_pipe_that_does_not_wait_loses_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(Path(f"/dev/fd/{reader}").read_bytes)
        with replace_file(f"/dev/fd/{writer}") as stream:
            os.close(writer)
            stream.write(b"1" * 1_000_000)
        assert len(read.result()) == 1_000_000
    os.close(reader)
