"""What an output may take the place of, looked at before the work. Nothing is made or changed here.

A folder is replaced whole, so all that lies in it must be of the same command: its `run.json` lists what that wrote.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from idgr.errors import IdgrError, UsageError
from idgr.formats.streams import STDOUT, closed_output, is_stdout_closed, is_stream

RECORD, LOG = "run.json", "log.jsonl"
_MOUNTS = Path("/proc/self/mountinfo")

Name = str | os.PathLike[str]


def final_place(path: Name) -> Path:
    """The absolute name of an output, which stays right wherever the process goes. A link is not followed.

    Raises:
        UsageError: the name tells no folder or file of its own (``""``, `.`, `..`, `/`).
    """
    place = Path(path)
    if place.name in ("", ".."):
        raise UsageError(f"-o {os.fspath(path)!r} is no name of its own", "give the name of a new file or folder to -o")
    try:
        return place.parent.resolve() / place.name
    except (OSError, RuntimeError) as fault:  # the current folder is gone; links in a circle
        raise cannot_write(place, fault) from None


def check_file(path: Name) -> None:
    """Raise `IdgrError` where a file cannot be written: it is a folder, or there is no place for it."""
    if is_stream(path):
        if os.fspath(path) == STDOUT and is_stdout_closed():
            raise closed_output()
        return
    if Path(path).is_dir():
        raise IdgrError("is a folder", "give the name of a file to -o", where=path)
    _check_parent(final_place(path), path)


def check_folder(path: Name, command: str | None = None, inputs: Iterable[Name | None] = ()) -> Path:
    """The absolute name of a folder that may be written, and replaced if it is there.

    Args:
        path: the folder; a link to one is itself replaced, and what it names is left alone.
        command: who writes it, such as "prep jsonl"; the first word must be that of who wrote what is there. None for
            a folder that any command may have written.
        inputs: what the command reads; names that are no files or folders are passed over.

    Raises:
        UsageError: the name is none of its own, or an input or the current folder lies in what would be replaced.
        IdgrError: something else than an earlier output of this command lies there, or it cannot be written.
    """
    final = final_place(path)
    if is_stream(path) or (final.exists() and not final.is_dir()):
        raise IdgrError("is a file, not a folder", "give the name of a folder to -o", where=path)
    try:
        if final.is_symlink() or not final.is_dir():
            if final.is_dir() and any(final.iterdir()) and not (final / RECORD).is_file():
                raise _not_ours(path)
            _check_parent(final, path)
            return final
        check_apart(path, inputs)
        if Path.cwd().resolve().is_relative_to(final):
            what = f"-o {os.fspath(path)} is the current folder, or holds it"
            raise UsageError(what, "run idgr from another folder")
        _check_owner(final, path, command)
    except OSError as fault:
        raise cannot_write(Path(path), fault) from None
    if final in mount_points():
        raise IdgrError("is a mount point, which cannot be replaced", "give a folder inside it to -o", where=path)
    _check_parent(final, path)
    return final


def check_apart(path: Name, inputs: Iterable[Name | None]) -> None:
    """Raise `UsageError` where an input is a folder's that will be written, or lies in it; see `check_folder`."""
    final = final_place(path)
    for name in inputs:
        if name is not None and Path(name).exists() and Path(name).resolve().is_relative_to(final):
            what = f"-o {os.fspath(path)} would take the place of {os.fspath(name)}, which is read"
            raise UsageError(what, "give another folder to -o")


def foreign_in(folder: Path) -> str | None:
    """The first file, link or empty folder in a folder that its `run.json` does not list.

    Raises:
        OSError: a folder cannot be looked into.
    """
    _, outputs = _listing(folder)
    known = {*outputs, RECORD, LOG}
    return min((name for name in _names(folder) if _spelled(name) not in known), default=None)


def mount_points() -> set[Path]:
    """Where other file systems, or folders of this one, are mounted; empty where the system does not tell."""
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return set()
    places = (re.sub(rb"\\(\d{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4]) for line in lines)
    return {Path(os.fsdecode(place)) for place in places}


def cannot_write(path: Path, fault: Exception) -> IdgrError:
    """The error for an output that the system refuses."""
    place = "standard output" if path.name == STDOUT else path
    what = f"cannot be written ({getattr(fault, 'strerror', None) or fault})"
    return IdgrError(what, "choose another -o or free its disk", where=place)


def _check_owner(final: Path, path: Name, command: str | None) -> None:
    if not any(final.iterdir()):
        return
    if not (final / RECORD).is_file():
        raise _not_ours(path)
    maker, _ = _listing(final)
    if maker is None:
        what = f"its {RECORD} does not tell which command wrote what is in it"
        raise IdgrError(what, "give another folder to -o, or move this one away", where=path)
    if command is not None and maker.split()[0] != command.split()[0]:
        what = f"holds another output of idgr, made by `idgr {maker}`"
        raise IdgrError(what, "give another folder to -o", where=path)
    if (foreign := foreign_in(final)) is not None:
        what = f"holds {foreign}, which `idgr {maker}` did not write"
        raise IdgrError(what, "move that elsewhere, or give another folder to -o", where=path)


def _listing(folder: Path) -> tuple[str | None, set[str]]:
    """Which command wrote a folder, and which files; None and nothing where no record tells."""
    try:
        record = orjson.loads((folder / RECORD).read_bytes())
        maker, outputs = record["command"], record["outputs"]
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        return None, set()
    if not (isinstance(maker, str) and maker.split() and isinstance(outputs, dict)):
        return None, set()
    return maker, set(outputs)


def _not_ours(path: Name) -> IdgrError:
    return IdgrError("is not empty and was not written by idgr", "give another folder to -o", where=path)


def _check_parent(final: Path, path: Name) -> None:
    """Whether something can be written beside `final`, or where its parents can be made."""
    nearest = next(parent for parent in final.parents if os.path.lexists(parent))
    number = None
    if not nearest.is_dir():
        number = errno.ENOTDIR
    elif not os.access(nearest, os.W_OK | os.X_OK):
        number = errno.EROFS if os.statvfs(nearest).f_flag & os.ST_RDONLY else errno.EACCES
    if number is not None:
        raise cannot_write(Path(path), OSError(number, os.strerror(number)))


def _names(folder: Path) -> Iterator[str]:
    """The relative names of all files, links and empty folders below a folder."""

    def refuse(fault: OSError) -> None:
        raise fault

    for place, folders, files in os.walk(folder, onerror=refuse):
        links = [name for name in folders if Path(place, name).is_symlink()]
        yield from (Path(place, name).relative_to(folder).as_posix() for name in (*files, *links))
        if not folders and not files and Path(place) != folder:
            yield Path(place).relative_to(folder).as_posix() + "/"


def _spelled(name: str) -> str:
    """A name as `run.json` has it: what is not UTF-8 is spelled out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
