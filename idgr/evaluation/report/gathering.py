"""What a report shows, gathered from run folders: results, curves, IDs, the audit, and how everything was made.

A run folder is any folder with outputs of idgr below it and their records (`run.json`, `NAME.run.json`): metrics and
per-user rows of `eval`, folders of `zeroshot`, trainings with their `log.jsonl`, runs of `alternate` with their
`metrics.jsonl`, files of `gen-ids`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from idgr.errors import IdgrError
from idgr.evaluation.audit.checks import Check
from idgr.evaluation.audit.provenance import Output
from idgr.evaluation.audit.verdict import all_checks
from idgr.evaluation.report.folders import RunFolder, open_folder, read_log
from idgr.evaluation.report.learned_ids import IdsFile, LearnedIds, ids_files, learned_ids
from idgr.evaluation.report.results import TestSet, test_sets
from idgr.formats.run_info import read_run
from idgr.progress import log

TRAININGS = ("init-gen", "train-gen", "train-rec")
# Records tell the second of the start; of commands that were begun in the same one, this is the order.
_FLOW = (
    *("prep", "init-gen", "gen-ids", "train-rec", "train-adapter", "train-gen", "alternate"),
    *("recommend", "eval", "zeroshot"),
)


@dataclass(frozen=True)
class Curve:
    """The epochs of a training, as `log.jsonl` tells them."""

    name: str
    command: str
    epochs: list[dict[str, Any]]


@dataclass(frozen=True)
class Audit:
    """What the audit of a run folder says; `reason` where it cannot be made."""

    folder: str
    checks: list[Check]
    reason: str = ""


@dataclass(frozen=True)
class Made:
    """A command that was run.

    Attributes:
        record: its `run.json`.
        name: of what it wrote.
        outputs: what it wrote; of `eval` the metrics and the per-user rows, in the order of their names.
        run: the run of `alternate` that it was a part of.
    """

    record: dict[str, Any]
    name: str
    outputs: list[Path]
    run: str | None = None


@dataclass(frozen=True)
class Gathered:
    """Everything for the page; what there is nothing of is empty.

    Attributes:
        rounds: the lines of `metrics.jsonl` by the name of the run of `alternate`.
        audits: one a folder; none where none was asked for.
        made: by the time at which they were begun.
    """

    folders: list[str]
    test_sets: list[TestSet]
    curves: list[Curve]
    rounds: dict[str, list[dict[str, Any]]]
    ids: list[IdsFile]
    learned: list[LearnedIds]
    audits: list[Audit]
    made: list[Made]


def gather(roots: Sequence[Path], data: Path | None = None, *, audit: bool = True) -> Gathered:
    """Look through run folders.

    Args:
        data: the prepared folder; None for the one below each root, or the one that its stages have read.
        audit: whether to audit each folder.

    Raises:
        IdgrError: a folder holds nothing that idgr made, or a file is broken.
    """
    folders = [open_folder(root, data, prefix=len(roots) > 1) for root in roots]
    log("report: results and their intervals")
    results = test_sets(folders)
    made = [one for folder in folders for one in _made(folder)]
    curves = [
        Curve(folder.name(one.path), one.command, read_log(one.path / "log.jsonl", "epoch"))
        for folder in folders
        for one in folder.outputs
        if one.command in TRAININGS and (one.path / "log.jsonl").is_file()
    ]
    rounds = {
        folder.name(run.path): read_log(run.path / "metrics.jsonl", "round")
        for folder in folders
        for run in folder.findings.of("alternate")
        if (run.path / "metrics.jsonl").is_file()
    }
    log("report: IDs")
    lengths = [one for folder in folders for one in ids_files(folder)]
    learned = [one for folder in folders for one in learned_ids(folder)]
    audits = []
    if audit:
        log("report: audit")
        audits = [_audited(root, data) for root in roots]
    made.sort(key=_begun)
    return Gathered([str(root) for root in roots], results, curves, rounds, lengths, learned, audits, made)


def _begun(made: Made) -> tuple[str, int]:
    stage = str(made.record.get("command", "")).partition(" ")[0]
    return str(made.record.get("started", "")), _FLOW.index(stage) if stage in _FLOW else len(_FLOW)


def _audited(root: Path, data: Path | None) -> Audit:
    try:
        return Audit(str(root), all_checks(root, data)[0])
    except IdgrError as fault:  # told on the page: the rest of the report does not depend on it
        return Audit(str(root), [], str(fault))


def _made(folder: RunFolder) -> list[Made]:
    runs = [run.path for run in folder.findings.of("alternate")]
    outputs, data = folder.outputs, folder.findings.data
    if data is not None and data not in {output.path for output in outputs} and (record := read_run(data)):
        outputs = [Output(data, record), *outputs]
    by_call: dict[bytes, Made] = {}
    for output in outputs:
        if output.command in ("keep", "report"):  # copies of a run of alternate, and pages like this one
            continue
        inside = next((run for run in runs if run in output.path.parents), None)
        told = {name: output.record.get(name) for name in ("command", "options", "inputs", "seed", "started")}
        call = orjson.dumps(told) if output.command == "eval" else orjson.dumps([str(output.path)])
        if call in by_call:
            by_call[call].outputs.append(output.path)
            continue
        run = None if inside is None else folder.name(inside)
        by_call[call] = Made(output.record, folder.name(output.path), [output.path], run)
    return list(by_call.values())
