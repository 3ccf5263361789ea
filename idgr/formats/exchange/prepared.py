"""A prepared folder in memory, to be written in another program's format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from idgr.errors import IdgrError
from idgr.formats.records import Item, Query, Sequence, read_items, read_queries, read_sequences


@dataclass(frozen=True)
class Target:
    """A held-out item and what came before it, oldest first."""

    user_id: str
    history: list[str]
    item_id: str


@dataclass(frozen=True)
class PreparedData:
    """The catalogue, the training sequences and the two held-out sets, each in the order of its file."""

    items: list[Item]
    train: list[Sequence]
    valid: list[Target]
    test: list[Target]


def read_prepared(folder: str | os.PathLike[str]) -> PreparedData:
    """Read a folder that `idgr prep` wrote. A split by date may leave no validation targets.

    Raises:
        IdgrError: a file is missing or malformed, names an item that is not in the catalogue, or has a target without
            a history.
    """
    place = Path(folder)
    items = read_items(place / "items.jsonl")
    known = {item.item_id for item in items}
    return PreparedData(
        items,
        read_sequences(place / "train.jsonl", known),
        _targets(place / "valid.jsonl", known, allow_empty=True),
        _targets(place / "test.jsonl", known),
    )


def _targets(path: Path, known: set[str], *, allow_empty: bool = False) -> list[Target]:
    return [_target(query, path) for query in read_queries(path, known, need_target=True, allow_empty=allow_empty)]


def _target(query: Query, path: Path) -> Target:
    if not query.history or query.target is None:
        raise IdgrError(
            f"user {query.user_id!r} has a target and no history, which other programs cannot read",
            "leave the record out",
            where=path,
        )
    return Target(query.user_id, query.history, query.target)
