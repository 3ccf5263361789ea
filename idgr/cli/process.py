"""What `idgr` asks of its process before any command: open descriptors, streams that tell faults apart, signals."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from types import FrameType

from idgr.formats.streams import ClosedOutput, DataFile, LogFile

STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_REPEATED_SECONDS = 2.0


class SignalledError(BaseException):
    """A signal asks to stop: raised wherever the main thread is, so that nothing half-written is left behind.

    Like `KeyboardInterrupt` no `Exception`, which a library might take for a fault of its own.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def guard_streams() -> None:
    """Make the standard streams safe to write to; those that someone else has put in their place stay.

    A descriptor that is closed is opened on nothing, since the next file would take its number and what is meant for
    the user would land in it. Standard input and output that were closed are still told as such where they are asked
    for. A log that nobody can read, or that finds no room, is dropped; data are not.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = ClosedOutput()
    elif sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        # Whatever the locale (C among them): help holds more than ASCII, and paths keep the bytes that they came with.
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(DataFile(1, "wb", closefd=False)),
            encoding="utf-8",
            errors="surrogateescape",
            line_buffering=sys.stdout.line_buffering,
            write_through=sys.stdout.write_through,
        )
    if sys.stderr is sys.__stderr__:
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(LogFile(2, "wb", closefd=False)),
            encoding="utf-8" if sys.stderr is None else sys.stderr.encoding,
            errors="backslashreplace",
            line_buffering=True,
        )


def stop_on_signals() -> None:
    """Raise `SignalledError` on signals that would end the process at once; those that are ignored (`nohup`) stay so.

    Signals often come twice, to the process and to its group; the second must not cut off the tidying up.
    """
    last = -_REPEATED_SECONDS

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before >= _REPEATED_SECONDS:
            raise SignalledError(number)

    for number in STOPPING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)
