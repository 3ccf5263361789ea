"""Steam's reviews and games: `steam_reviews.json.gz` and `steam_games.json.gz` of UCSD, a Python literal a line.

The dumps come with Kang and McAuley, "Self-attentive sequential recommendation" (2018), and are listed at
https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data. What is assumed of them, from public code and notebooks that
read them, and not tried on the files themselves: a review has `username`, `product_id`, `date` (2017-12-31) and,
mostly, `hours` played; a game has `id` and any of `title`, `app_name`, `genres`, `tags`, `specs`, `developer`; a few
games have no `id` or come twice. Lines of JSON, as some copies have them, are read too. A literal is parsed, never run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import orjson

from idgr.corpus.events import BLOCK, Block, Events, Layout, read_blocks
from idgr.corpus.literals import parse_record
from idgr.corpus.metadata import Entry, entry
from idgr.errors import IdgrError
from idgr.formats.jsonl import Lines

LAYOUTS = (Layout(user="username", item="product_id", time="date", rating="hours"),)
# What a game is; its price, links and what players thought of it (`sentiment`, `metascore`) are left out.
FIELDS = ("title", "genres", "tags", "specs", "developer")
DUPLICATE_ENTRIES = True


def read_events(path: str | os.PathLike[str], *, min_rating: float | None = None) -> Events:
    """The reviews; `min_rating` is of hours played. Raises `IdgrError` with file and line."""
    lines = Lines(path)
    return read_blocks(lines.path, _as_json(lines), LAYOUTS, min_rating=min_rating)


def read_entries(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The games that have an `id`. Raises `IdgrError` with file and line."""
    lines = Lines(path)
    for number, line in lines:
        record = parse_record(lines.path, number, line)
        if record.get("id") is not None:
            title = record.get("title") or record.get("app_name")
            yield entry(lines.path, number, record | {"title": title}, "id")


def _as_json(lines: Lines) -> Iterator[Block]:
    """The reviews without their texts, as JSON, which `read_blocks` takes."""
    (layout,) = LAYOUTS
    names = (layout.user, layout.item, layout.time, layout.rating)
    for first, block in lines.blocks(BLOCK):
        found = []
        for number, raw in enumerate(block, first):
            if raw.isspace():
                found.append(raw)
                continue
            record = parse_record(lines.path, number, raw.strip())
            told = {name: record[name] for name in names if name in record}
            try:
                found.append(orjson.dumps(told))
            except TypeError:  # a set, bytes, or half of a surrogate pair, which a literal may hold
                what = "holds what JSON cannot, such as half of a surrogate pair"
                raise IdgrError(what, "mend the line or leave it out", where=lines.path, line=number) from None
        yield first, found
