"""What lies in a folder and how it was made: every output with its `run.json`, and the inputs found again by hash.

A record is a claim of the program that wrote it; hashes tie it to the bytes that are there now.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idgr.errors import IdgrError
from idgr.evaluation.audit.checks import Check, judged
from idgr.evaluation.audit.data import DataSet, is_data, read_data
from idgr.formats.run_info import PARTS, RUN_FILE, hash_folder, hash_input, read_run, sha256_file, with_dashes

RECORDED = "files are as their stages wrote them"

RAW = "raw"
# Commands that look at what is there and make nothing of it.
_LOOKING = ("audit", "compare", "report")
_ASKED = ("truth", "histories")
_READ = ("train", "items", "valid")

# The commands that train models of items without IDs, and what such a model is called.
ITEM_MODELS = {"train-sasrec": "SASRec", "train-two-tower": "two-tower", "train-text-ranker": "text ranker"}


@dataclass(frozen=True)
class Output:
    """A file or folder that a command wrote, and the record of it."""

    path: Path
    record: dict[str, Any]

    @property
    def command(self) -> str:
        return str(self.record.get("command", ""))

    def digest(self, role: str) -> str | None:
        """The hash of an input at the time; None where there was none or it could not be told."""
        return self._input(role).get("sha256")

    def named(self, role: str) -> str | None:
        """The path of an input, as it was given."""
        return self._input(role).get("path")

    @property
    def roles(self) -> list[str]:
        return list(self._inputs())

    def roles_of(self, name: str) -> list[str]:
        """The roles of an input: NAME, or where it has several paths NAME-1, NAME-2 and so on."""
        return [role for role in self.roles if re.fullmatch(rf"{name}-\d+", role)] or [name]

    def option(self, name: str) -> Any:
        """An option by its name on the command line, such as max-history, however the record spells it."""
        options = self.record.get("options")
        return with_dashes(options).get(name.replace("_", "-")) if isinstance(options, dict) else None

    def _inputs(self) -> dict[str, Any]:
        found = self.record.get("inputs")
        return with_dashes(found) if isinstance(found, dict) else {}

    def _input(self, role: str) -> dict[str, Any]:
        entry = self._inputs().get(role)
        # Anyone may have written the record.
        return (
            {name: value for name, value in entry.items() if isinstance(value, str)} if isinstance(entry, dict) else {}
        )


@dataclass
class Findings:
    """The outputs below a folder, and the data sets among them or beside them.

    Attributes:
        root: what is audited.
        outputs: in the order of their paths.
        data: the prepared folder that the outputs are held against, if it is there.
    """

    root: Path
    outputs: list[Output]
    data: Path | None
    _hashes: dict[str, str | None] = field(default_factory=dict, repr=False)
    _data_set: DataSet | None = field(default=None, repr=False)
    _named: dict[str, list[Path]] | None = field(default=None, repr=False)

    def of(self, *commands: str) -> list[Output]:
        return [output for output in self.outputs if output.command in commands]

    def digest(self, path: Path | str) -> str | None:
        """The hash of a file or folder as it is now; None where it is not there."""
        name = str(path)
        if name not in self._hashes:
            self._hashes[name] = hash_input(name)["sha256"]
        return self._hashes[name]

    def data_digest(self, name: str) -> str | None:
        """The hash of `NAME.jsonl` of the data set; None where there is none."""
        return None if self.data is None else self.digest(self.data / f"{name}.jsonl")

    def data_set(self) -> DataSet | None:
        """The records of the data set, read once."""
        if self._data_set is None and self.data is not None:
            self._data_set = read_data(self.data)
        return self._data_set

    def data_part(self, digest: str | None) -> str | None:
        """What bytes are to the data set: items, train, valid or test; RAW for what `prep` made it from; else None."""
        if digest is None or self.data is None:
            return None
        part = next((name for name in PARTS if self.data_digest(name) == digest), None)
        prepared = Output(self.data, read_run(self.data))
        if part is None and prepared.command.startswith("prep "):
            return RAW if digest in {prepared.digest(role) for role in prepared.roles} else None
        return part

    def sources_of(self, outputs: Sequence[Output]) -> list[Output]:
        """What went into outputs and has a record of its own, and what went into that, as far as it is here."""
        known = {output.path.absolute() for output in outputs}
        found: list[Output] = []
        waiting = [output for output in outputs if output.command not in _LOOKING]
        while waiting:
            output = waiting.pop()
            for role in output.roles:
                path = self.find(output, role)
                source = None if path is None else _made(path)
                if source is None or source.path.absolute() in known or self._is_copy(source, outputs):
                    continue
                known.add(source.path.absolute())
                found.append(source)
                waiting.append(source)
        return found

    def _is_copy(self, source: Output, outputs: Sequence[Output]) -> bool:
        """Whether a source has the bytes of an output: a folder that was copied still names the one it comes from."""
        alike = [output for output in outputs if output.command == source.command]
        return any(self.digest(output.path) == self.digest(source.path) for output in alike)

    def is_of_data(self, output: Output, role: str) -> bool:
        """Whether an output, or something that went into it, was made from a part of the data set.

        Inputs of the same number are of one data set, and tell nothing of a role that has another number.
        """
        number = re.search(r"-\d+$", role)
        beside = [one for one in output.roles if number is None or one.endswith(number[0])]
        read = [output.digest(one) for one in beside]
        read += [source.digest(one) for source in self.sources_of([output]) for one in source.roles]
        return any(self.data_part(digest) is not None for digest in read)

    def find(self, output: Output, role: str) -> Path | None:
        """An input of an output as it was then: under its old name, or wherever equal bytes lie here."""
        digest, name = output.digest(role), output.named(role)
        if digest is None or name is None:
            return None
        known = (
            [] if self.data is None else [self.data / f"{part}.jsonl" for part in ("items", "train", "valid", "test")]
        )
        for path in (Path(name), *known, *(other.path for other in self.outputs), *self._of_name(Path(name).name)):
            if _is_there(path) and self.digest(path) == digest:
                return path
        return None

    def _of_name(self, name: str) -> list[Path]:
        """Files below the folder under a name, wherever they were when it was written down."""
        if self._named is None:
            self._named = {}
            for path in sorted(self.root.rglob("*")):
                if path.is_file():
                    self._named.setdefault(path.name, []).append(path)
        return self._named.get(name, [])


def _is_there(path: Path) -> bool:
    """Whether there is something under a name that a record tells; it may be one that no file can have."""
    return os.path.exists(path)  # noqa: PTH110 - a Path raises at a name that is too long


def _made(path: Path) -> Output | None:
    """What a path is as an output: of itself, or of the folder that it was written with; None without a record."""
    if record := read_run(path):
        made = Output(path, record)
    else:
        made = Output(path.parent, read_run(path.parent))
        outputs = made.record.get("outputs")
        if not isinstance(outputs, dict) or path.name not in outputs:
            return None
    return None if made.command.startswith("prep ") else made


def look_at(root: Path, data: Path | None = None) -> Findings:
    """Everything below `root` that has a record.

    Args:
        data: the prepared folder; None for the one below `root`, or the one that its stages have read.

    Raises:
        IdgrError: a record is not a JSON object, or there is nothing to look at.
    """
    outputs = []
    for path in sorted(root.rglob(f"*{RUN_FILE}")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if hidden or not (path.name == RUN_FILE or path.name.endswith(f".{RUN_FILE}")):
            continue
        place = path.parent if path.name == RUN_FILE else path.with_name(path.name.removesuffix(f".{RUN_FILE}"))
        if place.exists():
            outputs.append(Output(place, read_run(place, checked=False)))  # `recorded_check` judges the hashes
    findings = Findings(root, outputs, data)
    if data is None:
        below = [path.parent for path in sorted(root.rglob("train.jsonl")) if is_data(path.parent)]
        findings.data = below[0] if below else _read_data_set(findings)
    if not outputs and findings.data is None:
        raise IdgrError(
            "holds nothing to audit",
            f"give a folder of `idgr prep` or `idgr alternate`, one with outputs and their {RUN_FILE}, or the "
            "published layout with user_sequence.txt",
            where=root,
        )
    return findings


def _read_data_set(findings: Findings) -> Path | None:
    """The prepared folder that one of the outputs was made from, if it is still what it was.

    That of what was asked and scored comes first: whether a model has seen it is the question. Then what the outputs
    were trained on, and what went into what they were made of.
    """
    outputs, sources = findings.outputs, findings.sources_of(findings.outputs)
    for made, roles in ((outputs, _ASKED), (outputs, _READ), (sources, _ASKED), (sources, _READ)):
        for output in made:
            for role in (one for name in roles for one in output.roles_of(name)):
                name, digest = output.named(role), output.digest(role)
                if name is None or digest is None:
                    continue
                folder = Path(name).parent
                if _is_there(Path(name)) and is_data(folder) and findings.digest(name) == digest:
                    return folder
    return None


def recorded_check(findings: Findings) -> Check:
    """Whether every output still has the bytes that its record tells."""
    faults, n_files = [], 0
    for output in findings.outputs:
        then = output.record.get("outputs")
        # A run of `alternate` writes its record before its rounds; they have their own.
        if not isinstance(then, dict) or output.command == "alternate":
            continue
        folder = output.path.is_dir()
        now = hash_folder(output.path) if folder else {output.path.name: sha256_file(output.path)}
        for name, digest in then.items():
            n_files += 1
            place = output.path / name if folder else output.path
            if name not in now:
                faults.append(f"{place} is gone")
            elif now[name] != digest:
                faults.append(f"{place} was changed")
    return judged(RECORDED, findings.root, faults, f"the SHA-256 of {n_files} files is that in their {RUN_FILE}")
