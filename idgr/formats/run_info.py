"""`run.json`: the record of how an output was made, beside every output.

Knows nothing of what a stage does; a stage hands over its options and the paths that it read and wrote.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson

from idgr import __version__
from idgr.errors import IdgrError
from idgr.formats.jsonl import STDIN, is_stream, write_json

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
    """Path and hash of an input: a file, a folder (its files' hashes, hashed), or standard input (no hash)."""
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
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): sha256_file(path)
        for path in files
        if path.name not in (RUN_FILE, "log.jsonl")
    }


def hash_output(output: str | os.PathLike[str]) -> dict[str, str]:
    """The hashes of an output, a file or a folder, as `run.json` holds them."""
    place = Path(output)
    return hash_folder(place) if place.is_dir() else {place.name: sha256_file(place)}


@dataclass
class RunInfo:
    """A run of one command, from its start to the writing of `run.json`.

    Args:
        command: the subcommand, such as "train-rec".
        options: every option that shapes the result, by its name on the command line without the dashes before it, such
            as max-history; the name of a parameter, max_history, is written so too.
        inputs: the paths read, by role, such as {"ids": "ids.jsonl"}, named as options are; None values are left out.
        seed: the seed of all that is random, if anything is.
        facts: what later stages must know, such as the fingerprint of the IDs that a model was trained on.
    """

    command: str
    options: dict[str, Any]
    inputs: dict[str, str | os.PathLike[str] | None]
    seed: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    _started: float = field(default_factory=time.time, repr=False)
    _clock: float = field(default_factory=time.monotonic, repr=False)

    def made_of(self) -> dict[str, Any]:
        """What shapes the result: command, options and the hashes of the inputs as they are now."""
        return {
            "command": self.command,
            "options": _plain(with_dashes(self.options)),
            "inputs": _plain(
                {role: hash_input(path) for role, path in with_dashes(self.inputs).items() if path is not None}
            ),
        }

    def write(self, output: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> None:
        """Write the record for `output`: into it if it is a folder, else beside it as `NAME.run.json`.

        Args:
            output: the final name of what the run wrote; nothing is written for `-`, a device or a named pipe.
            folder: where the output lies now, while it has not yet taken its final name.
        """
        if is_stream(output):
            return
        place = Path(folder if folder is not None else output)
        outputs, made_of = hash_output(place), self.made_of()
        write_json(
            place / RUN_FILE if place.is_dir() else f"{place}.{RUN_FILE}",
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


def read_run(output: str | os.PathLike[str]) -> dict[str, Any]:
    """The `run.json` of an output folder or file; empty where there is none.

    Raises:
        IdgrError: the record is not a JSON object.
    """
    place = Path(output)
    path = place / RUN_FILE if place.is_dir() else Path(f"{place}.{RUN_FILE}")
    if not path.is_file():
        return {}
    try:
        record = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        record = None
    if not isinstance(record, dict):
        raise IdgrError("is not a JSON object", "make the output again", where=path)
    return record


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
    if not place.is_file():
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
        now: what `RunInfo.made_of` gives. An option that the record does not know counts as off there. Standard input
            is never the same again.
    """
    if before.get("command") != now["command"]:
        return f"made by `idgr {before.get('command')}`"
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
        elif here["path"] == STDIN:
            found.append(f"made from {role} of standard input, which cannot be compared")
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
