"""A contender in a fresh process: how long it took and how much memory that process ever held."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from idgr.engine.memory import peak_mib
from idgr.errors import IdgrError


@dataclass(frozen=True)
class Measurement:
    """What one run gave: its result, seconds of wall clock and of processors, and peak resident memory in MiB."""

    result: Any
    seconds: float
    cpu_seconds: float
    peak_mib: float


def measure(make: Callable[[], Callable[..., Any]], *arguments: Any) -> Measurement:
    """Run `make()(*arguments)` in a new process; the time is that of the call, without `make` and its imports.

    Args:
        make: a function at the top level of a module, which does the imports and returns what is to be timed.

    Raises:
        IdgrError: the process ended without a result.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, make, arguments))
    process.start()
    theirs.close()
    try:
        measured = ours.recv()
    except EOFError:
        process.join()
        raise IdgrError(
            f"the contender {make.__name__} ended with code {process.exitcode}", "see its message above"
        ) from None
    process.join()
    return Measurement(*measured)


def _run(pipe: Connection, make: Callable[[], Callable[..., Any]], arguments: tuple[Any, ...]) -> None:
    timed = make()
    started, worked = time.perf_counter(), time.process_time()
    result = timed(*arguments)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    pipe.send((result, seconds, cpu_seconds, peak_mib()))
