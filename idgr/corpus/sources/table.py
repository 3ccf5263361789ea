"""Tables of one's own: CSV, TSV, Parquet and RecBole's atomic files, whose columns the user names or their names tell.

Legend: E events.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from idgr.corpus.events import EventBuilder, Events
from idgr.corpus.metadata import Entry
from idgr.corpus.text import item_fields
from idgr.corpus.times import is_date, parse_time
from idgr.errors import IdgrError
from idgr.formats.tables import Batch, Table, open_tables, told_names

Tell = Callable[[str], object]

# Usual names of columns, the more telling first, without case and punctuation.
USUAL = {
    "user": (
        *("userid", "user", "uid", "customerid", "customer", "clientid", "memberid", "visitorid", "accountid"),
        *("reviewerid", "reviewer", "buyerid", "username", "sessionid"),
    ),
    "item": (
        *("itemid", "item", "iid", "productid", "product", "sku", "articleid", "parentasin", "asin", "movieid"),
        *("bookid", "isbn", "songid", "trackid", "videoid", "newsid", "businessid", "contentid", "stockcode"),
    ),
    "time": (
        *("timestamp", "unixtimestamp", "unixreviewtime", "time", "datetime", "eventtime", "date", "createdat"),
        *("when", "ts", "tdat", "orderdate", "purchasedate", "invoicedate", "reviewdate"),
    ),
    "rating": ("rating", "stars", "score", "overall"),
}
_KEYS_OF_ITEMS = (*USUAL["item"], "id")
_LARGEST = 2**62
_YEAR_9999 = 253_370_764_800_000_000  # microseconds


@dataclass(frozen=True)
class Columns:
    """Which columns hold what; None is guessed from `USUAL`.

    Attributes:
        names: of all columns, where the files have no header.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    names: Sequence[str] | None = None


def read_events(
    paths: Sequence[str],
    columns: Columns,
    *,
    min_rating: float | None = None,
    drop_missing: bool = False,
    tell: Tell = lambda note: None,
) -> Events:
    """The rows of some tables, one after the other, as events; keys stay as they stand.

    Args:
        paths: see `open_tables`.
        min_rating: leave out what is rated lower.
        drop_missing: leave out rows without a user or an item, which are an error else.
        tell: takes which columns were taken, in words.

    Raises:
        IdgrError: no column has a usual name, or a row is broken or lacks what it needs, with its line.
        UsageError: a column that was named is not there.
    """
    reader = _Reader(", ".join(paths), columns, min_rating, drop_missing, tell)
    for table in open_tables(paths, columns.names):
        reader.read(table)
    return reader.events()


class _Reader:
    """Collects the events of tables."""

    def __init__(self, source: str, columns: Columns, min_rating: float | None, drop: bool, tell: Tell) -> None:
        self._columns, self._min_rating, self._drop, self._tell = columns, min_rating, drop, tell
        self._builder = EventBuilder(source)
        self._parts: list[tuple[int, str]] = []
        self._lines = self._without_key = 0
        self._dated: bool | None = None
        self._told = ""

    def events(self) -> Events:
        if not self._lines:
            raise IdgrError("holds a header only", "give a file with at least one row", where=self._parts[0][1])
        return self._builder.events(scale=not self._dated, parts=tuple(self._parts), without_key=self._without_key)

    def read(self, table: Table) -> None:
        """Add the rows of a table."""
        begin = self._lines
        self._parts.append((begin, table.path))
        wanted = ["user", "item", "time"] + (["rating"] if self._min_rating is not None else [])
        found = {role: _column(table, role, getattr(self._columns, role)) for role in wanted}
        told = f"users from {found['user']}, items from {found['item']}, times from {found['time']}"
        told += f", ratings from {found['rating']}" if "rating" in found else ""
        if told != self._told:
            self._tell(f"{table.path}: {told}")
            self._told = told
        for frame, lines in table.batches(list(dict.fromkeys(found.values()))):
            if lines:
                self._lines = begin + lines[-1]
                self._add(table, found, (frame, lines), begin)

    def _add(self, table: Table, found: dict[str, str], batch: Batch, begin: int) -> None:
        frame, lines = batch
        users, items = (_keys(table, frame.get_column(found[role])) for role in ("user", "item"))
        missing = (users.is_null() | (users == "")) | (items.is_null() | (items == ""))
        if missing.any():
            if not self._drop:
                self._refuse_missing(table, found, (users, items), lines)
            self._without_key += int(missing.sum())
            frame, lines, users, items = _kept(frame, lines, users, items, ~missing)
        if self._min_rating is not None and frame.height:
            enough = _ratings(table, frame.get_column(found["rating"]), lines) >= self._min_rating
            low = pl.Series(~enough)
            for user, item in zip(users.filter(low), items.filter(low), strict=True):
                self._builder.low.add(user, item)
            frame, lines, users, items = _kept(frame, lines, users, items, pl.Series(enough))
        if not frame.height:
            return
        times = self._times(table, frame.get_column(found["time"]), lines)
        # Lines count on from file to file, so that each tells its file.
        counted = range(begin + lines.start, begin + lines.stop) if isinstance(lines, range) else None
        self._builder.add(users.to_list(), items.to_list(), times, counted or [begin + line for line in lines])

    def _refuse_missing(
        self, table: Table, found: dict[str, str], keys: tuple[pl.Series, pl.Series], lines: Sequence[int]
    ) -> None:
        empty = {
            role: (key.is_null() | (key == "")).arg_true() for role, key in zip(("user", "item"), keys, strict=True)
        }
        role = min((role for role in empty if len(empty[role])), key=lambda role: int(empty[role][0]))
        what = f"nothing in the column of {role}s, {found[role]}"
        todo = "mend the row, or give --missing-keys drop to leave such rows out"
        raise table.fault(what, todo, lines[int(empty[role][0])])

    def _times(self, table: Table, column: pl.Series, lines: Sequence[int]) -> npt.NDArray[Any] | list[int | float]:
        """The times [E] as numbers, or as microseconds where they are dates."""
        if column.dtype.is_integer() and is_date(str(column[0])):  # such as 20190301
            column = column.cast(pl.String)
        kind = column.dtype
        if kind in (pl.Date, pl.Datetime):
            dated = True
        elif kind.is_integer() or kind.is_float():
            dated = False
        elif kind == pl.String:
            dated = is_date(column[0]) if self._dated is None else self._dated
        else:
            what = f"the column of times, {column.name}, holds {kind}"
            raise IdgrError(what, "give numbers or dates", where=table.path)
        if self._dated is None:
            self._dated = dated
        if dated != self._dated:
            what = f"the column of times, {column.name}, holds {kind}, where those before hold another form of time"
            raise IdgrError(what, "use one form of time in all files", where=table.path)
        if column.null_count() == 0:
            fast = _typed_dates(column) if dated else _numbers(column)
            if fast is not None:
                return fast
        return _texts(table, column, lines, dated)


def _kept(
    frame: pl.DataFrame, lines: Sequence[int], users: pl.Series, items: pl.Series, mask: pl.Series
) -> tuple[pl.DataFrame, Sequence[int], pl.Series, pl.Series]:
    if mask.all():
        return frame, lines, users, items
    chosen = np.asarray(lines)[mask.to_numpy()].tolist()
    return frame.filter(mask), chosen, users.filter(mask), items.filter(mask)


def _column(table: Table, role: str, named: str | None) -> str:
    """The column of a role: the one that is named, or the first of a usual name."""
    return _named(table, f"--{role}-col", named) or _guessed(table, f"--{role}-col", f"{role}s", USUAL[role])


def _named(table: Table, flag: str, name: str | None) -> str | None:
    return None if name is None else table.check(name, flag)


def _guessed(table: Table, flag: str, holds: str, usual: Sequence[str]) -> str:
    plain = {re.sub(r"[\W_]", "", name.lower()): name for name in reversed(table.names)}
    name = next((plain[one] for one in usual if one in plain), None)
    if name is None:
        what = f"no column has a usual name for {holds}: {told_names(table.names)}"
        raise IdgrError(what, f"name it with {flag}", where=table.path)
    return table.check(name, flag)


def _keys(table: Table, column: pl.Series) -> pl.Series:
    """Keys as text, just as they stand."""
    if column.dtype.is_integer() or column.dtype in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    if column.dtype != pl.String:
        what = f"the column {column.name} holds {column.dtype}, and keys are text or whole numbers"
        raise IdgrError(what, "write it as text, so that keys stay as they are", where=table.path)
    return column


def _numbers(column: pl.Series) -> npt.NDArray[Any] | None:
    """Numbers, or texts that plainly are; None where one has to be looked at."""
    if column.dtype == pl.String or column.dtype.is_integer():
        whole = column.cast(pl.Int64, strict=False)
        if whole.null_count() == 0:
            values = whole.to_numpy()
            return values if values.min() > -_LARGEST and values.max() < _LARGEST else None
    floats = column.cast(pl.Float64, strict=False)
    if floats.null_count():
        return None
    fractions = floats.to_numpy()
    return fractions if bool((np.abs(fractions) < _LARGEST).all()) else None


def _typed_dates(column: pl.Series) -> npt.NDArray[np.int64] | None:
    """Dates of Parquet in microseconds (UTC where they tell no zone); None of texts, and of the year 9999."""
    if column.dtype == pl.String:
        return None
    values = column.cast(pl.Datetime("us")) if column.dtype == pl.Date else column
    times = values.dt.timestamp("us").to_numpy()
    return times if bool((times < _YEAR_9999).all()) else None


def _texts(table: Table, column: pl.Series, lines: Sequence[int], dated: bool) -> list[int | float]:
    """The times of values that are looked at one by one; each value once."""
    if column.dtype in (pl.Date, pl.Datetime):
        column = column.dt.to_string("iso")
    known: dict[Any, int | float] = {}
    found = []
    for value, line in zip(column.to_list(), lines, strict=True):
        if value not in known:
            try:
                known[value] = parse_time({column.name: value}, column.name, dated=dated)
            except ValueError as fault:
                what, _, todo = str(fault).rpartition("; ")
                told = f'"{column.name}"'
                raise table.fault(what.replace(told, f"{told} {value!r:.60}", 1), todo, line) from None
        found.append(known[value])
    return found


def _ratings(table: Table, column: pl.Series, lines: Sequence[int]) -> npt.NDArray[np.float64]:
    """The ratings [E]. Raises `IdgrError` with the line of what is none."""
    values = column.cast(pl.Float64, strict=False) if column.dtype != pl.Float64 else column
    wrong = (values.is_null() | values.is_nan()).arg_true()
    if len(wrong):
        at = int(wrong[0])
        what = f"rating {column[at]!r} is not a number"
        raise table.fault(what, "mend the row or leave --min-rating out", lines[at])
    return values.to_numpy()


def read_entries(
    paths: Sequence[str],
    key: str | None = None,
    text: Sequence[str] | None = None,
    *,
    like: str | None = None,
    tell: Tell = lambda note: None,
) -> Iterator[Entry]:
    """The items of some tables.

    Args:
        paths: see `open_tables`.
        key: the column of their keys; None guesses.
        text: the columns that describe them; None takes all that do (`idgr.corpus.text`).
        like: what the events call that column, which is the first guess.
        tell: takes which columns were taken, in words.

    Raises:
        IdgrError: no column has a usual name, or a row is broken or has no key, with its line.
        UsageError: a column that was named is not there.
    """
    last = ""
    for table in open_tables(paths):
        name = _named(table, "--item-id-col", key or (None if like is None else table.find(like)))
        name = name or _guessed(table, "--item-id-col", "keys of items", _KEYS_OF_ITEMS)
        if text is None:
            others = [one for one in dict.fromkeys(table.names) if one and one != name]
            others = [one for one in others if item_fields({one: "a word"})]
        else:
            others = list(dict.fromkeys(table.check(one, "--text-col") for one in text))
        told = f"items from {name}, their text from {told_names(others) or 'nothing'}"
        if told != last:
            tell(f"{table.path}: {told}")
            last = told
        yield from _entries(table, name, others)


def _entries(table: Table, name: str, others: list[str]) -> Iterator[Entry]:
    for frame, lines in table.batches(list(dict.fromkeys([name, *others]))):
        keys = _keys(table, frame.get_column(name)).to_list()
        rows = frame.select(_described(frame.get_column(one)) for one in others).to_dicts() or [{}] * len(keys)
        for item, line, row in zip(keys, lines, rows, strict=True):
            if not item:
                raise table.fault(f"nothing in the column of keys, {name}", "mend the row or leave it out", line)
            yield Entry(table.path, line, item, row)


def _described(column: pl.Series) -> pl.Series:
    """Values that a text is made of: dates and categories in words, durations as `2h 10m`, decimals as numbers."""
    kind = column.dtype
    if kind == pl.Duration:
        return column.dt.to_string("polars")
    if kind.is_temporal() or kind in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    return column.cast(pl.Float64) if kind.is_decimal() else column
