"""Metadata records to the plain text of the items that are wanted."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from idgr.corpus.text import Values, described, item_fields
from idgr.errors import IdgrError, UsageError, faulty_line
from idgr.formats.jsonl import Lines, parse_object
from idgr.formats.records import Item, key

_MOST_NAMES = 40  # of those that an error tells


@dataclass(frozen=True, slots=True)
class Entry:
    """An item's metadata: where it stands, its key, and the record."""

    path: str
    line: int
    item_id: str
    record: dict[str, Any]


def read_entries(path: str | os.PathLike[str] | Lines, name: str = "item_id") -> Iterator[Entry]:
    """The entries of a JSON Lines file whose records hold the item's key under `name`.

    Raises:
        IdgrError: naming the first line that is malformed or has no key.
    """
    lines = path if isinstance(path, Lines) else Lines(path)
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


def describe_items(
    entries: Iterable[Entry],
    wanted: Container[str] | None = None,
    fields: Sequence[str] | None = None,
    *,
    duplicates: bool = False,
    chosen: bool = False,
    whole: bool = False,
) -> dict[str, Item]:
    """Each item with its plain text, in the order of the entries; the text may be empty.

    Args:
        wanted: the keys of the items to take; None takes all.
        fields: see `plain_text`.
        duplicates: whether an item may have several entries; of each field the first that is not empty counts, and the
            item stands where its first entry does.
        chosen: whether the user named `fields`, so that each must be a key of some entry.
        whole: whether all keys of an entry make its text, whatever is left out otherwise; in place of `fields`.

    Raises:
        IdgrError: an item has a second entry and `duplicates` is false.
        UsageError: no entry has one of the chosen fields.
    """
    found: dict[str, dict[str, Values] | Item] = {}
    seen: set[str] = set()
    names = dict.fromkeys(fields or [])
    known: dict[str, None] = {}
    for one in entries:
        if chosen:
            known |= dict.fromkeys(map(str, one.record))
        if one.item_id in seen:
            if not duplicates:
                raise IdgrError(
                    f"duplicate item_id {one.item_id!r}", "keep one record of each", where=one.path, line=one.line
                )
            earlier = found.get(one.item_id)
            if isinstance(earlier, dict):
                _add(earlier, item_fields(one.record, list(one.record) if whole else fields))
            continue
        seen.add(one.item_id)
        if wanted is None or one.item_id in wanted:
            made = item_fields(one.record, list(one.record) if whole else fields)
            found[one.item_id] = made if duplicates else described(one.item_id, made)
    unknown = [name for name in names if name not in known] if chosen else []
    if unknown:
        some = ", ".join(list(known)[:_MOST_NAMES]) + (", …" if len(known) > _MOST_NAMES else "")
        raise UsageError(f"--fields {', '.join(unknown)}: no item has a key of that name", f"choose from {some}")
    for item_id, made_or_item in found.items():
        if isinstance(made_or_item, dict):
            found[item_id] = described(item_id, made_or_item)
    return {item_id: item for item_id, item in found.items() if isinstance(item, Item)}


def _add(fields: dict[str, Values], others: dict[str, Values]) -> None:
    """Take from another entry of the item what the earlier ones lack."""
    for name, values in others.items():
        if not fields.get(name):
            fields[name] = values
