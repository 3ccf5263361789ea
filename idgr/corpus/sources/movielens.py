"""MovieLens: `ratings.dat` and `movies.dat` (fields between `::`, Latin-1), or `ratings.csv` and `movies.csv` (UTF-8).

The first line of a file tells its form: the `.csv` files begin with the names of their columns.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator

from idgr.corpus.events import EventBuilder, Events
from idgr.corpus.metadata import Entry
from idgr.errors import IdgrError
from idgr.formats.jsonl import Lines

FIELDS = ("title", "genres")
DUPLICATE_ENTRIES = False
_RATINGS = "userId,movieId,rating,timestamp"
_MOVIES = "movieId,title,genres"
_BLOCK = 1024


def read_events(path: str | os.PathLike[str], *, min_rating: float | None = None) -> Events:
    """The ratings. Raises `IdgrError` with file and line."""
    lines = Lines(path)
    builder = EventBuilder(lines.path)
    rows: list[tuple[str, str, int, int]] = []
    for number, fields in _rows(lines, _RATINGS):
        user, item, rating, time = fields
        try:
            row = user, item, int(time), number
            low = min_rating is not None and float(rating) < min_rating
        except ValueError:
            raise IdgrError(
                f"rating {rating!r} or timestamp {time!r} is not a number", "mend the line", where=path, line=number
            ) from None
        if not (user and item and abs(row[2]) < 2**62):
            raise IdgrError("an empty key or a time out of range", "mend the line", where=path, line=number)
        if not low:
            rows.append(row)
        if len(rows) == _BLOCK:
            builder.add(*zip(*rows, strict=True))
            rows.clear()
    if rows:
        builder.add(*zip(*rows, strict=True))
    return builder.events()


def read_entries(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The films: title (with its year) and genres. Raises `IdgrError` with file and line."""
    lines = Lines(path)
    for number, (item, title, genres) in _rows(lines, _MOVIES):
        if not item:
            raise IdgrError("no movieId", "mend the line", where=lines.path, line=number)
        known = [] if genres == "(no genres listed)" else genres.split("|")
        yield Entry(lines.path, number, item, {"title": title, "genres": known})


def _rows(lines: Lines, header: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of every line below the header, if the file has one."""
    names = header.split(",")
    separated: bool | None = None
    for number, line in lines:
        if separated is None:
            separated = line.decode("latin-1") == header
            if separated:
                continue
        if separated:
            try:
                text = line.decode()
            except UnicodeDecodeError as fault:
                raise IdgrError(
                    f"not valid UTF-8 ({fault.reason})", "save the file as UTF-8", where=lines.path, line=number
                ) from None
            try:
                fields = next(csv.reader([text])) if '"' in text else text.split(",")
            except csv.Error as fault:  # such as a carriage return, or a field longer than the module takes
                raise IdgrError(
                    f"not a line of CSV ({fault})", "mend the line", where=lines.path, line=number
                ) from None
        else:
            fields = line.decode("latin-1").split("::")
        if len(fields) != len(names):
            raise IdgrError(
                f"{len(fields)} fields, not {len(names)}",
                f"give {'::'.join(names)}, or commas below the header {header}",
                where=lines.path,
                line=number,
            )
        yield number, fields
