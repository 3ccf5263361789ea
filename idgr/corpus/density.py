"""Data sets beside each other: the columns of the paper's Table 3, and the groups by density of its Table 2.

A set's figures are those that `prep` left in `stats.json` or, where there is none, counted from its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from idgr.errors import IdgrError
from idgr.formats.jsonl import read_jsonl
from idgr.formats.records import Query, read_sequences

STATS_FILE = "stats.json"
# Groups are relative: of n sets sorted by density, the place p (from 0) is in group 3p // n, so each holds a third.
GROUPS = ("sparse", "medium", "dense")


@dataclass(frozen=True)
class DataFigures:
    """A row of the table.

    Attributes:
        data: the folder.
        users, items, interactions: those of the whole sequences, held-out items included. `items` are the items that
            somebody interacted with; a catalogue may hold more.
        density: interactions / (users × items).
        mean_length: interactions / users.
        max_length: of the longest sequence.
        source: "stats.json", or "files" where they were counted.
        group: of `GROUPS`; None where fewer sets than groups are compared.
    """

    data: str
    users: int
    items: int
    interactions: int
    density: float
    mean_length: float
    max_length: int
    source: str
    group: str | None = None

    def row(self) -> dict[str, Any]:
        return asdict(self)


def data_figures(folder: Path) -> DataFigures:
    """The figures of a prepared folder.

    Raises:
        IdgrError: there is no such folder, it holds neither `stats.json` nor `train.jsonl`, or a file is broken.
    """
    if not folder.is_dir():
        raise IdgrError("there is no such folder", "give a folder that `idgr prep` wrote", where=folder)
    if (folder / STATS_FILE).is_file():
        return _recorded(folder)
    if not (folder / "train.jsonl").is_file():
        what = f"holds neither {STATS_FILE} nor train.jsonl"
        raise IdgrError(what, "give a folder that `idgr prep` wrote", where=folder)
    return _counted(folder)


def grouped(rows: Sequence[DataFigures]) -> list[DataFigures]:
    """The sets from the sparsest to the densest, each with its group; of equal density in the order given."""
    ordered = sorted(rows, key=lambda row: row.density)
    if len(ordered) < len(GROUPS):
        return ordered
    return [
        DataFigures(**{**asdict(row), "group": GROUPS[len(GROUPS) * place // len(ordered)]})
        for place, row in enumerate(ordered)
    ]


def _recorded(folder: Path) -> DataFigures:
    path = folder / STATS_FILE
    try:
        stats = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        stats = None
    if not isinstance(stats, dict):
        raise IdgrError("is not a JSON object", "prepare the data set again", where=path)
    lengths = stats.get("sequence_length")
    found = {name: stats.get(name) for name in ("users", "items", "interactions")}
    found["max_length"] = lengths.get("max") if isinstance(lengths, dict) else None
    for name, value in found.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise IdgrError(f"does not tell {name}", "prepare the data set again, or take the file away", where=path)
    return _figures(folder, source=STATS_FILE, **{name: int(str(value)) for name, value in found.items()})


def _counted(folder: Path) -> DataFigures:
    """A user's sequence is the longest that one of the lines holds, since each goes on from the one before."""
    items: set[str] = set()
    length: dict[str, int] = {}
    for sequence in read_sequences(folder / "train.jsonl"):
        items.update(sequence.items)
        length[sequence.user_id] = len(sequence.items)
    for name in ("valid.jsonl", "test.jsonl"):
        if (folder / name).is_file():
            for query in read_jsonl(folder / name, Query.parse, allow_empty=True):
                whole = [*query.history, *([query.target] if query.target is not None else [])]
                items.update(whole)
                length[query.user_id] = max(length.get(query.user_id, 0), len(whole))
    return _figures(folder, len(length), len(items), sum(length.values()), max(length.values()), "files")


def _figures(folder: Path, users: int, items: int, interactions: int, max_length: int, source: str) -> DataFigures:
    density, mean = interactions / (users * items), interactions / users
    return DataFigures(str(folder), users, items, interactions, density, mean, max_length, source)
