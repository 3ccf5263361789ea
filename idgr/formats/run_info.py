"""`run.json`: the record of how an output was made, beside every output.

Knows nothing of what a stage does; a stage hands over its options and the paths that it read and wrote.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson

from idgr import __version__
from idgr.errors import IdgrError, UsageError
from idgr.formats.json_file import read_object
from idgr.formats.jsonl import STDIN, is_stream, replace_file, write_json
from idgr.formats.limits import digest_of_stream

T = TypeVar("T")

RUN_FILE = "run.json"
PARTS = ("items", "train", "valid", "test")  # of a prepared data set, each a file of JSON Lines
_PACKAGES = (
    *("torch", "transformers", "tokenizers", "sentencepiece", "numpy", "polars", "accelerate", "safetensors"),
    *("scikit-learn", "scipy", "faiss-cpu", "peft"),
)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, as lower-case hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_input(path: str | os.PathLike[str]) -> dict[str, str | None]:
    """Path and hash of an input as it is now: a file, a folder (its files' hashes, hashed), or a stream (no hash)."""
    name = os.fspath(path)
    if name == STDIN:
        return {"path": STDIN, "sha256": None}
    if Path(name).is_dir():
        return {"path": name, "sha256": _hash_names(hash_folder(name))}
    if Path(name).is_file():
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


@dataclass
class RunInfo:
    """A run of one command, from its start to the writing of `run.json`.

    What the inputs are is noted when this is made, so make it before they are read. Their hashes are taken once, when
    they are first asked for; a stream is hashed while it is read.

    Args:
        command: the subcommand, such as "train-rec".
        options: every option that shapes the result, by its name on the command line without the dashes before it, such
            as max-history; the name of a parameter, max_history, is written so too.
        inputs: the paths read, by role, such as {"ids": "ids.jsonl"}, named as options are; None values are left out.
        seed: the seed of all that is random, if anything is.
        facts: what later stages must know, such as the fingerprint of the IDs that a model was trained on.
        outputs: every path that the run writes; None values are left out.

    Raises:
        UsageError: an output would take the place of an input, or of another output.
    """

    command: str
    options: dict[str, Any]
    inputs: dict[str, str | os.PathLike[str] | None]
    seed: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    outputs: Sequence[str | os.PathLike[str] | None] = ()
    _started: float = field(default_factory=time.time, repr=False)
    _clock: float = field(default_factory=time.monotonic, repr=False)
    _noted: dict[str, Input] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        places = [os.fspath(place) for place in self.outputs if place is not None]
        refuse_overwriting(self.command, {role: path for role, path in self.inputs.items() if path is not None}, places)
        for path in self.inputs.values():
            if path is not None and os.fspath(path) not in self._noted:
                self._noted[os.fspath(path)] = Input(os.fspath(path), places)

    def made_of(self) -> dict[str, Any]:
        """What shapes the result: command, options and the hashes of the inputs as they were at the start.

        Raises:
            IdgrError: an input was changed before it was hashed.
        """
        given = with_dashes(self.inputs)
        return {
            "command": self.command,
            "options": _plain(with_dashes(self.options)),
            "inputs": _plain(
                {role: self._noted[os.fspath(path)].entry() for role, path in given.items() if path is not None}
            ),
        }

    def check_unchanged(self) -> None:
        """Raise `IdgrError` where an input is not what it was at the start: nobody can tell which bytes were read."""
        for noted in self._noted.values():
            noted.check_unchanged()

    @contextmanager
    def replace_file(self, output: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
        """A stream to a file that appears, with its record, if the block ends well (`jsonl.replace_file`).

        Raises:
            IdgrError: as there; or an input was changed during the run.
        """
        with replace_file(output) as stream:
            yield stream
            self.check_unchanged()
        self.write(output)

    def write(self, output: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> None:
        """Write the record for `output`: into it if it is a folder, else beside it as `NAME.run.json`.

        Args:
            output: the final name of what the run wrote; nothing is written for `-`, a device or a named pipe.
            folder: where the output lies now, while it has not yet taken its final name.

        Raises:
            IdgrError: an input was changed during the run.
        """
        self.check_unchanged()
        if is_stream(output):
            return
        place = Path(folder if folder is not None else output)
        outputs, made_of = hash_output(place), self.made_of()
        write_json(
            record_path(place),
            {
                "command": made_of["command"],
                "options": made_of["options"],
                "seed": self.seed,
                **self.facts,
                "inputs": made_of["inputs"],
                "outputs": _plain(outputs),
                "versions": _versions(),
                "started": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - self._clock, 3),
            },
        )


class Input:
    """An input as it was when a run began: the files of it, and by what a change of them shows.

    Args:
        path: a file, a folder, a stream, or the name of a model on a hub.
        outputs: of the run; where one lies in a folder that is read, it is no part of it.
    """

    def __init__(self, path: str, outputs: Sequence[str] = ()) -> None:
        self.path = path
        self._is_folder = path != STDIN and Path(path).is_dir()
        self._hashes: dict[Path, str] = {}
        if self._is_folder:
            written = {Path(name).absolute() for place in outputs for name in (place, record_path(Path(place)))}
            files = [file for file in _files(Path(path)) if not written & {file.absolute(), *file.absolute().parents}]
        else:
            files = [Path(path)] if path != STDIN and Path(path).is_file() else []
        self._marks = {file: _mark(file) for file in files}

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
        """Raise `IdgrError` where a file of it is another than at the start. One that was only touched is the same."""
        for file in self._marks:
            if not self._is_as_noted(file):
                known = self._hashes.get(file)
                if known is None or not file.is_file() or sha256_file(file) != known:
                    raise self._changed(file)

    def _is_as_noted(self, file: Path) -> bool:
        try:
            return _mark(file) == self._marks[file]
        except OSError:
            return False

    def _changed(self, file: Path) -> IdgrError:
        return IdgrError("was changed while it was read", "run again", where=file)


def refuse_overwriting(command: str, inputs: Mapping[str, str | os.PathLike[str]], outputs: Sequence[str]) -> None:
    """Raise `UsageError` where an output, or its record, would take the place of an input or of another output.

    Links and other spellings of a path count as the file that they lead to. A folder takes the place of all in it. In
    a folder that is read, a file may be written that is new, or that the same command has written before.
    """
    places = [place for place in outputs if not is_stream(place)]
    for number, place in enumerate(places):
        for other in places[:number]:
            if _is_same(place, other):
                raise UsageError(f"{other} and {place}, which are to be written, are one file", "give each its own")
        for role, path in inputs.items():
            name = os.fspath(path)
            if name == STDIN or not Path(name).exists():
                continue
            final, read = Path(place).resolve(), Path(name).resolve()
            inside = final.is_dir() and final in read.parents
            part = final.is_file() and read in final.parents and read_run(place).get("command") != command
            if inside or part or _is_same(place, name) or _is_same(f"{place}.{RUN_FILE}", name):
                what = f"the output {place} would take the place of the input {name} ({role.replace('_', '-')})"
                raise UsageError(what, "give another name to the output")


def _is_same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:  # one of them is not there
        return Path(one).resolve() == Path(other).resolve()


def _mark(file: Path) -> tuple[int, int, int]:
    """What changes with the bytes of a file."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def record_path(output: Path) -> Path:
    """Where the record of an output lies, a folder or a file."""
    return output / RUN_FILE if output.is_dir() else output.with_name(f"{output.name}.{RUN_FILE}")


def read_run(output: str | os.PathLike[str], *, checked: bool = True) -> dict[str, Any]:
    """The `run.json` of an output folder or file; empty where there is none.

    A file and its record are put in place one after the other, so a run that is cut off between leaves a file with the
    record of the one before: a record that does not tell the hash of the file is not that file's, and counts as none.

    Args:
        checked: whether to look at that; False for who judges the hashes himself.

    Raises:
        IdgrError: the record cannot be read, or is not of the form that `RunInfo.write` gives it.
    """
    place = Path(output)
    path = record_path(place)
    if not path.is_file():
        return {}
    record = read_object(path, _AGAIN)
    check_form(path, record)
    if checked and place.is_file() and sha256_file(place) not in record.get("outputs", {}).values():
        return {}
    return record


_AGAIN = "make the output again"


def check_form(path: Path, record: Any) -> None:
    """Raise `IdgrError` where a record is no object, or a part that it has is not as `RunInfo.write` leaves it."""
    if not isinstance(record, dict):
        raise IdgrError("does not tell what it was made of", _AGAIN, where=path)
    kinds = {"command": (str, "a text"), **dict.fromkeys(("options", "inputs", "outputs"), (dict, "an object"))}
    for name, (kind, wanted) in kinds.items():
        if name in record and not isinstance(record[name], kind):
            raise IdgrError(f'its "{name}" is not {wanted}', _AGAIN, where=path)
    for role, entry in record.get("inputs", {}).items():
        told = entry if isinstance(entry, dict) else {}
        if not isinstance(told.get("path"), str) or not isinstance(told.get("sha256"), (str, type(None))):
            raise IdgrError(f"its input {role!r} has no path and hash", _AGAIN, where=path)
    for name, digest in record.get("outputs", {}).items():
        if not isinstance(digest, str):
            raise IdgrError(f"its output {name!r} has no hash", _AGAIN, where=path)


def with_dashes(named: Mapping[str, T]) -> dict[str, T]:
    """Options or inputs under the names that the command line has for them; older records have those of parameters."""
    return {name.replace("_", "-"): value for name, value in named.items()}


def recorded_part(path: str | os.PathLike[str]) -> str | None:
    """Which part of a prepared data set a file is: train, valid, test or items.

    None where the file's folder has no record of `idgr prep`, or the file is not as the record tells.

    Raises:
        IdgrError: the folder's `run.json` is not a JSON object.
    """
    place = Path(path)
    if not os.path.isfile(place):  # noqa: PTH113 - a Path raises at a name that is too long, which a record may hold
        return None
    record = read_run(place.parent)
    outputs = record.get("outputs")
    if not str(record.get("command", "")).startswith("prep ") or not isinstance(outputs, dict):
        return None
    digest = sha256_file(place)
    # Two parts without a line are equal files: there the name decides.
    names = sorted((f"{part}.jsonl" for part in PARTS), key=lambda name: name != place.name)
    return next((Path(name).stem for name in names if outputs.get(name) == digest), None)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How what a record was made of differs from what it would be made of now, in words; empty where nothing does.

    Args:
        before: a `run.json`, or what `RunInfo.made_of` gave.
        now: what `RunInfo.made_of` gives. An option that the record does not know counts as off there. A stream
            is never the same again.
    """
    command = before.get("command")
    if command != now["command"]:
        return f"made by `idgr {command}`" if command else "made by a command that its record does not tell"
    old, new = with_dashes(before.get("options", {})), with_dashes(now["options"])
    found = [
        f"made with --{name} {old.get(name)}, not {value}"
        for name, value in new.items()
        if (old.get(name) != value if name in old else bool(value))
    ]
    read, reads = with_dashes(before.get("inputs", {})), with_dashes(now["inputs"])
    for role in sorted({*read, *reads}):
        then, here = read.get(role), reads.get(role)
        if then is None or here is None:
            found.append(f"made {'without' if then is None else 'with'} --{role}")
        elif is_stream(here["path"]):
            stream = "standard input" if here["path"] == STDIN else f"the stream {here['path']}"
            found.append(f"made from {role} of {stream}, which cannot be compared")
        elif (then["sha256"] or then["path"]) != (here["sha256"] or here["path"]):
            found.append(f"made from another {role} than {here['path']}")
    return ", ".join(found)


def _hash_names(hashes: dict[str, str]) -> str:
    return hashlib.sha256(orjson.dumps(_plain(hashes))).hexdigest()


def _plain(value: Any) -> Any:
    """A value as JSON takes it: paths as text, and in text what is not UTF-8 (file names need not be) spelled out."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_plain(name): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version  # a third of this module's time to import

    found = {"idgr": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
