"""MovieLens: `ratings.dat` and `movies.dat` (fields between `::`), `ratings.csv` and `movies.csv` (with a header), or
100K's `u.data` (fields between tabs) and `u.item` (between bars, with a flag for each genre).

The first line of a file tells its form. A file without a header is UTF-8 (10M) or Latin-1 (100K, 1M), which all of its
bytes tell.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from idgr.corpus.events import EventBuilder, Events
from idgr.corpus.metadata import Entry
from idgr.corpus.times import is_date, parse_time
from idgr.errors import IdgrError, faulty_line
from idgr.formats.file_kinds import table_kind, text_kind
from idgr.formats.jsonl import Lines

FIELDS = ("title", "genres")
DUPLICATE_ENTRIES = False
_RATINGS = ("userId", "movieId", "rating", "timestamp")
_MOVIES = ("movieId", "title", "genres")
# Of 100K's u.item, as its u.genre has them; "unknown" says nothing.
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_U_DATA = re.compile(rb"\d+\t\d+\t\d+\t\d+")
_U_ITEM = re.compile(rb"\d+\|[^|]*\|[^|]*\|[^|]*\|[^|]*(?:\|[01]){19}")
_U_ITEM_NAMES = ("movieId", "title", "released", "", "", *_GENRES)
_BLOCK = 1024

Row = tuple[int, list[str]]
Block = tuple[int, list[bytes]]


def read_events(path: str | os.PathLike[str], *, min_rating: float | None = None) -> Events:
    """The ratings. Raises `IdgrError` with file and line."""
    needed = _RATINGS if min_rating is not None else ("userId", "movieId", "timestamp")
    table = _Table(path, _RATINGS, needed)
    builder = EventBuilder(table.path)
    dated = is_date(table.first["timestamp"])
    rows: list[Row] = []
    for row in table:
        rows.append(row)
        if len(rows) == _BLOCK:
            _add(builder, table, rows, dated, min_rating)
            rows.clear()
    if rows:
        _add(builder, table, rows, dated, min_rating)
    events = builder.events(scale=not dated)
    if not table.latin_1:
        return events
    # Each byte was read as a letter; that all keys are UTF-8 is known only now.
    users, items = _recoded(events.users, events.items)
    return replace(events, users=users, items=items)


def _add(builder: EventBuilder, table: _Table, rows: list[Row], dated: bool, min_rating: float | None) -> None:
    """Add a block of ratings but those below `min_rating`. Raises `IdgrError` with file and line."""
    user_at, item_at, time_at = (table.places[name] for name in ("userId", "movieId", "timestamp"))
    if min_rating is not None:
        rating_at, enough = table.places["rating"], []
        for row in rows:
            if _rating(table.path, row[0], row[1][rating_at]) >= min_rating:
                enough.append(row)
            else:
                builder.low.add(row[1][user_at], row[1][item_at])
        if not (rows := enough):
            return
    numbers, fields = zip(*rows, strict=True)
    users, items = [row[user_at] for row in fields], [row[item_at] for row in fields]
    if not (all(users) and all(items)):
        place = next(at for at, key in enumerate(zip(users, items, strict=True)) if not all(key))
        raise IdgrError("an empty key of a user or movie", "mend the line", where=table.path, line=numbers[place])
    builder.add(users, items, _times(table.path, numbers, [row[time_at] for row in fields], dated), numbers)


def _times(path: str, numbers: Sequence[int], texts: list[str], dated: bool) -> Sequence[int | float]:
    if not dated:
        try:
            times = list(map(int, texts))
        except ValueError:
            pass  # a fraction, or a fault, which is looked for line by line
        else:
            if max(map(abs, times)) < 2**62:
                return times
    found = []
    for number, text in zip(numbers, texts, strict=True):
        try:
            found.append(parse_time({"timestamp": text}, "timestamp", dated=dated))
        except ValueError as fault:
            told = ValueError(str(fault).replace('"timestamp"', f"timestamp {text!r}", 1))
            raise faulty_line(told, path, number) from None
    return found


def _rating(path: str, number: int, text: str) -> float:
    try:
        rating = float(text)
    except ValueError:
        rating = float("nan")
    if rating != rating:
        raise IdgrError(
            f"rating {text!r} is not a number", "mend the line or leave --min-rating out", where=path, line=number
        )
    return rating


def read_entries(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The films: title (with its year), genres and what other columns there are. Raises `IdgrError` with the line."""
    table = _Table(path, _MOVIES, ("movieId", "title"))
    for number, fields in _as_text(table) if table.latin_1 else table:
        record = dict(zip(table.names, fields, strict=True))
        item = record.pop("movieId")
        if not item:
            raise IdgrError("no movieId", "mend the line", where=table.path, line=number)
        if table.names[-1] == _GENRES[-1]:
            known = [genre for genre in _GENRES if record.pop(genre) == "1" and genre != "unknown"]
        else:
            genres = record.get("genres", "")
            known = [] if genres == "(no genres listed)" else genres.split("|")
        yield Entry(table.path, number, item, {"title": record["title"], "genres": known, **_others(record)})


def _others(record: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in record.items() if name and name not in _MOVIES}


class _Table:
    """The rows of a file, below its header if it has one.

    Attributes:
        names: of the columns, those that are wanted as MovieLens spells them.
        places: of the columns that are wanted, by name.
        first: the first row.
        latin_1: whether each byte was read as a letter of Latin-1, since the form allows more than UTF-8.

    Raises:
        IdgrError: the file is of another form, or lacks a column that is needed.
    """

    def __init__(self, path: str | os.PathLike[str], wanted: Sequence[str], needed: Sequence[str]) -> None:
        lines = Lines(path)
        self.path, self._wanted, self._needed = lines.path, wanted, needed
        number, first, self._blocks = _first_line(lines.blocks(256))
        form = self._headless(first)
        self.latin_1 = form is not None
        rows = self._csv(number, first) if form is None else self._separated(*form)
        row = next(rows, None)
        if row is None:
            raise IdgrError("holds a header only", "give a file with at least one record", where=self.path)
        self.first = {name: row[1][place] for name, place in self.places.items()}
        self._rows: Iterator[Row] = chain([row], rows)

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    def _headless(self, first: bytes) -> tuple[str, Sequence[str]] | None:
        """What stands between the fields of a file without a header, and their names; None of one with a header."""
        if b"::" in first:
            return "::", self._wanted
        if self._wanted is _RATINGS and _U_DATA.fullmatch(first):
            return "\t", self._wanted
        return ("|", _U_ITEM_NAMES) if self._wanted is _MOVIES and _U_ITEM.fullmatch(first) else None

    def _separated(self, mark: str, names: Sequence[str]) -> Iterator[Row]:
        self.names = list(names)
        self.places = {name: place for place, name in enumerate(self.names)}
        return self._fields_between(mark)

    def _fields_between(self, mark: str) -> Iterator[Row]:
        for start, block in self._blocks:
            for number, raw in enumerate(block, start):
                if line := raw.strip():
                    fields = line.decode("latin-1").split(mark)
                    if len(fields) != len(self.names):
                        self._refuse_width(number, len(fields))
                    yield number, fields

    def _csv(self, number: int, first: bytes) -> Iterator[Row]:
        header = _decoded(self.path, number, first)
        mark = next((mark for mark in ",;\t" if self._named(header, mark)), None)
        if mark is None:
            raise self._without_header(number, first, header)
        self.names = self._named(header, mark)
        self.places = {name: self.names.index(name) for name in self._wanted if name in self.names}
        rows = self._between_marks(mark)
        next(rows)  # the header
        return rows

    def _without_header(self, number: int, first: bytes, header: str) -> IdgrError:
        what = f"no header that names {', '.join(self._needed)}"
        kind = text_kind(first, self.path) or table_kind(header, self.path)
        if first.startswith(b"{"):
            what, todo = "is JSON Lines, not MovieLens", "read it with `idgr prep jsonl`, `amazon` or `yelp`"
        elif kind is None or "CSV" in kind.what or "prep movielens" in kind.todo:
            todo = self._forms()
        else:
            what, todo = f"the file {kind.what}", kind.todo
        return IdgrError(what, todo, where=self.path, line=number)

    def _named(self, header: str, mark: str) -> list[str]:
        """The names of the columns, if those that are needed are among them."""
        spelled = {name.lower(): name for name in self._wanted}
        try:
            cells = [cell.strip() for cell in next(csv.reader([header], delimiter=mark), [])]
        except csv.Error:
            return []
        names = [spelled.get(cell.lower().replace("_", ""), cell) for cell in cells]
        return names if set(self._needed) <= set(names) else []

    def _between_marks(self, mark: str) -> Iterator[Row]:
        """A row may have several lines, where a line ends within quotes."""
        texts = (
            _decoded(self.path, number, raw) for start, block in self._blocks for number, raw in enumerate(block, start)
        )
        reader = csv.reader(texts, delimiter=mark)
        before = 0
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as fault:  # such as a carriage return, or a field longer than the module takes
                raise IdgrError(
                    f"not a line of CSV ({fault})", "mend the line", where=self.path, line=before + 1
                ) from None
            if fields is None:
                return
            number, before = before + 1, reader.line_num
            if len(fields) == len(self.names):
                yield number, fields
            elif any(field.strip() for field in fields):
                self._refuse_width(number, len(fields))

    def _refuse_width(self, number: int, width: int) -> None:
        what = f"{width} fields, not {len(self.names)}"
        raise IdgrError(what, self._forms(), where=self.path, line=number)

    def _forms(self) -> str:
        return f"give {'::'.join(self._wanted)}, or commas below the header {','.join(self._wanted)}"


def _first_line(blocks: Iterator[Block]) -> tuple[int, bytes, Iterator[Block]]:
    """The first line that is not blank with its number, and the blocks as they were before."""
    passed = []
    for start, block in blocks:
        passed.append((start, block))
        for number, raw in enumerate(block, start):
            if not raw.isspace():
                return number, raw.strip(), chain(passed, blocks)
    raise AssertionError("Lines raises where there is no text")


def _decoded(path: str, number: int, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as fault:
        what = f"not valid UTF-8 ({fault.reason})"
        raise IdgrError(what, "save the file as UTF-8", where=path, line=number) from None


def _recoded(*columns: list[str]) -> list[list[str]]:
    """Texts that were read as Latin-1, in UTF-8 if all of them are."""
    try:
        return [[text.encode("latin-1").decode() for text in texts] for texts in columns]
    except UnicodeDecodeError:
        return list(columns)


def _as_text(table: _Table) -> list[Row]:
    """All rows of a `.dat` file in the encoding that its bytes tell.

    Raises:
        IdgrError: some lines are UTF-8 beyond ASCII, and fewer are damaged.
    """
    rows, utf8, damaged = list(table), 0, []
    for number, fields in rows:
        raw = "::".join(fields)
        if raw.isascii():
            continue
        try:
            raw.encode("latin-1").decode()
            utf8 += 1
        except UnicodeDecodeError:
            damaged.append(number)
    if utf8 > len(damaged) > 0:
        what = f"not valid UTF-8, as the file is elsewhere ({utf8:,} lines)"
        raise IdgrError(what, "mend the line", where=table.path, line=damaged[0])
    return rows if damaged else [(number, _recoded(fields)[0]) for number, fields in rows]
