"""Amazon-M2's sessions and products: `sessions_train.csv` and `products_train.csv` of the KDD Cup 2023.

The layout is that of Jin et al., "Amazon-M2: a multilingual multi-locale shopping session dataset" (2023), and of
public code that reads the files; it was not tried on the files themselves. Assumed is: a session has `prev_items`, the
keys of products oldest first as numpy shows an array of strings (`['B01' 'B02']`, over several lines where there are
many), `next_item`, which came after them, and `locale`; a product has `id`, `locale` and what describes it. A product
is another one in each locale, so an item's key is `ID-LOCALE`. Sessions tell no times and no users: each is a user of
its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from idgr.corpus.events import EventBuilder, Events
from idgr.corpus.metadata import Entry
from idgr.errors import IdgrError
from idgr.formats.tables import Table, open_tables

# What a product is; its price is left out.
FIELDS = ("title", "brand", "color", "size", "model", "material", "author", "desc")
DUPLICATE_ENTRIES = True
_KEY = r"""(?:'([^'"\[\]\s,]+)'|"([^'"\[\]\s,]+)")"""
_ARRAY = re.compile(rf"\[\s*{_KEY}(?:[\s,]+{_KEY})*\s*\]")
_KEYS = re.compile(_KEY)


def read_events(path: str | os.PathLike[str], *, min_rating: float | None = None, locale: str | None = None) -> Events:
    """The sessions as sequences without times, `next_item` the last of each.

    Args:
        locale: take those of this one alone, such as UK.

    Raises:
        IdgrError: naming the line of a session that is malformed; ratings are asked for; or no session is left.
    """
    if min_rating is not None:
        raise IdgrError("sessions have no ratings", "leave --min-rating out", where=path)
    builder, n_sessions = EventBuilder(os.fspath(path)), 0
    users, items, places, numbers = list[str](), list[str](), list[int](), list[int]()
    for table in open_tables([path]):
        for line, (previous, last, where) in _rows(table, ("prev_items", "next_item", "locale")):
            n_sessions += 1
            if locale not in (None, where):
                continue
            if not _ARRAY.fullmatch(previous.strip()):
                what = f"\"prev_items\" is {previous[:40]!r}, not keys such as ['B01' 'B02']"
                raise table.fault(what, "mend the session or leave it out", line)
            keys = [*(one or other for one, other in _KEYS.findall(previous)), last]
            users += [f"session-{n_sessions}"] * len(keys)
            items += [f"{one}-{where}" for one in keys]
            places += range(len(keys))
            numbers += [line] * len(keys)
    if not users:
        which = "" if locale is None else f" of the locale {locale}"
        raise IdgrError(f"has no session{which}", "give another file or --locale", where=path)
    builder.add(users, items, places, numbers)
    return builder.events(scale=False, timed=False, sequences=True)


def read_entries(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The products, each in its locale. Raises `IdgrError` with file and line."""
    for table in open_tables([path]):
        known = [name for name in FIELDS if name in table.names]
        for line, (product, where, *values) in _rows(table, ("id", "locale"), known):
            yield Entry(table.path, line, f"{product}-{where}", dict(zip(known, values, strict=True)))


def _rows(table: Table, needed: Sequence[str], others: Sequence[str] = ()) -> Iterator[tuple[int, list[str]]]:
    """Line and values of each row; those of `needed` are there. Raises `IdgrError`."""
    for name in needed:
        if name not in table.names:
            what = f"has no column {name}"
            raise IdgrError(what, "give sessions_train.csv, and products_train.csv to --meta", where=table.path, line=1)
    for frame, lines in table.batches([*needed, *others]):
        for line, row in zip(lines, frame.iter_rows(), strict=True):
            lacking = next((name for name, value in zip(needed, row, strict=False) if not value), None)
            if lacking is not None:
                raise table.fault(f"nothing in the column {lacking}", "mend the row or leave it out", line)
            yield line, ["" if value is None else str(value) for value in row]
