"""JSON Lines of any origin: events or sequences, told apart by the keys of the first record, and metadata."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from idgr.corpus.events import BLOCK, Block, EventBuilder, Events, Layout, peek, read_blocks
from idgr.corpus.metadata import read_entries
from idgr.corpus.times import is_date, parse_time
from idgr.errors import IdgrError, faulty_line
from idgr.formats.jsonl import Lines, parse_object
from idgr.formats.records import key, key_list

__all__ = ["DUPLICATE_ENTRIES", "FIELDS", "LAYOUTS", "read_entries", "read_events"]

FIELDS = None  # all that describe the item, in the record's own order
DUPLICATE_ENTRIES = False
LAYOUTS = (Layout(user="user_id", item="item_id", time="timestamp", rating="rating"),)


def read_events(path: str | os.PathLike[str], *, min_rating: float | None = None) -> Events:
    """Events `{"user_id", "item_id", "timestamp", optional "rating"}`, or sequences `{"user_id", "items", optional
    "times"}`.

    Sequences without times count as oldest first; either all of them have times or none.

    Raises:
        IdgrError: naming the file and line; among others where a user has two sequences, or ratings are asked for
            that sequences do not have.
    """
    lines = Lines(path)
    number, row, blocks = peek(lines.path, lines.blocks(BLOCK))
    if "items" not in row and "item_id" not in row:
        raise IdgrError(
            'neither "item_id" (an event) nor "items" (a sequence)',
            'write lines such as {"user_id": …, "item_id": …, "timestamp": …} or {"user_id": …, "items": […]}',
            where=lines.path,
            line=number,
        )
    if "items" not in row:
        return read_blocks(lines.path, blocks, LAYOUTS, min_rating=min_rating)
    if min_rating is not None:
        raise IdgrError("sequences have no ratings", "leave --min-rating out", where=lines.path, line=number)
    return _read_sequences(lines.path, blocks, row)


def _read_sequences(path: str, blocks: Iterable[Block], first_row: dict[str, Any]) -> Events:
    builder = EventBuilder(path)
    timed = "times" in first_row
    dated = timed and isinstance(first_row["times"], list) and any(map(is_date, first_row["times"]))
    seen: set[str] = set()
    for first, block in blocks:
        for number, raw in enumerate(block, first):
            if raw.isspace():
                continue
            row = parse_object(path, number, raw)
            try:
                user, items = key(row, "user_id"), key_list(row, "items")
                if user in seen:
                    raise ValueError(f"duplicate user_id {user!r}; keep one sequence of each user")
                times = _times(row, len(items), timed=timed, dated=dated)
            except ValueError as fault:
                raise faulty_line(fault, path, number) from None
            seen.add(user)
            builder.add([user] * len(items), items, times, [number] * len(items))
    return builder.events(scale=timed and not dated, timed=timed, sequences=True)


def _times(row: dict[str, Any], length: int, *, timed: bool, dated: bool) -> list[int | float]:
    """The times of a sequence's items, or their places where there are none. Raises `ValueError`."""
    if ("times" in row) != timed:
        raise ValueError('some sequences have "times" and some have not; give them to all or to none')
    if not timed:
        return list(range(length))
    values = row["times"]
    if not isinstance(values, list) or len(values) != length:
        raise ValueError('"times" is not a list as long as "items"; give one time for each item')
    return [parse_time({"times": value}, "times", dated=dated) for value in values]
