"""Outputs below a run folder as a report names them, each once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from idgr.errors import IdgrError
from idgr.evaluation.audit.provenance import Findings, Output, look_at
from idgr.formats import json_file
from idgr.formats.jsonl import read_jsonl
from idgr.formats.run_info import read_run
from idgr.progress import log


@dataclass(frozen=True)
class RunFolder:
    """A folder with outputs of idgr below it.

    Attributes:
        root: the folder.
        findings: every output that has a record, and the data set.
        outputs: those without the copies that `alternate` keeps, by the time at which they were begun.
        prefix: whether names are whole paths, because the report is on several folders.
    """

    root: Path
    findings: Findings
    outputs: list[Output]
    prefix: bool

    def name(self, path: Path) -> str:
        """A short name of what lies below the folder."""
        if self.prefix or not path.is_relative_to(self.root):
            return path.as_posix()
        return self.root.resolve().name if path == self.root else path.relative_to(self.root).as_posix()


def open_folder(root: Path, data: Path | None = None, *, prefix: bool = False) -> RunFolder:
    """Look at a run folder.

    Args:
        data: the prepared folder; None for the one below `root`, or the one that its stages have read.

    Raises:
        IdgrError: there is no such folder, it holds nothing that idgr made, or a record is broken.
    """
    if not root.is_dir():
        raise IdgrError("there is no such folder", "give a folder that holds outputs of idgr", where=root)
    findings = look_at(root, data)
    for other in [one for one in findings.outputs if one.path.is_file() and not read_run(one.path)]:
        log(f"report: warning: {other.path} is not what its record tells of, so how it was made is not certain")
    # A copy has the record of what it is a copy of. `final/` holds copies of a round.
    ordered = sorted(findings.outputs, key=lambda one: ("final" in one.path.parts, len(one.path.parts), one.path))
    kept: dict[bytes, Output] = {}
    for output in ordered:
        kept.setdefault(orjson.dumps(output.record), output)
    outputs = sorted(kept.values(), key=lambda one: (str(one.record.get("started", "")), one.path))
    return RunFolder(root, findings, outputs, prefix)


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises `IdgrError` where it does not."""
    return json_file.read_object(path, "make the output again")


def read_log(path: Path, *names: str) -> list[dict[str, Any]]:
    """The lines of `log.jsonl` or `metrics.jsonl`; under each of `names` stands an integer.

    Raises:
        IdgrError: a line is no such record.
    """

    def parse(row: dict[str, Any]) -> dict[str, Any]:
        for name in names:
            if not isinstance(row.get(name), int):
                raise ValueError(f'no integer "{name}"; make the output again')
        return row

    return list(read_jsonl(path, parse, allow_empty=True))
