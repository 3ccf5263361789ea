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
# The longest lines of the real dumps are below 200,000 bytes. The limits bound what parsing one line can cost.
MAX_LITERAL_BYTES = 2_000_000
MAX_DEPTH = 30


def read_events(path: str | os.PathLike[str], *, min_rating: float | None = None) -> Events:
    """The reviews of a dump. Raises `IdgrError` with file and line."""
    return read_layout(path, LAYOUTS, min_rating=min_rating)


def read_entries(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The metadata of a dump: lines of JSON, or of Python literals (2014). Raises `IdgrError` with file and line."""
    lines = Lines(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes such as "\d" in literals, which Python warns of
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
        ValueError: it is something else, or longer or nested deeper than any honest record.
    """
    if len(line) > MAX_LITERAL_BYTES:
        raise ValueError(f"a line of {len(line):,} bytes, more than {MAX_LITERAL_BYTES:,}")
    try:
        text = line.decode()
    except UnicodeDecodeError as fault:
        raise ValueError(f"not valid UTF-8 ({fault.reason})") from None
    _check_depth(text)
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError) as fault:
        reason = fault.msg if isinstance(fault, SyntaxError) else "it holds more than values"
        raise ValueError(f"not a Python literal ({reason})") from None


def _check_depth(text: str) -> None:
    """Raise `ValueError` where brackets or signs outside of strings nest too deep for Python's parser to be safe."""
    depth = signs = 0
    quote = ""
    escaped = False
    for c in text:
        if quote:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == quote:
                quote = ""
            continue
        if c in "'\"":
            quote, signs = c, 0
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c in "+-~" or c.isalpha():
            signs += 1
        elif c == ",":
            signs = 0
        if depth > MAX_DEPTH or signs > 5 * MAX_DEPTH:
            raise ValueError(f"not a Python literal of an item (nested deeper than {MAX_DEPTH})")
