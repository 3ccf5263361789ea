"""How much an input may hold: bounds on one line and on what a gzip file unpacks to.

A few kilobytes of gzip can unpack to gigabytes, in one line or in many. The bounds are far above honest data, and
environment variables raise them.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from typing import IO, Any

from idgr.errors import UsageError

LINE_VARIABLE, LINE_MIB = "IDGR_MAX_LINE_MIB", 64
RATIO_VARIABLE, RATIO = "IDGR_MAX_GZIP_RATIO", 200
_NOT_COUNTED = 256 << 20  # a file that unpacks to less than this is no bomb, whatever its ratio
_CHUNK = 1 << 17


class TooLargeError(Exception):
    """A stream is out of bounds: what is too large, and what to do."""

    def __init__(self, what: str, todo: str) -> None:
        self.what, self.todo = what, todo
        super().__init__(what)


_digests: dict[str, str] = {}


def digest_of_stream(name: str) -> str | None:
    """The SHA-256 of what a stream held that this process has read to its end; None for any other."""
    return _digests.get(name)


def bounded(stream: IO[bytes], packed: str | None = None, hashed: str | None = None) -> IO[bytes]:
    """A stream of the same bytes that raises `TooLargeError` where they are out of bounds. Closing it closes `stream`.

    A line may be longer than the bound by a chunk of 128 KiB, since chunks are looked at, not lines.

    Args:
        stream: what to read.
        packed: the gzip file that `stream` unpacks, if it does.
        hashed: the name under which `digest_of_stream` shall know the bytes, of what can be read only once.

    Raises:
        UsageError: an environment variable holds no number.
    """
    try:
        line = _number(LINE_VARIABLE, LINE_MIB) << 20
        ratio, size = _number(RATIO_VARIABLE, RATIO), 0
        if packed is not None:
            found = os.stat(packed)  # noqa: PTH116 - a name, not a Path
            size = found.st_size if stat.S_ISREG(found.st_mode) else 0  # a pipe cannot tell how much it holds
        return io.BufferedReader(_Bounded(stream, line, ratio, size, hashed), _CHUNK)
    except BaseException:
        stream.close()
        raise


class _Bounded(io.RawIOBase):
    """Counts what it passes on: bytes in all, and those behind the last line end."""

    def __init__(self, stream: Any, line_limit: int, ratio: int, packed_size: int, hashed: str | None) -> None:
        self._name, self._digest = hashed, None if hashed is None else hashlib.sha256()
        if hashed is not None:
            _digests.pop(hashed, None)
        self._stream, self._line_limit, self._ratio, self._packed_size = stream, line_limit, ratio, packed_size
        self._total = self._in_line = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n: int = self._stream.readinto1(buffer)
        end = bytes(memoryview(buffer)[:n]).rfind(b"\n")
        self._in_line = n - end - 1 if end >= 0 else self._in_line + n
        self._total += n
        if self._name is not None and self._digest is not None:
            self._digest.update(memoryview(buffer)[:n])
            if not n:
                _digests[self._name] = self._digest.hexdigest()
        if self._in_line > self._line_limit:
            raise TooLargeError(
                f"a line of more than {self._line_limit >> 20:,} MiB",
                f"mend the file, or set {LINE_VARIABLE} if it is meant so",
            )
        if self._packed_size and self._total > max(_NOT_COUNTED, self._ratio * self._packed_size):
            raise TooLargeError(
                f"unpacks to more than {self._ratio} times its size",
                f"mistrust it, or set {RATIO_VARIABLE} if it is meant so",
            )
        return n

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _number(variable: str, usual: int) -> int:
    text = os.environ.get(variable)
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) == int(text)):
        raise UsageError(f"the environment variable {variable} is {text!r}", "set it to a whole number above 0")
    return int(text)
