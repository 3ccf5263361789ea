"""Amazon's review dumps of 2014, 2018 and 2023. The keys of the first record tell which of them a file is.

Metadata of 2014 has a Python literal on each line; it is parsed as a literal, never run.
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator
from typing import Any

import orjson

from idgr.corpus.events import Events, Layout
from idgr.corpus.events import read_events as read_layout
from idgr.corpus.metadata import Entry, entry
from idgr.errors import IdgrError
from idgr.formats.jsonl import Lines, parse_object

LAYOUTS = (
    Layout(user="reviewerID", item="asin", time="unixReviewTime", rating="overall"),  # 2014 and 2018
    Layout(user="user_id", item="parent_asin", time="timestamp", rating="rating"),  # 2023
)
FIELDS = None  # all that describe the item, in the record's own order
DUPLICATE_ENTRIES = True  # the dump of 2018 repeats entries; the first counts
MAX_LITERAL_BYTES = 2_000_000  # far above the lines of real dumps; bounds what parsing one line can cost


def read_events(path: str | os.PathLike[str], *, min_rating: float | None = None) -> Events:
    """The reviews of a dump. Raises `IdgrError` with file and line."""
    return read_layout(path, LAYOUTS, min_rating=min_rating)


def read_entries(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The metadata of a dump: lines of JSON, or of Python literals (2014). Raises `IdgrError` with file and line."""
    lines = Lines(path)
    for number, line in lines:
        record = _parse(lines.path, number, line)
        # Some titles of the 2018 dump are a piece of the page's script.
        if "getTime" in str(record.get("title", "")):
            record = record | {"title": None}
        yield entry(lines.path, number, record, "parent_asin" if "parent_asin" in record else "asin")


def _parse(path: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        if not line.lstrip(b"{ \t").startswith((b"'", b'u"', b"u'")):
            return parse_object(path, number, line)  # tells what is wrong with it as JSON
        try:
            record = parse_literal(line)
        except ValueError as fault:
            raise IdgrError(str(fault), "mend the line or leave it out", where=path, line=number) from None
    if not isinstance(record, dict):
        raise IdgrError("not a record", "give one item a line", where=path, line=number)
    return record


def parse_literal(line: bytes) -> Any:
    """The value of a Python literal in UTF-8: strings, numbers, lists, dictionaries, None and the like.

    Raises:
        ValueError: it is something else, longer than any honest record, or nested too deep for Python.
    """
    if len(line) > MAX_LITERAL_BYTES:
        raise ValueError(f"a line of {len(line):,} bytes, more than {MAX_LITERAL_BYTES:,}")
    try:
        text = line.decode()
    except UnicodeDecodeError as fault:
        raise ValueError(f"not valid UTF-8 ({fault.reason})") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as "\d", which Python warns of
            return ast.literal_eval(text)
    except SyntaxError as fault:
        raise ValueError(f"not a Python literal ({fault.msg})") from None
    except (ValueError, TypeError):
        raise ValueError("not a Python literal (it holds more than values)") from None
    except (RecursionError, MemoryError):  # how Python's parser gives up on nesting
        raise ValueError("not a Python literal of an item (nested too deep)") from None
