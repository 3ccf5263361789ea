"""JSON Lines in and out: streams, gzip, standard input and output, errors with `path:line`.

Knows bytes and lines; what a record means is told by `idgr.formats.records`, and how an output takes its name by
`idgr.formats.replacing`, whose two functions, and the names of streams, are at hand here.
"""

from __future__ import annotations

import codecs
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from gzip import BadGzipFile
from itertools import islice
from typing import IO, Any, TypeVar

import orjson
from isal import isal_zlib

from idgr.errors import IdgrError, faulty_line
from idgr.formats.limits import TooLargeError, bounded
from idgr.formats.replacing import replace_file, replace_folder
from idgr.formats.streams import STDIN, STDOUT, is_stream

__all__ = [
    "STDIN", "STDOUT", "Lines", "dump_line", "is_stream", "parse_object", "read_jsonl", "replace_file",
    "replace_folder", "write_json", "write_jsonl",
]  # fmt: skip

T = TypeVar("T")


def _open_bytes(path: str) -> IO[bytes]:
    if path == STDIN:
        if sys.stdin is None:
            raise IdgrError("is closed", "give a file, or something on standard input", where=path)
        return bounded(sys.stdin.buffer, hashed=STDIN)
    if path.endswith(".gz"):
        from isal import igzip_threaded  # three times the rate of the standard library's gzip, on a core of its own

        return bounded(igzip_threaded.open(path, "rb", threads=1), packed=path)
    return bounded(open(path, "rb"), hashed=path if is_stream(path) else None)


def _damaged_line(path: str) -> int:
    """The first line that a gzip file does not hold whole, which the fast reader cannot tell: it loses a block."""
    lines, stream = 1, zlib.decompressobj(zlib.MAX_WBITS | 16)
    with open(path, "rb") as packed, suppress(zlib.error):
        while data := packed.read(1 << 16):
            while data:
                lines += stream.decompress(data).count(b"\n")
                data = stream.unused_data
                if stream.eof:
                    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    return lines


class Lines:
    """The numbered lines of a text file, a `.gz` file, or standard input (`-`).

    Iterating yields `(line number from 1, bytes without the line end)`; blank lines are passed over, and so is a
    byte order mark. On standard input a line is yielded as soon as it is there.

    Raises:
        IdgrError: the file cannot be opened or read, is empty, is out of bounds (`idgr.formats.limits`), or its gzip
            stream is damaged or cut short.
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
            with _open_bytes(self.path) as stream:
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
        except (EOFError, zlib.error, isal_zlib.IsalError, BadGzipFile) as fault:  # type: ignore[misc] # isal's stubs
            raise IdgrError(
                f"damaged gzip data ({fault})",
                "fetch or compress the file again",
                where=self.path,
                line=_damaged_line(self.path),
            ) from None
        except TooLargeError as fault:
            raise IdgrError(fault.what, fault.todo, where=self.path, line=first + len(block)) from None
        except OSError as fault:
            what = f"cannot be read ({fault.strerror or fault})"
            raise IdgrError(what, "check the path and its permissions", where=self.path) from None
        if not seen and not self.allow_empty:
            raise IdgrError("is empty", "give a file with at least one record", where=self.path)


def read_jsonl(
    path: str | os.PathLike[str], parse: Callable[[dict[str, Any]], T], *, allow_empty: bool = False
) -> Iterator[T]:
    """Stream the records of a JSON Lines file.

    Args:
        path: a file, a `.gz` file, or `-`.
        parse: makes a record of a JSON object; a `ValueError("what is wrong; what to do")` from it is reported with
            file and line.
        allow_empty: whether a file without records is accepted.

    Raises:
        IdgrError: naming the file and line of the first malformed record.
    """
    lines = Lines(path, allow_empty=allow_empty)
    for number, line in lines:
        value = parse_object(lines.path, number, line)
        try:
            record = parse(value)
        except ValueError as fault:
            raise faulty_line(fault, lines.path, number) from None
        yield record


def parse_object(path: str, number: int, line: bytes) -> dict[str, Any]:
    """The JSON object that a line holds. Raises `IdgrError` with file and line if there is none."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as fault:
        raise IdgrError(
            f"not valid JSON ({fault.msg})", "write one JSON object a line, in UTF-8", where=path, line=number
        ) from None
    if not isinstance(value, dict):
        raise IdgrError(
            f"a JSON {type(value).__name__}, not an object",
            'write one object a line, such as {"item_id": …}',
            where=path,
            line=number,
        )
    return value


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
