"""Several processes of one command on this machine: `python -m idgr.engine.launch N COMMAND ARGS…`.

What torchrun does, but for how it ends: each process hears a signal that asks to stop, writes its checkpoint if it is
the one that writes, and the exit code is that of the command. torchrun ends with 1 then, and by SIGUSR1 at once.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from idgr.errors import UsageError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
# When one process has ended with a fault, the others may wait for it for ever; a checkpoint is written by then.
GRACE_SECONDS = 120.0
_LOOK_SECONDS = 0.05


def launch(n: int, command: Sequence[str], grace: float = GRACE_SECONDS) -> int:
    """Run `idgr COMMAND…` as n processes that train one model, and wait for them.

    Args:
        n: how many; on a machine with GPUs, one for each.
        command: the words behind `idgr`.
        grace: seconds that the others have when one has ended with a fault; then they are killed.

    Returns:
        The exit code of the process that was the first to end otherwise than with 0, 128 and the signal's number if a
        signal ended it; 0 if all ended well.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with _passing_on(processes):
            for number in range(n):
                numbered = shared | {"RANK": str(number), "LOCAL_RANK": str(number)}
                processes.append(subprocess.Popen([sys.executable, "-m", "idgr", *command], env=numbered))
            return _wait(processes, grace)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def _wait(processes: list[subprocess.Popen[bytes]], grace: float) -> int:
    first, deadline = 0, float("inf")
    while time.monotonic() < deadline:
        codes = [process.poll() for process in processes]
        bad = [code for code in codes if code]
        if bad and not first:
            first, deadline = (bad[0] if bad[0] > 0 else 128 - bad[0]), time.monotonic() + grace
        if None not in codes:
            break
        time.sleep(_LOOK_SECONDS)
    return first


@contextmanager
def _passing_on(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass a signal that asks to stop on to the processes, inside the block; one that comes twice is one for them."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in [*processes]:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(words: Sequence[str]) -> int:
    """Run `words`, N and a command.

    Returns:
        The exit code.
    """
    if len(words) < 2 or not (words[0].isascii() and words[0].isdecimal() and 0 < int(words[0]) < 10_000):
        fault = UsageError("no number of processes and command given", "python -m idgr.engine.launch N COMMAND ARGS…")
        print(f"idgr: error: {fault}", file=sys.stderr)
        return fault.exit_code
    return launch(int(words[0]), words[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
