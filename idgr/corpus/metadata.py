"""Metadata records to the plain text of the items that are wanted.

Knows `Entry`, which every source makes of its own dump; not the dumps.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from idgr.corpus.text import plain_text
from idgr.errors import IdgrError, faulty_line
from idgr.formats.jsonl import Lines, parse_object
from idgr.formats.records import key


@dataclass(frozen=True, slots=True)
class Entry:
    """An item's metadata: where it stands, its key, and the record."""

    path: str
    line: int
    item_id: str
    record: dict[str, Any]


def read_entries(path: str | os.PathLike[str], name: str = "item_id") -> Iterator[Entry]:
    """The entries of a JSON Lines file whose records hold the item's key under `name`.

    Raises:
        IdgrError: naming the first line that is malformed or has no key.
    """
    lines = Lines(path)
    for number, line in lines:
        yield entry(lines.path, number, parse_object(lines.path, number, line), name)


def entry(path: str, line: int, record: dict[str, Any], name: str) -> Entry:
    """The entry of a record that holds the item's key under `name`. Raises `IdgrError` if it does not."""
    try:
        item_id = key(record, name)
        if any("\ud800" <= letter <= "\udfff" for letter in item_id):  # which a Python literal may hold
            raise ValueError(f'"{name}" holds half of a surrogate pair, which cannot be written; mend the record')
        return Entry(path, line, item_id, record)
    except ValueError as fault:
        raise faulty_line(fault, path, line) from None


def texts(
    entries: Iterable[Entry],
    wanted: Container[str] | None = None,
    fields: Sequence[str] | None = None,
    *,
    duplicates: bool = False,
) -> dict[str, str]:
    """The plain text of each item, in the order of the entries; it may be empty.

    Args:
        wanted: the keys of the items to take; None takes all.
        fields: see `plain_text`.
        duplicates: whether an item may have several entries, of which the first counts.

    Raises:
        IdgrError: an item has a second entry and `duplicates` is false.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    for one in entries:
        if one.item_id in seen:
            if duplicates:
                continue
            raise IdgrError(
                f"duplicate item_id {one.item_id!r}", "keep one record of each", where=one.path, line=one.line
            )
        seen.add(one.item_id)
        if wanted is None or one.item_id in wanted:
            found[one.item_id] = plain_text(one.record, fields)
    return found
