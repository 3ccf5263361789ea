"""Opens an input: a file, a gzip file whatever its name, or standard input; refuses what no command reads.

What a file is its first bytes tell (`idgr.formats.file_kinds`), in one place for all commands.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from gzip import BadGzipFile
from typing import IO, cast

from isal import isal_zlib

from idgr.errors import IdgrError
from idgr.formats.file_kinds import GZIP, HEAD, binary_kind
from idgr.formats.limits import bounded
from idgr.formats.streams import STDIN

# What a damaged gzip stream raises while it is read.
GZIP_FAULTS: tuple[type[Exception], ...] = (
    EOFError,
    zlib.error,
    cast(type[Exception], isal_zlib.IsalError),
    BadGzipFile,
)


@contextmanager
def open_bytes(path: str) -> Iterator[IO[bytes]]:
    """The bytes of a file or of standard input (`-`), unpacked if they are gzip, within bounds (`limits`).

    Of standard input no more is read ahead than what it gives at once.

    Raises:
        IdgrError: the file is of a kind that no command reads, or standard input is closed.
        OSError: the file cannot be opened or read.
    """
    once = None if is_regular(path) else path  # what can be read only once is hashed on the way
    with ExitStack() as stack:
        raw = stack.enter_context(_raw(path))
        head = raw.peek(HEAD)[:HEAD]
        _refuse(head, path)
        packed = head.startswith(GZIP)
        if not packed:
            if path.endswith(".gz") and head:
                raise IdgrError(
                    "damaged gzip data (it does not begin as gzip does)",
                    "fetch it again, or give it a name without .gz if it is not compressed",
                    where=path,
                    line=1,
                )
            yield stack.enter_context(bounded(cast(IO[bytes], _Looked(raw)), hashed=once))
            return
        from isal import igzip_threaded  # three times the rate of the standard library's gzip, on a core of its own

        # By its name, where it has one that can be opened again, so that the unpacking core reads it in large blocks.
        unpacked = igzip_threaded.open(raw if once else path, "rb", threads=1)
        stream = stack.enter_context(bounded(unpacked, packed=None if once else path, hashed=once))
        inner = cast(io.BufferedReader, stream).peek(HEAD)[:HEAD]
        _refuse(inner, path, packed=True)
        yield stream


class _Looked(io.RawIOBase):
    """A stream that was looked into: gives what was seen first, since `readinto1` itself would wait for more."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._seen = len(stream.peek(HEAD))

    def readinto1(self, buffer: memoryview) -> int:
        n = self._stream.readinto1(buffer[: self._seen] if self._seen else buffer)
        self._seen = max(0, self._seen - n)
        return n

    def close(self) -> None:
        self._stream.close()
        super().close()


def is_regular(path: str) -> bool:
    """Whether a file can be read more than once: it is none of standard input, a pipe or a device."""
    try:
        return path != STDIN and stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - a name, not a Path
    except OSError:
        return False


def damaged_line(path: str) -> int | None:
    """The first line that a gzip file does not hold whole, which the fast reader cannot tell: it loses a block.

    None where the file cannot be read again.
    """
    if not is_regular(path):
        return None
    lines, stream = 1, zlib.decompressobj(zlib.MAX_WBITS | 16)
    with open(path, "rb") as packed, suppress(zlib.error):
        while data := packed.read(1 << 16):
            while data:
                lines += stream.decompress(data).count(b"\n")
                data = stream.unused_data
                if stream.eof:
                    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    return lines


def _raw(path: str) -> io.BufferedReader:
    if path != STDIN:
        return open(path, "rb")
    if sys.stdin is None:
        raise IdgrError("is closed", "give a file, or something on standard input", where=path)
    stream = sys.stdin.buffer
    return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, stream))


def _refuse(head: bytes, path: str, *, packed: bool = False) -> None:
    if (kind := binary_kind(head, path, packed=packed)) is not None:
        raise IdgrError(kind.what, kind.todo, where=path)
