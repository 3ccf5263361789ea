"""What a user sees while work goes on: a bar on a terminal, a log line every so often elsewhere. All on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

LOG_EVERY_SECONDS = 30.0


def log(message: str) -> None:
    """Print a line with the time of day to standard error; of several processes only the first does."""
    if sys.stderr is None or not is_first_process():  # without one, `print` would take standard output
        return
    told = message.encode(errors="backslashreplace").decode()  # names of files need not be UTF-8
    print(f"{time.strftime('%H:%M:%S')} {told}", file=sys.stderr, flush=True)


def progress(iterable: Iterable[T], label: str, *, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield from `iterable` while showing how far it has come.

    Args:
        label: what is being done, such as "gen-ids".
        total: the number of elements where `len` does not tell.
        unit: the name of an element, such as "items".
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if sys.stderr is None or not is_first_process():
        yield from iterable
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(iterable, desc=label, total=total, unit=f" {unit}", file=sys.stderr, leave=False)
        return
    started = last = time.monotonic()
    for done, element in enumerate(iterable):
        yield element
        now = time.monotonic()
        if now - last >= LOG_EVERY_SECONDS:
            last = now
            of = f"/{total}" if total is not None else ""
            log(f"{label}: {done + 1}{of} {unit}, {(done + 1) / (now - started):.1f} {unit}/s")


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher such as torchrun started."""
    return os.environ.get("RANK", "0") == "0"
