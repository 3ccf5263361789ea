"""Amazon's review dumps of 2014, 2018 and 2023. The keys of the first record tell which of them a file is.

Metadata of 2014 has a Python literal on each line; it is parsed as a literal, never run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from idgr.corpus.events import Events, Layout
from idgr.corpus.events import read_events as read_layout
from idgr.corpus.literals import parse_record
from idgr.corpus.metadata import Entry, entry
from idgr.formats.jsonl import Lines

LAYOUTS = (
    Layout(user="reviewerID", item="asin", time="unixReviewTime", rating="overall"),  # 2014 and 2018
    Layout(user="user_id", item="parent_asin", time="timestamp", rating="rating"),  # 2023
)
FIELDS = None  # all that describe the item, in the record's own order
DUPLICATE_ENTRIES = True  # the dumps of 2018 and 2023 repeat entries


def read_events(path: str | os.PathLike[str], *, min_rating: float | None = None) -> Events:
    """The reviews of a dump. Raises `IdgrError` with file and line."""
    return read_layout(path, LAYOUTS, min_rating=min_rating)


def read_entries(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The metadata of a dump: lines of JSON, or of Python literals (2014). Raises `IdgrError` with file and line."""
    lines = Lines(path)
    for number, line in lines:
        record = parse_record(lines.path, number, line)
        # Some titles of the 2018 dump are a piece of the page's script.
        if "getTime" in str(record.get("title", "")):
            record = record | {"title": None}
        yield entry(lines.path, number, record, "parent_asin" if "parent_asin" in record else "asin")
