"""Outputs that take their name only when they are whole: one file, or one folder.

One writer at a time (`idgr.formats.lock`); what lies under the name must be replaceable (`idgr.formats.claims`), and a
kill at any moment leaves the earlier output or the new one (`idgr.formats.swap`).
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from idgr.errors import DISK_FAULTS, IdgrError
from idgr.formats.claims import Name, cannot_write, check_file, check_folder, final_place, foreign_in
from idgr.formats.lock import hold
from idgr.formats.streams import ReaderGoneError, is_stream, open_stream
from idgr.formats.swap import put_in_place, settle, sync_folder, umask
from idgr.progress import log

_TEMPORARY = "[a-z0-9_]{8}"  # what `tempfile` puts between a name and its suffix


@contextmanager
def replace_file(path: Name) -> Iterator[IO[bytes]]:
    """A binary stream whose bytes appear under `path` only if the block ends without an exception.

    `-` is standard output, flushed at the end. A name that ends in `.gz` is compressed, with no time
    stamp inside, so equal records give equal bytes. A device, a named pipe or the name of a descriptor
    (`/dev/stdout`) is written as it is.

    Raises:
        IdgrError: the folder cannot be made or written, or another run writes the file.
        ReaderGoneError: of a stream, nobody reads it any more.
    """
    shown = Path(path)
    if is_stream(path):
        with _disk_faults(shown):
            try:
                with open_stream(path) as stream:
                    yield stream
            except OSError as fault:
                if fault.filename != os.fspath(path):
                    raise
                raise cannot_write(shown, fault) from None
        return
    check_file(path)
    final = final_place(path)
    settled_later = is_leftover(final.parent)  # in a folder that is being put together
    with _disk_faults(shown), _whole(shown), ExitStack() as held:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold(final, shown))
            _remove_leftovers(final, ".tmp")
            handle, temporary = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent)
        except OSError as fault:
            raise cannot_write(shown, fault) from None
        held.callback(Path(temporary).unlink, missing_ok=True)
        with os.fdopen(handle, "wb") as raw:
            if final.suffix == ".gz":
                from isal import igzip

                with igzip.IGzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                    yield packed
            else:
                yield raw
            raw.flush()
            os.fchmod(raw.fileno(), 0o666 & ~umask())
            if not settled_later:
                os.fsync(raw.fileno())
        try:
            Path(temporary).replace(final)
            if not settled_later:
                sync_folder(final.parent)
        except OSError as fault:
            raise cannot_write(shown, fault) from None


@contextmanager
def replace_folder(path: Name, command: str | None = None, inputs: Iterable[Name | None] = ()) -> Iterator[Path]:
    """A fresh folder that takes the name `path` only if the block ends without an exception.

    An earlier output of the same command under that name is replaced whole; see `idgr.formats.claims.check_folder` for
    `command`, `inputs` and what is refused. If something else has come into it during the block, the earlier folder is
    kept under another name, which is told. Where a run was killed while it replaced the folder, what it left is tidied
    up first.

    Raises:
        UsageError: the output would take the place of an input or of the current folder, or has no name.
        IdgrError: the folder holds something else, cannot be written, or another run writes it.
    """
    shown = Path(path)
    final = final_place(path)
    if not final.parent.is_dir():
        check_folder(path, command, inputs)  # before anything is made
    with _disk_faults(shown), _whole(shown), ExitStack() as held:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold(final, shown))
            restore_folder(final)
            check_folder(path, command, inputs)
            held.callback(_remove_leftovers, final, ".tmp", ".old")
            fresh = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent))
        except OSError as fault:
            raise cannot_write(shown, fault) from None
        try:
            yield fresh
        except IdgrError as fault:
            if fault.where is None or not Path(fault.where).is_relative_to(fresh):
                raise
            place = shown / Path(fault.where).relative_to(fresh)  # the name that a user knows
            raise IdgrError(fault.what, fault.todo, where=place, line=fault.line) from None
        try:
            settle(fresh)
            _take_name(fresh, final)
        except OSError as fault:
            raise cannot_write(shown, fault) from None


def _take_name(fresh: Path, final: Path) -> None:
    """Put a folder in its place; what was there before stays, under a name that is told, if it is not ours alone."""
    strange = foreign_in(final) if final.is_dir() and not final.is_symlink() else None
    if strange is None:
        put_in_place(fresh, final, f".{final.name}.")
        return
    aside = f"{final.name}.kept-"
    fresh = fresh.replace(final.parent / f"{aside}{fresh.name.split('.')[-2]}")
    kept = put_in_place(fresh, final, aside)
    log(f"{strange} came into {final} meanwhile, so what was there before is kept as {kept}")


def restore_folder(final: Path) -> None:
    """Put back what a run that was killed while it replaced `final` left, and remove what it had not finished.

    Only for who holds `final` (`idgr.formats.lock`).
    """
    for leftover in _leftovers(final, ".old"):
        if not os.path.lexists(final) and os.path.lexists(leftover / "old"):
            os.replace(leftover / "old", final)
    _remove_leftovers(final, ".old", ".tmp")


def is_leftover(path: Path) -> bool:
    """Whether a name is that of an output, any one, while it is put together; a killed run may leave it."""
    return re.fullmatch(rf"\..+\.{_TEMPORARY}\.(tmp|old)", path.name, re.DOTALL) is not None


def remove(path: Path) -> None:
    """Remove a file, a link or a folder. What is not to be removed (a folder without permission) is told, and stays."""
    try:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError as fault:
        log(f"{path} is left over and cannot be removed ({fault.strerror})")


def discard(folder: Path) -> None:
    """Remove a folder at once: a kill in the midst leaves what `is_leftover` knows, not half a folder of its name."""
    hidden = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    folder.rename(hidden)  # which is empty, so it is replaced
    remove(hidden)


def _leftovers(final: Path, suffix: str) -> list[Path]:
    """What `tempfile` made for this name."""
    name = re.compile(re.escape(f".{final.name}.") + _TEMPORARY + re.escape(suffix))
    return [path for path in final.parent.iterdir() if name.fullmatch(path.name)]


def _remove_leftovers(final: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        for path in _leftovers(final, suffix):
            remove(path)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Tell that an output is not written where the reader of another one, a stream, went away before the end."""
    try:
        yield
    except ReaderGoneError:
        what = "is not written, since the reader of the other output went away before the end"
        raise IdgrError(what, "read that one to its end, or give it a file", where=path) from None


@contextmanager
def _disk_faults(path: Path) -> Iterator[None]:
    """Tell a full, broken or read-only disk in one line."""
    try:
        yield
    except OSError as fault:
        if fault.errno not in DISK_FAULTS:
            raise
        raise cannot_write(path, fault) from None
    except Exception as fault:
        # Weights and vocabularies are written by Rust, whose errors are of other types but end in the system's number.
        found = re.search(r"\(os error (\d+)\)", str(fault))
        if isinstance(fault, IdgrError) or found is None or int(found[1]) not in DISK_FAULTS:
            raise
        raise cannot_write(path, OSError(int(found[1]), os.strerror(int(found[1])))) from None
