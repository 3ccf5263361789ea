"""One writer at a time for an output: a second run that would write to the same place is refused.

The lock is the kernel's, on a hidden file beside the output, so it ends with its process however that ends; a file that
a killed process left holds nobody up. The file goes away with the lock, which the `filelock` package does not do on
Unix.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from idgr.errors import IdgrError

_TOLD = 400  # bytes of the holder's words that are shown


def lock_path(output: Path) -> Path:
    """The file that is locked while `output` is written."""
    return output.with_name(f".{output.name}.lock")


@contextmanager
def hold(output: Path, shown: Path | None = None) -> Iterator[None]:
    """Keep `output` to this process until the block ends.

    Args:
        output: a file or folder whose parent exists; it need not exist itself.
        shown: the name of it that the user gave, for messages.

    Raises:
        IdgrError: another process, or another block of this one, holds it.
        OSError: the folder beside it cannot be written.
    """
    path = lock_path(output)
    handle = _lock(path, shown or output)
    try:
        os.ftruncate(handle, 0)
        words = " ".join(["idgr", *sys.argv[1:]])
        holder = f"process {os.getpid()} (`{words}`, since {time.strftime('%Y-%m-%d %H:%M:%S')})"
        os.write(handle, holder.encode(errors="backslashreplace")[:_TOLD])
        yield
    finally:
        # Before the lock is given up: whoever has it open already sees that it has no name any more, and opens anew.
        path.unlink(missing_ok=True)
        os.close(handle)


def _lock(path: Path, output: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, _TOLD).decode(errors="replace") or "another process"
            os.close(handle)
            raise IdgrError(
                f"is being written by {holder}", "wait until it is done, or give another -o", where=output
            ) from None
        except BaseException:
            os.close(handle)
            raise
        try:
            same = os.path.samestat(os.fstat(handle), os.stat(path))  # noqa: PTH116 - beside fstat
        except FileNotFoundError:
            same = False
        if same:
            return handle
        os.close(handle)  # its holder has just let go and removed it
