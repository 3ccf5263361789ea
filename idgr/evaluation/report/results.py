"""The results of run folders, by the test set that they were scored on.

A file that both have the same columns for can be held beside another one only on the same targets, so there is a table
for each file of targets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from idgr.errors import IdgrError
from idgr.evaluation.audit.provenance import Output
from idgr.evaluation.report.folders import RunFolder, read_object
from idgr.evaluation.segments import segments
from idgr.evaluation.significance import Resampling, mean_interval
from idgr.formats.jsonl import read_jsonl
from idgr.formats.records import is_per_user, read_user_figures

DIVISIONS = ("history_length", "target_popularity", "transition")
INTERVAL = Resampling(resamples=1_999)

_DIVIDED_BY = ("history_length", "target_count")

Segments = dict[str, dict[str, tuple[float, int]]]  # by division and segment: the hit rate and the number of users


@dataclass(frozen=True)
class Result:
    """What recommendations for a test set are worth.

    Attributes:
        figures: metrics by name, such as `hr@10`.
        intervals: of those metrics that per-user rows tell.
        segments: the hit rate by division and segment.
        baseline: whether `eval` counted it as a rival of another.
    """

    name: str
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    segments: Segments = field(default_factory=dict)
    baseline: bool = False


@dataclass
class TestSet:
    """The results on one file of targets, baselines last.

    Attributes:
        path, digest: of the file, as the first result tells them.
    """

    path: str
    digest: str | None
    n_users: int
    n_items: int
    results: list[Result] = field(default_factory=list)

    @property
    def metrics(self) -> list[str]:
        """HR and NDCG, by cutoff."""
        names = {name for result in self.results for name in result.figures}
        return sorted(names, key=lambda name: (int(name.partition("@")[2]), name))

    @property
    def hit_rate(self) -> str:
        """The one that is shown by segment."""
        return hit_rate_of(self.metrics)


def hit_rate_of(metrics: list[str]) -> str:
    """HR@10, or that at the largest cutoff."""
    rates = [name for name in metrics if name.startswith("hr@")]
    return "hr@10" if "hr@10" in rates else max(rates, key=lambda name: int(name.partition("@")[2]))


def test_sets(folders: list[RunFolder]) -> list[TestSet]:
    """Every result below the folders.

    Raises:
        IdgrError: a file of metrics or per-user rows is broken.
    """
    found: list[TestSet] = []
    for folder in folders:
        rows: dict[bytes, list[Output]] = {}
        scored: list[tuple[Output, Path, str]] = []
        for output in folder.findings.of("eval"):
            if is_per_user(output.path):
                rows.setdefault(_lists(output), []).append(output)
            else:
                scored.append((output, output.path, "truth"))
        for output in folder.findings.of("zeroshot"):
            if (output.path / "metrics.json").is_file():
                scored.append((output, output.path / "metrics.json", "test"))
        for output, path, role in scored:
            _add(found, folder, output, path, role, _rows_beside(output, rows.get(_lists(output), [])))
    for one in found:
        one.results.sort(key=lambda result: result.baseline)
    return found


def _add(found: list[TestSet], folder: RunFolder, output: Output, path: Path, role: str, per_user: Path | None) -> None:
    metrics = read_object(path)
    figures = _figures(metrics)
    sizes = [size for size in (metrics.get("n_users"), metrics.get("n_items")) if isinstance(size, int)]
    if not any(name.startswith("hr@") for name in figures) or len(sizes) < 2:
        raise IdgrError("holds no hit rate of `idgr eval`", "score the recommendations again", where=path)
    truth, digest = output.named(role) or "-", output.digest(role)
    place = next((one for one in found if digest is not None and one.digest == digest), None)
    if place is None:
        place = TestSet(truth, digest, sizes[0], sizes[1])
        found.append(place)
    name = _name(folder, path)
    rate = hit_rate_of(list(figures))
    by_segment = _recorded_segments(metrics, rate)
    intervals: dict[str, tuple[float, float]] = {}
    if per_user is not None:
        columns = _columns(per_user)
        told = [metric for metric in figures if metric in columns]
        values = np.array([row.values for row in read_user_figures(per_user, told)])
        intervals = {metric: mean_interval(values[:, i], INTERVAL) for i, metric in enumerate(told)}
        if not by_segment and columns.issuperset([*_DIVIDED_BY, rate]):
            by_segment = _counted_segments(per_user, rate)
    place.results.append(Result(name, figures, intervals, by_segment))
    rivals = metrics.get("baselines")
    for rival, theirs in rivals.items() if isinstance(rivals, dict) else ():
        known = [one for one in place.results if one.baseline and one.name.split(", ")[0] == rival]
        if any(one.figures == _figures(theirs) for one in known):
            continue
        label = f"{rival}, beside {name}" if known else rival
        of_rival = _recorded_segments(metrics, rate, rival)
        place.results.append(Result(label, _figures(theirs), segments=of_rival, baseline=True))


def _figures(metrics: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in metrics.items()
        if name.startswith(("hr@", "ndcg@")) and name.partition("@")[2].isdecimal() and isinstance(value, (int, float))
    }


def _name(folder: RunFolder, path: Path) -> str:
    """`idgr-metrics.json` is called `idgr`, `idgr/metrics.json` likewise."""
    if path.name == "metrics.json":
        return folder.name(path.parent)
    return folder.name(path).removesuffix(".json").removesuffix("-metrics")


def _lists(output: Output) -> bytes:
    """What was scored against what: the same for the metrics and the per-user rows of the same lists."""
    asked = [output.digest("recs"), output.digest("truth")]
    return orjson.dumps(asked if None not in asked else [output.path.name, output.record.get("started")])


def _rows_beside(output: Output, alike: list[Output]) -> Path | None:
    """Of the per-user rows of the same lists those of the same call, if there are any."""
    own = [one for one in alike if _asked(one) == _asked(output)]
    return next((one.path for one in (*own, *alike)), None)


def _asked(output: Output) -> Any:
    return output.record.get("options"), output.record.get("inputs")


def _columns(per_user: Path) -> set[str]:
    """What the rows tell, by the first: those of a call with other cutoffs or without --train lack some of it."""

    def parse(row: dict[str, Any]) -> set[str]:
        if not any(name.startswith("hr@") for name in row):
            raise ValueError("no hit rate; write the rows with `idgr eval --per-user`")
        return set(row)

    return next(iter(read_jsonl(per_user, parse)))


def _recorded_segments(metrics: dict[str, Any], rate: str, rival: str | None = None) -> Segments:
    found: Segments = {}
    for division, parts in (metrics.get("segments") or {}).items():
        if division in DIVISIONS:
            found[division] = {
                name: (part[rate] if rival is None else part["baselines"][rival][rate], part["n_users"])
                for name, part in parts.items()
            }
    return found


def _counted_segments(per_user: Path, rate: str) -> Segments:
    rows = np.array([row.values for row in read_user_figures(per_user, [*_DIVIDED_BY, rate])])
    divided = segments(rows[:, 0].astype(int).tolist(), rows[:, 1].astype(int).tolist())
    return {
        division: {
            name: (float(rows[members, 2].mean()), int(members.sum())) for name, members in divided[division].items()
        }
        for division in DIVISIONS
        if division in divided
    }
