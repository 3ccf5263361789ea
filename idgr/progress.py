"""What a user sees while work goes on: a bar on a terminal, a log line every so often elsewhere. All on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")

FIRST_LOG_SECONDS = 10.0
LOG_EVERY_SECONDS = 30.0


def log(message: str) -> None:
    """Print a line with the time of day to standard error; of several processes only the first does."""
    if sys.stderr is None or not is_first_process():  # without one, `print` would take standard output
        return
    told = message.encode(errors="backslashreplace").decode()  # names of files need not be UTF-8
    print(f"{time.strftime('%H:%M:%S')} {told}", file=sys.stderr, flush=True)


class Progress:
    """Shows how far some work has come, inside a `with` block: how much is done, of how much, and the time left.

    Args:
        label: what is being done, such as "gen-ids".
        total: how much there is to do; None where nobody knows, and no time left is told.
        unit: the name of what is counted, such as "items".
    """

    def __init__(self, label: str, *, total: int | None = None, unit: str = "it") -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self._started = time.monotonic()
        self._next_log = self._started + FIRST_LOG_SECONDS
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> Progress:
        if is_first_process() and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=self.label, total=self.total, unit=f" {self.unit}", file=sys.stderr, leave=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, n: int = 1) -> None:
        """So much more is done."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
            return
        now = time.monotonic()
        if now >= self._next_log:
            self._next_log = now + LOG_EVERY_SECONDS
            log(f"{self.label}: {self._so_far(now - self._started)}")

    def _so_far(self, seconds: float) -> str:
        of = f"/{self.total}" if self.total is not None else ""
        line = f"{self.done}{of} {self.unit}, {self.done / seconds:.1f} {self.unit}/s"
        if self.total is None or not 0 < self.done <= self.total:
            return line
        minutes, rest = divmod(round(seconds * (self.total - self.done) / self.done), 60)
        return f"{line}, {minutes // 60}:{minutes % 60:02}:{rest:02} left"


def progress(iterable: Iterable[T], label: str, *, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield from `iterable` while showing how far it has come; an element is done when the next one is asked for.

    Args:
        label, unit: see `Progress`.
        total: the number of elements where `len` does not tell.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with Progress(label, total=total, unit=unit) as shown:
        for element in iterable:
            yield element
            shown.advance()


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher such as torchrun started."""
    return os.environ.get("RANK", "0") == "0"
