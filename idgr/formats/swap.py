"""A folder or file takes the name of another in one step, and is on the disk before it does."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
import tempfile
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NOT_FOR_FOLDERS = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP)  # some network file systems


def exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where nothing was done.

    Some file systems and other systems than Linux cannot. Where it is forbidden for another reason, renaming tells why.
    """
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    sys.audit("os.rename", os.fspath(one), os.fspath(other), -1, -1)  # as every other renaming is announced
    done: int = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0


def put_in_place(fresh: Path, final: Path, aside: str) -> Path:
    """Give `fresh` the name `final`; what had it before lies at the path returned, beside it.

    Where the system cannot exchange names this takes two renames, and the earlier one is put back if the second fails.

    Raises:
        OSError: it cannot be done; `final` is as it was.
    """
    earlier = fresh
    if not os.path.lexists(final):
        fresh.replace(final)
    elif not exchange(fresh, final):
        earlier = Path(tempfile.mkdtemp(prefix=aside, suffix=".old", dir=final.parent)) / "old"
        final.replace(earlier)
        try:
            fresh.replace(final)
        except BaseException:
            earlier.replace(final)
            raise
    sync_folder(final.parent)
    return earlier


def settle(folder: Path) -> None:
    """Give all below a folder the permissions of new files, and see it on the disk.

    Libraries write weights for the owner alone, and leave it to the system when they reach the disk.
    """
    mask = umask()
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(place, name)
            if path.is_symlink():
                continue
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fchmod(handle, 0o666 & ~mask)
                os.fsync(handle)
            finally:
                os.close(handle)
        inherited = os.stat(place).st_mode & stat.S_ISGID  # noqa: PTH116 - a name, not a Path
        os.chmod(place, 0o777 & ~mask | inherited)  # noqa: PTH101
        sync_folder(Path(place))


def sync_folder(folder: Path) -> None:
    """See a folder's names on the disk, where the file system does that."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as fault:
        if fault.errno not in _NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(handle)


def umask() -> int:
    """The permissions that this process takes from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
