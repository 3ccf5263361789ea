"""What a run reads: hashes of files and folders, and whether an input stayed what it was while it was read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import orjson

from idgr.errors import IdgrError
from idgr.formats.jsonl import STDIN
from idgr.formats.limits import digest_of_stream

RUN_FILE = "run.json"


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, as lower-case hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_input(path: str | os.PathLike[str]) -> dict[str, str | None]:
    """Path and hash of an input as it is now: a file, a folder (its files' hashes, hashed), or a stream (no hash)."""
    name = os.fspath(path)
    if name == STDIN:
        return {"path": STDIN, "sha256": None}
    if os.path.isdir(name):  # noqa: PTH112 - a Path raises at a name that is too long; here and below
        return {"path": name, "sha256": _hash_names(hash_folder(name))}
    if os.path.isfile(name):  # noqa: PTH113
        return {"path": name, "sha256": sha256_file(name)}
    return {"path": name, "sha256": None}  # the name of a model on a hub


def hash_folder(folder: str | os.PathLike[str]) -> dict[str, str]:
    """The hash of every file under `folder` but `run.json` itself and logs, by relative path."""
    root = Path(folder)
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in _files(root)}


def _files(root: Path) -> list[Path]:
    """Every file under a folder but records and logs, in the order of their paths."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [path for path in files if path.name not in (RUN_FILE, "log.jsonl")]


def hash_output(output: str | os.PathLike[str]) -> dict[str, str]:
    """The hashes of an output, a file or a folder, as `run.json` holds them."""
    place = Path(output)
    return hash_folder(place) if place.is_dir() else {place.name: sha256_file(place)}


class Input:
    """An input as it was when a run began: the files of it, and by what a change of them shows.

    Args:
        path: a file, a folder, a stream, or the name of a model on a hub.
        written: absolute paths that the run writes; where one lies in a folder that is read, it is no part of it.
    """

    def __init__(self, path: str, written: Collection[Path] = ()) -> None:
        self.path = path
        self._written = set(written)
        self._is_folder = path != STDIN and os.path.isdir(path)  # noqa: PTH112
        self._hashes: dict[Path, str] = {}
        self._is_read = False
        self._marks = {file: _mark(file) for file in self._files()}

    def _files(self) -> list[Path]:
        if self._is_folder:
            found = ((file, file.absolute()) for file in _files(Path(self.path)))
            return [file for file, whole in found if self._written.isdisjoint((whole, *whole.parents))]
        return [Path(self.path)] if self.path != STDIN and os.path.isfile(self.path) else []  # noqa: PTH113

    def entry(self) -> dict[str, str | None]:
        """Path and hash, as `run.json` has them. A stream has a hash once it was read to its end."""
        if not self._marks and not self._is_folder:
            return {"path": self.path, "sha256": digest_of_stream(self.path)}
        for file in self._marks.keys() - self._hashes.keys():
            if not self._is_as_noted(file):
                raise self._changed(file)
            self._hashes[file] = sha256_file(file)
        if not self._is_folder:
            return {"path": self.path, "sha256": self._hashes[Path(self.path)]}
        root = Path(self.path)
        return {
            "path": self.path,
            "sha256": _hash_names({file.relative_to(root).as_posix(): self._hashes[file] for file in self._marks}),
        }

    def check_unchanged(self) -> None:
        """Raise `IdgrError` where a file of it is another than at the start, or has come into it.

        One that was only touched is the same. Hidden files (locks, what another run is writing) may come and go.
        """
        if self._is_read:
            return
        for file in self._files() if self._is_folder else ():
            if file not in self._marks and not any(name.startswith(".") for name in file.relative_to(self.path).parts):
                raise self._changed(file)
        for file in self._marks:
            if not self._is_as_noted(file):
                known = self._hashes.get(file)
                if known is None or not file.is_file() or sha256_file(file) != known:
                    raise self._changed(file)

    def close(self) -> None:
        """Note that it was read to its end: what becomes of it later is of no account.

        Raises:
            IdgrError: as for `check_unchanged`.
        """
        self.entry()
        self.check_unchanged()
        self._is_read = True

    def _is_as_noted(self, file: Path) -> bool:
        try:
            return _mark(file) == self._marks[file]
        except OSError:
            return False

    def _changed(self, file: Path) -> IdgrError:
        return IdgrError("was changed while it was read", "run again", where=file)


def _mark(file: Path) -> tuple[int, int, int]:
    """What changes with the bytes of a file."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _hash_names(hashes: dict[str, str]) -> str:
    return hashlib.sha256(orjson.dumps(plain(hashes))).hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON takes it: paths as text, and in text what is not UTF-8 (file names need not be) spelled out."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {plain(name): plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
