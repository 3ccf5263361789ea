"""JSON Lines in and out: streams, gzip, standard input and output, errors with `path:line`."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import orjson

from idgr.errors import IdgrError, faulty_line
from idgr.formats.file_kinds import text_kind
from idgr.formats.limits import TooLargeError
from idgr.formats.opening import GZIP_FAULTS, damaged_line, open_bytes
from idgr.formats.replacing import replace_file, replace_folder
from idgr.formats.streams import STDIN, STDOUT, is_stream

__all__ = [
    "STDIN", "STDOUT", "Lines", "dump_line", "is_stream", "parse_object", "read_jsonl", "replace_file",
    "replace_folder", "write_json", "write_jsonl",
]  # fmt: skip

T = TypeVar("T")


class Lines:
    """The numbered lines of a text file, a gzip file whatever its name, or standard input (`-`).

    Iterating yields `(line number from 1, bytes without the line end)`; blank lines are passed over, and so is a
    byte order mark. On standard input a line is yielded as soon as it is there.

    Raises:
        IdgrError: the file cannot be opened or read, is empty, is no text (`idgr.formats.file_kinds`), is out of bounds
            (`idgr.formats.limits`), or its gzip stream is damaged or cut short.
    """

    def __init__(self, path: str | os.PathLike[str], *, allow_empty: bool = False) -> None:
        self.path = os.fspath(path)
        self.allow_empty = allow_empty

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for first, block in self.blocks(1 if self.path == STDIN else 256):
            for number, raw in enumerate(block, first):
                if line := raw.strip():
                    yield number, line

    def blocks(self, size: int) -> Iterator[tuple[int, list[bytes]]]:
        """Yield `(number of the first line, up to size neighbouring lines)`: blank lines and line ends are in them."""
        first, seen, block = 1, False, list[bytes]()
        try:
            with open_bytes(self.path) as stream:
                while True:
                    block = []
                    block.extend(islice(stream, size))  # what was read before a fault stays in the block
                    if not block:
                        break
                    if first == 1:
                        block[0] = block[0].removeprefix(codecs.BOM_UTF8)
                    seen = seen or any(not raw.isspace() and raw for raw in block)
                    yield first, block
                    first += len(block)
        except GZIP_FAULTS as fault:
            raise IdgrError(
                f"damaged gzip data ({fault})",
                "fetch or compress the file again",
                where=self.path,
                line=damaged_line(self.path),
            ) from None
        except TooLargeError as fault:
            raise IdgrError(fault.what, fault.todo, where=self.path, line=first + len(block)) from None
        except OSError as fault:
            what = f"cannot be read ({fault.strerror or fault})"
            raise IdgrError(what, "check the path and its permissions", where=self.path) from None
        if not seen and not self.allow_empty:
            raise IdgrError("is empty", "give a file with at least one record", where=self.path)


def read_jsonl(
    path: str | os.PathLike[str] | Lines, parse: Callable[[dict[str, Any]], T], *, allow_empty: bool = False
) -> Iterator[T]:
    """Stream the records of a JSON Lines file.

    Args:
        path: a file, a `.gz` file, or `-`; or `Lines`, which tell themselves whether they may be empty.
        parse: makes a record of a JSON object; a `ValueError("what is wrong; what to do")` from it is reported with
            file and line.
        allow_empty: whether a file without records is accepted.

    Raises:
        IdgrError: naming the file and line of the first malformed record.
    """
    lines = path if isinstance(path, Lines) else Lines(path, allow_empty=allow_empty)
    for number, line in lines:
        value = parse_object(lines.path, number, line)
        try:
            record = parse(value)
        except ValueError as fault:
            raise faulty_line(fault, lines.path, number) from None
        yield record


def parse_object(path: str, number: int, line: bytes) -> dict[str, Any]:
    """The JSON object that a line holds; NaN and infinities, which Python writes into JSON, count as null.

    Raises:
        IdgrError: there is none, with file and line; where the first line tells what the file is instead, with that.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as fault:
        if (bare := _without_nan(line)) is not None:
            return parse_object(path, number, bare)
        if number == 1 and (kind := text_kind(line, path)) is not None:
            raise IdgrError(f"not valid JSON: the file {kind.what}", kind.todo, where=path, line=number) from None
        raise IdgrError(
            f"not valid JSON ({fault.msg})", "write one JSON object a line, in UTF-8", where=path, line=number
        ) from None
    if not isinstance(value, dict):
        kind = text_kind(line, path) if number == 1 and isinstance(value, list) else None
        raise IdgrError(
            f"a JSON {type(value).__name__}, not an object",
            'write one object a line, such as {"item_id": …}' if kind is None else kind.todo,
            where=path,
            line=number,
        )
    return value


# A string, whole or cut off, which is passed over; or a number that is none.
_NAN = re.compile(rb'"(?:[^"\\]+|\\.)*"?|(-?\b(?:NaN|Infinity)\b)', re.DOTALL)


def _without_nan(line: bytes) -> bytes | None:
    """The line with null for NaN and infinities outside of strings; None where it holds none."""
    if b"NaN" not in line and b"Infinity" not in line:
        return None
    bare = _NAN.sub(lambda found: b"null" if found[1] else found[0], line)
    return None if bare == line else bare


def dump_line(record: dict[str, Any]) -> bytes:
    """One JSON line. Strings that UTF-8 cannot hold (lone surrogates) raise `TypeError`."""
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def write_jsonl(path: str | os.PathLike[str], records: Iterable[dict[str, Any]]) -> int:
    """Write records atomically (see `replace_file`) and return how many there were."""
    count = 0
    with replace_file(path) as stream:
        for record in records:
            stream.write(dump_line(record))
            count += 1
    return count


def write_json(path: str | os.PathLike[str], value: dict[str, Any]) -> None:
    """Write one indented JSON object atomically; keys keep their order."""
    with replace_file(path) as stream:
        stream.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
