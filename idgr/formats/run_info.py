"""`run.json`: the record of how an output was made, beside every output."""

from __future__ import annotations

import os
import platform
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

from idgr import __version__
from idgr.errors import IdgrError, UsageError
from idgr.formats.inputs import RUN_FILE, Input, hash_folder, hash_input, hash_output, plain, sha256_file
from idgr.formats.json_file import read_object
from idgr.formats.jsonl import STDIN, STDOUT, is_stream, replace_file, write_json

__all__ = [
    "PARTS", "RUN_FILE", "RunInfo", "check_form", "differences", "hash_folder", "hash_input", "hash_output", "read_run",
    "record_path", "recorded_part", "refuse_overwriting", "replace_lines", "sha256_file", "with_dashes",
]  # fmt: skip

T = TypeVar("T")

PARTS = ("items", "train", "valid", "test")  # of a prepared data set, each a file of JSON Lines
_PACKAGES = (
    *("torch", "transformers", "tokenizers", "sentencepiece", "numpy", "polars", "accelerate", "safetensors"),
    *("scikit-learn", "scipy", "faiss-cpu", "peft"),
)


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
        written = {Path(name).absolute() for place in places for name in (place, record_path(Path(place)))}
        for path in self.inputs.values():
            if path is not None and os.fspath(path) not in self._noted:
                self._noted[os.fspath(path)] = Input(os.fspath(path), written)

    def provenance(self) -> dict[str, Any]:
        """What shapes the result: command, options and the hashes of the inputs as they were at the start.

        Raises:
            IdgrError: an input was changed before it was hashed.
        """
        given = with_dashes(self.inputs)
        return {
            "command": self.command,
            "options": plain(with_dashes(self.options)),
            "inputs": plain(
                {role: self._noted[os.fspath(path)].entry() for role, path in given.items() if path is not None}
            ),
        }

    def is_finished(self, *outputs: str | os.PathLike[str] | None) -> bool:
        """Whether all outputs are there and whole, and were made with these options and seed from these inputs.

        Args:
            outputs: those to look at; None values are left out. With a stream nothing is ever finished.
        """
        written = [path for path in outputs if path is not None]
        if any(path is not None and is_stream(path) for path in (*self.inputs.values(), *written)):
            return False
        for output in written:
            record = read_run(output)
            same = bool(record) and record.get("seed") == self.seed and not differences(record, self.provenance())
            if not same or hash_output(output) != record.get("outputs"):
                return False
        return True

    def check_unchanged(self) -> None:
        """Raise `IdgrError` where an input is not what it was at the start: nobody can tell which bytes were read."""
        for noted in self._noted.values():
            noted.check_unchanged()

    def inputs_read(self, *but: str) -> None:
        """Note that all inputs were read, but for some roles; who changes them later does this run no harm.

        A run that works for hours calls this before its work: then a change is told at once, and only one that matters.

        Raises:
            IdgrError: one was changed before it was read to its end.
        """
        if all(place is None or is_stream(place) for place in self.outputs):
            return  # there will be no record, so nothing is hashed
        left = {os.fspath(path) for role, path in self.inputs.items() if role in but and path is not None}
        for name, noted in self._noted.items():
            if name not in left:
                noted.close()

    @contextmanager
    def replace_file(self, output: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
        """A stream to a file that appears, with its record, if the block ends well (`jsonl.replace_file`).

        A file whose name ends in `.parquet` holds the JSON Lines that are written as Parquet.

        Raises:
            IdgrError: as there; or an input was changed during the run.
        """
        with replace_lines(output) as stream:
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
        outputs, provenance = hash_output(place), self.provenance()
        write_json(
            record_path(place),
            {
                "command": provenance["command"],
                "options": provenance["options"],
                "seed": self.seed,
                **self.facts,
                "inputs": provenance["inputs"],
                "outputs": plain(outputs),
                "versions": _versions(),
                "started": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - self._clock, 3),
            },
        )


@contextmanager
def replace_lines(output: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A stream of JSON Lines to a file that appears if the block ends well, as Parquet if its name ends in `.parquet`.

    Raises:
        IdgrError: as `jsonl.replace_file`.
    """
    with replace_file(output) as stream:
        if os.fspath(output).endswith(".parquet"):
            from idgr.formats.tables import lines_to_parquet  # with polars, which other outputs do not need

            with lines_to_parquet(stream) as lines:
                yield lines
        else:
            yield stream


# Bytes of a name that leave room for the one under which its record is written: `.NAME.run.json.xxxxxxxx.tmp`.
_LONGEST = 255 - len(f"..{RUN_FILE}.xxxxxxxx.tmp")


def refuse_overwriting(command: str, inputs: Mapping[str, str | os.PathLike[str]], outputs: Sequence[str]) -> None:
    """Raise `UsageError` where an output, or its record, would take the place of an input or of another output.

    Also where its name is too long for that of its record.

    Links and other spellings of a path count as the file that they lead to. A folder takes the place of all in it. In
    a folder that is read, a file may be written that is new, or that the same command has written before.
    """
    for place in outputs:
        if not os.path.isdir(place) and len(os.fsencode(Path(place).name)) > _LONGEST:  # noqa: PTH112
            raise UsageError(f"{place[:80]}… is too long a name for an output with a record", "give a shorter name")
        for role, path in inputs.items():
            if _is_open_file(place, os.fspath(path)):
                _refuse(place, os.fspath(path), role)
    places = [place for place in outputs if not is_stream(place)]
    for number, place in enumerate(places):
        for other in places[:number]:
            if _is_same(place, other):
                raise UsageError(f"{other} and {place}, which are to be written, are one file", "give each its own")
        for role, path in inputs.items():
            name = os.fspath(path)
            if name == STDIN or not os.path.exists(name):  # noqa: PTH110 - a Path raises at a name that is too long
                continue
            final, read = Path(place).resolve(), Path(name).resolve()
            inside = final.is_dir() and final in read.parents
            part = final.is_file() and read in final.parents and read_run(place).get("command") != command
            if inside or part or _is_same(place, name) or _is_same(f"{place}.{RUN_FILE}", name):
                _refuse(place, name, role)


def _refuse(place: str, name: str, role: str) -> NoReturn:
    written = "standard output" if place == STDOUT else place
    read = "standard input" if name == STDIN else name
    what = f"the output {written} would take the place of the input {read} ({role.replace('_', '-')})"
    raise UsageError(what, "give another name to the output")


def _is_open_file(place: str, name: str) -> bool:
    """Whether an output and an input, at least one of them a stream, are one file on the disk.

    The shell opens it: `< FILE` is overwritten by `-o FILE`, and `>> FILE` lengthens what is read from FILE.
    """
    if name != STDIN and not is_stream(place):
        return False
    try:
        written = os.fstat(1) if place == STDOUT else os.stat(place)  # noqa: PTH116 - a name, beside fstat
        read = os.fstat(0) if name == STDIN else os.stat(name)  # noqa: PTH116
    except OSError:  # it is closed, or not there
        return False
    return stat.S_ISREG(read.st_mode) and os.path.samestat(written, read)


def _is_same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:  # one of them is not there
        return Path(one).resolve() == Path(other).resolve()


def record_path(output: Path) -> Path:
    """Where the record of an output lies, a folder or a file."""
    folder = os.path.isdir(output)  # noqa: PTH112 - a Path raises at a name that is too long
    return output / RUN_FILE if folder else output.with_name(f"{output.name}.{RUN_FILE}")


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
    if not os.path.isfile(path):  # noqa: PTH113 - as in `record_path`: that of a file with a long name has none
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
        if not isinstance(told.get("path"), str) or not isinstance(told.get("sha256", 0), (str, type(None))):
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
        before: a `run.json`, or what `RunInfo.provenance` gave.
        now: what `RunInfo.provenance` gives. An option that the record does not know counts as off there. A stream
            is never the same again.
    """
    command = before.get("command")
    if command != now["command"]:
        return f"made by `idgr {command}`" if command else "made by a command that its record does not tell"
    old, new = with_dashes(before.get("options", {})), with_dashes(now["options"])
    found = [
        f"made with --{name} {old[name]}, not {value}" if name in old else f"made without --{name} {value}"
        for name, value in new.items()
        if (old[name] != value if name in old else bool(value))
    ]
    found += [f"made with --{name} {value}" for name, value in old.items() if name not in new and value]
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


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version  # a third of this module's time to import

    found = {"idgr": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
