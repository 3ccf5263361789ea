"""Outputs that are streams: standard output, descriptors by their names under /dev, devices and named pipes.

A reader that goes away is told apart from every other fault here, and nowhere else.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from idgr.errors import IdgrError

STDIN = STDOUT = "-"

_DESCRIPTORS = re.compile(r"(?:/dev/fd|/proc/self/fd|/proc/thread-self/fd)/(\d+)")
_NAMED = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_LINKS = 40  # followed at most, as the system does


class ReaderGoneError(Exception):
    """Who read the data has had enough (`| head`), which is no fault; nothing more can be written there."""


class DataFile(io.FileIO):
    """What data are written to. After its first fault it takes and drops the rest, so that closing it is no second one.

    Raises:
        ReaderGoneError: nobody reads it any more.
        IdgrError: its disk or device takes nothing more.
    """

    told: str | os.PathLike[str] = "standard output"

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # a pipe that does not wait, and is full
                select.select([], [self], [])
        except BrokenPipeError:
            self._give_up()
            raise ReaderGoneError from None
        except OSError as fault:
            self._give_up()
            what = f"cannot be written ({fault.strerror or fault})"
            raise IdgrError(what, "free its disk, or give -o a file elsewhere", where=self.told) from None
        return written

    def _give_up(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


class LogFile(io.FileIO):
    """What is told to the user on the way: work goes on where nobody can be told."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


class ClosedOutput(io.TextIOBase):
    """Standard output where the process was started without one (`>&-`): nothing may be lost there unsaid."""

    def write(self, text: str) -> int:
        raise closed_output()


def closed_output() -> IdgrError:
    """The error for a process that was started without a standard output."""
    return IdgrError("is closed", "give the name of a file to -o", where="standard output")


def is_stdout_closed() -> bool:
    """Whether the process was started without a standard output."""
    return sys.stdout is None or isinstance(sys.stdout, ClosedOutput)


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether an output is standard output, a device or a named pipe: written to, never replaced, nothing beside it.

    The names of this process's descriptors (`/dev/stdout`, `/dev/fd/3`, links to them) are streams too, whatever file
    is behind them.
    """
    if os.fspath(path) == STDOUT or _descriptor(path) is not None:
        return True
    try:
        mode = Path(path).stat().st_mode
    except OSError:  # there is nothing yet, or it cannot be seen, which opening it will tell
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def open_stream(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The stream that an output names (see `is_stream`), flushed at the end.

    A descriptor is written on from where it is, not opened anew.

    Raises:
        IdgrError: it is closed, or not open for writing.
        OSError: it cannot be opened.
        ReaderGoneError: nobody reads it any more.
    """
    number = 1 if os.fspath(path) == STDOUT else _descriptor(path)
    if number == 1:
        if is_stdout_closed():
            raise closed_output()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    raw = DataFile(path if number is None else _duplicate(number, path), "wb")
    raw.told = path
    with io.BufferedWriter(raw) as stream:
        yield stream


def _duplicate(number: int, path: str | os.PathLike[str]) -> int:
    try:
        writable = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        raise IdgrError("is closed", "give the name of a file to -o", where=path) from None
    if not writable:
        raise IdgrError("is open for reading only", "give the name of a file to -o", where=path)
    return os.dup(number)


def _descriptor(path: str | os.PathLike[str]) -> int | None:
    """Which of this process's descriptors a name stands for, through links; None where it is another name."""
    place = os.fspath(path)
    for _ in range(_LINKS):
        if place in _NAMED:
            return _NAMED[place]
        if found := _DESCRIPTORS.fullmatch(place):
            return int(found[1])
        folder, name = os.path.split(place)
        own = rf"/dev/fd|/proc/{os.getpid()}(/task/\d+)?/fd"
        if name.isascii() and name.isdigit() and re.fullmatch(own, os.path.realpath(folder)):
            return int(name)
        try:
            place = os.path.join(folder, os.readlink(place))  # noqa: PTH115, PTH118 - a link's words, not resolved
        except OSError:
            return None
    return None
