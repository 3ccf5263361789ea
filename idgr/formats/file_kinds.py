"""What a file is, told by its first bytes, and by the first line of a text that should be JSON Lines.

A file of another kind than a reader takes is named for what it is, with the command that makes it readable.
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath
from typing import NamedTuple

GZIP = b"\x1f\x8b"
HEAD = 512  # bytes that tell what a file is: a tar archive is known by its bytes 257 to 262
_TAR, _TAR_AT = b"ustar", 257
_UTF16 = (b"\xff\xfe", b"\xfe\xff")

_BY_TABLE = "`idgr prep table` reads it; for other commands turn it into JSON Lines first: "

# The first bytes of files that hold no text, what they are, and the command that unpacks or turns them.
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive", "unpack it first: unzip {name}"),
    (b"PK\x05\x06", "an empty zip archive", "fetch it again"),
    (b"PAR1", "a Parquet file", f"{_BY_TABLE}{{polars}}"),
    (b"ARROW1", "an Arrow (Feather) file", "turn it into JSON Lines first: {polars}"),
    (b"ORC", "an ORC file", "turn it into JSON Lines first"),
    (b"BZh", "compressed by bzip2", "unpack it first: bunzip2 --keep {name}"),
    (b"\xfd7zXZ\x00", "compressed by xz", "unpack it first: unxz --keep {name}"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it first: unzstd {name}"),
    (b"\x04\x22\x4d\x18", "compressed by lz4", "unpack it first: unlz4 {name}"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first: 7z x {name}"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it first: unrar x {name}"),
    (b"SQLite format 3\x00", "an SQLite database", "write its table as JSON Lines first"),
    (b"\x89HDF\r\n", "an HDF5 file", "turn it into JSON Lines first"),
    (b"\x93NUMPY", "a NumPy array", "turn it into JSON Lines first"),
    (b"%PDF-", "a PDF document", "give the data themselves"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch the file: git lfs pull"),
)


class Kind(NamedTuple):
    """What a file is, and what to do to have it read."""

    what: str
    todo: str


def binary_kind(head: bytes, path: str, *, packed: bool = False) -> Kind | None:
    """What a file is that holds no lines of UTF-8; None where it may hold them.

    Args:
        head: its first bytes, `HEAD` of them if there are so many.
        path: its name, for the command.
        packed: whether `head` was unpacked from gzip.
    """
    name = _quoted(path)
    inside = " inside gzip" if packed else ""
    if head[_TAR_AT:].startswith(_TAR):
        return Kind(f"is a tar archive{inside}", f"unpack it first: tar -x{'z' if packed else ''}f {name}")
    if packed and head.startswith(GZIP):
        return Kind("is gzip inside gzip", f"unpack it once first: gunzip -c < {name} > unpacked.gz")
    for magic, what, todo in _MAGIC:
        if head.startswith(magic):
            polars = _polars(path, "read_parquet" if magic == b"PAR1" else "read_ipc")
            if packed:
                name, todo = "unpacked", f"unpack the gzip first: gunzip -c < {name} > unpacked; then {todo}"
                polars = _polars(name, "read_parquet" if magic == b"PAR1" else "read_ipc")
            return Kind(f"is {what}{inside}", todo.format(name=name, polars=polars))
    if head.startswith(_UTF16) or _is_wide(head):
        unpacked = f"gunzip -c < {name} | " if packed else ""
        source = "" if packed else f" {name}"
        todo = f"turn it into UTF-8 first: {unpacked}iconv -f UTF-16 -t UTF-8{source} > utf8{_suffix(path)}"
        return Kind(f"is UTF-16 text{inside}", todo)
    return None


def text_kind(line: bytes, path: str) -> Kind | None:
    """What a text is whose first line `line` is not the JSON object that it should be; None where that is not known."""
    text = line.decode("latin-1").strip()
    if text.startswith("<"):
        return Kind("is HTML or XML, perhaps the page of a failed download", "fetch the data again")
    if text.startswith("["):
        return Kind(
            "begins a JSON array, not JSON Lines", f"write one object a line: jq -c '.[]' {_quoted(path)} > lines.jsonl"
        )
    if text == "{":
        return Kind(
            "begins a JSON object over many lines, not JSON Lines",
            f"write one object a line: jq -c . {_quoted(path)} > lines.jsonl",
        )
    return table_kind(text, path)


def table_kind(text: str, path: str) -> Kind | None:
    """What a table is whose first line is `text`; None where it is none of a known form."""
    cells = text.split("\t")
    if re.fullmatch(r"\w+:(token|float)(_seq)?", cells[0]):
        rename = ".rename(lambda name: name.split(':')[0])"
        turn = _polars(path, "read_csv", ", separator='\\t', quote_char=None, infer_schema=False", rename)
        return Kind("is RecBole's atomic file (fields between tabs)", f"{_BY_TABLE}{turn}")
    if len(cells) == 4 and all(re.fullmatch(r"-?\d+", cell) for cell in cells):
        return Kind(
            "is in the form of MovieLens 100K's u.data (fields between tabs)", "read it with `idgr prep movielens`"
        )
    if re.match(r"\d+\|[^|]*\|[^|]*\|[^|]*\|", text):
        return Kind(
            "is in the form of MovieLens 100K's u.item (fields between bars)",
            "it holds films: give it to --meta, beside u.data",
        )
    if "::" in text and not text.startswith(("{", '"')):
        return Kind("is in the form of MovieLens' .dat files", "read it with `idgr prep movielens`")
    if text.startswith(("{", "'", '"\\')):
        return None
    if len(cells) > 1:
        turn = _polars(path, "read_csv", ", separator='\\t', quote_char=None, infer_schema=False")
        return Kind("is a table with fields between tabs", f"{_BY_TABLE}{turn}")
    if "," in text:
        if {"userid", "movieid"} <= set(text.lower().replace('"', "").split(",")):
            return Kind("is MovieLens' ratings.csv", "read it with `idgr prep movielens`")
        headless = any(re.fullmatch(r"-?\d+(\.\d*)?", cell.strip('" ')) for cell in text.split(","))
        names = ", has_header=False, new_columns=['user_id', 'item_id', 'rating', 'timestamp']" if headless else ""
        names += ", infer_schema=False"  # keys of digits keep their zeros
        turn = _polars(path, "read_csv", names)
        return Kind("is CSV (fields between commas)", f"{_BY_TABLE}{turn}")
    return None


def _is_wide(head: bytes) -> bool:
    """Whether the first letters are two bytes each, one of them NUL."""
    pairs = head[:8]
    return len(pairs) == 8 and (not any(pairs[::2]) or not any(pairs[1::2])) and any(pairs)


def _polars(path: str, reader: str, arguments: str = "", then: str = "") -> str:
    """The command that turns a table into JSON Lines with the library that idgr itself needs."""
    source = "sys.stdin.buffer" if path == "-" else repr(path)
    code = f"import sys, polars; polars.{reader}({source}{arguments}){then}.write_ndjson('lines.jsonl')"
    return f"python -c {shlex.quote(code) if chr(39) not in code else _double_quoted(code)}"


def _double_quoted(code: str) -> str:
    return '"' + re.sub(r'([\\"$`])', r"\\\1", code) + '"'


def _quoted(path: str) -> str:
    return "FILE" if path == "-" else shlex.quote(path)


def _suffix(path: str) -> str:
    suffixes = [suffix for suffix in PurePath(path).suffixes if suffix != ".gz"]
    return suffixes[-1] if suffixes and len(suffixes[-1]) < 8 else ".txt"
