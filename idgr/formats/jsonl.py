"""JSON Lines in and out: streams, gzip, standard input and output, errors with `path:line`, atomic replacement.

Knows bytes and lines; what a record means is told by `idgr.formats.records`.
"""

from __future__ import annotations

import codecs
import os
import re
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from gzip import BadGzipFile
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson
from isal import isal_zlib

from idgr.errors import DISK_FAULTS, IdgrError, faulty_line
from idgr.formats.limits import TooLargeError, bounded
from idgr.formats.lock import hold

T = TypeVar("T")

STDIN = STDOUT = "-"


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
            if isinstance(fault, BrokenPipeError):
                raise
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


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether an output is standard output, a device or a named pipe: written to, never replaced, nothing beside it."""
    if os.fspath(path) == STDOUT:
        return True
    try:
        mode = Path(path).stat().st_mode
    except OSError:  # there is nothing yet, or it cannot be seen, which opening it will tell
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary stream whose bytes appear under `path` only if the block ends without an exception.

    `-` is standard output, flushed at the end. A name that ends in `.gz` is compressed, with no time
    stamp inside, so equal records give equal bytes. A device or named pipe is written as it is.

    Raises:
        IdgrError: the folder cannot be made or written, or another run writes the file.
    """
    name = os.fspath(path)
    final = Path(name)
    if name == STDOUT or is_stream(final):
        with _disk_faults(final):
            if name != STDOUT:
                with open(final, "wb") as stream:
                    yield stream
                return
            if sys.stdout is None:
                raise IdgrError("is closed", "give the name of a file to -o", where="standard output")
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    with _disk_faults(final), ExitStack() as held:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.is_dir():
                raise IdgrError("is a folder", "give the name of a file to -o", where=final)
            held.enter_context(hold(final))
            _remove(_leftovers(final, ".tmp"))
            handle, temporary = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent)
        except OSError as fault:
            raise _cannot_write(final, fault) from None
        try:
            with os.fdopen(handle, "wb") as raw:
                if final.suffix == ".gz":
                    from isal import igzip

                    with igzip.IGzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                        yield packed
                else:
                    yield raw
                raw.flush()
                os.fsync(raw.fileno())
            Path(temporary).chmod(0o666 & ~_umask())
            os.replace(temporary, final)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def replace_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A fresh folder that takes the name `path` only if the block ends without an exception.

    An earlier output of idgr under that name (it holds `run.json`) is replaced whole; any other
    non-empty folder is left alone. Replacing a folder takes two renames. A run that was killed between them left the
    earlier output under a hidden name; it is put back before anything else is done.

    Raises:
        IdgrError: the folder holds something that is not idgr's, cannot be written, or another run writes it.
    """
    final = Path(path)
    with _disk_faults(final), ExitStack() as held:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold(final))
            restore_folder(final)
            if final.exists() and not final.is_dir():
                raise IdgrError("is a file, not a folder", "give the name of a folder to -o", where=final)
            if final.is_dir() and any(final.iterdir()) and not (final / "run.json").is_file():
                raise IdgrError("is not empty and was not written by idgr", "give another folder to -o", where=final)
            fresh = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent))
        except OSError as fault:
            raise _cannot_write(final, fault) from None
        try:
            yield fresh
            fresh.chmod(0o777 & ~_umask())
            if final.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".old", dir=final.parent))
                os.replace(final, old / "old")
                os.replace(fresh, final)
                shutil.rmtree(old)
            else:
                os.replace(fresh, final)
        except BaseException as fault:
            shutil.rmtree(fresh, ignore_errors=True)
            if isinstance(fault, IdgrError) and fault.where is not None and Path(fault.where).is_relative_to(fresh):
                place = final / Path(fault.where).relative_to(fresh)  # the name that a user knows
                raise IdgrError(fault.what, fault.todo, where=place, line=fault.line) from None
            raise


def restore_folder(final: Path) -> None:
    """Put back what a run that was killed while it replaced `final` left, and remove what it had not finished.

    Only for who holds `final` (`idgr.formats.lock`).
    """
    for leftover in _leftovers(final, ".old"):
        if not final.exists() and (leftover / "old").is_dir():
            os.replace(leftover / "old", final)
    _remove(_leftovers(final, ".old") + _leftovers(final, ".tmp"))


def _leftovers(final: Path, suffix: str) -> list[Path]:
    """What `tempfile` made for this name: eight characters stand between it and the suffix."""
    name = re.compile(re.escape(f".{final.name}.") + "[a-z0-9_]{8}" + re.escape(suffix))
    return [path for path in final.parent.iterdir() if name.fullmatch(path.name) and not path.is_symlink()]


def _remove(leftovers: list[Path]) -> None:
    for path in leftovers:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _disk_faults(path: Path) -> Iterator[None]:
    """Tell a full, broken or read-only disk in one line."""
    try:
        yield
    except OSError as fault:
        if fault.errno not in DISK_FAULTS:
            raise
        raise _cannot_write(path, fault) from None
    except Exception as fault:
        # Weights and vocabularies are written by Rust, whose errors are of other types but end in the system's number.
        found = re.search(r"\(os error (\d+)\)", str(fault))
        if isinstance(fault, IdgrError) or found is None or int(found[1]) not in DISK_FAULTS:
            raise
        raise _cannot_write(path, OSError(int(found[1]), os.strerror(int(found[1])))) from None


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _cannot_write(path: Path, fault: OSError) -> IdgrError:
    place = "standard output" if path.name == STDOUT else path
    what = f"cannot be written ({fault.strerror or fault})"
    return IdgrError(what, "choose another -o or free its disk", where=place)
