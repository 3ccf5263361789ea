"""Folders of parts: which files are parts, and which of them are Parquet."""

from __future__ import annotations

import os
from pathlib import Path

from idgr.errors import IdgrError
from idgr.formats.opening import is_regular

_MAGIC = b"PAR1"


def is_folder(path: str) -> bool:
    """Whether a path is that of a folder; a name that is too long is none."""
    return os.path.isdir(path)  # noqa: PTH112 - a Path raises at a name that is too long


def part_files(folder: str, kinds: str = "Parquet or JSON Lines") -> list[str]:
    """The paths of all parts below a folder, in the order of their names.

    Args:
        kinds: what they may be, for the error.

    Raises:
        IdgrError: there are none.
    """
    root = Path(folder)
    found = [
        str(file)
        for file in sorted(root.rglob("*"))
        if file.is_file() and not any(name.startswith(("_", ".")) for name in file.relative_to(root).parts)
    ]
    if not found:
        raise IdgrError("holds no files", f"give a folder of {kinds} files", where=folder)
    return found


def is_parquet(path: str) -> bool:
    """Whether a file begins as Parquet does; not where it cannot be read, of which `Lines` tells why."""
    if not is_regular(path):
        return False
    try:
        with open(path, "rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False
