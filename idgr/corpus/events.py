"""Who took what when, in columns: the form in which interactions pass through `prep`.

Reads JSON Lines of any platform whose keys a `Layout` names. Knows nothing of metadata, filtering or splitting.
Legend: E events, U users, I items.
"""

from __future__ import annotations

import os
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from idgr.errors import IdgrError, faulty_line
from idgr.formats.jsonl import Lines, parse_object
from idgr.formats.records import key

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
BLOCK = 256  # lines; their parsed records then still lie in the processor's cache


@dataclass(frozen=True)
class Events:
    """Interactions in the order of their file.

    Attributes:
        source: the file that they were read from, for messages.
        users: [U] keys by code, in order of first appearance.
        items: [I] the same of the items.
        user: [E] code of the user.
        item: [E] code of the item.
        time: [E] microseconds since 1970 (UTC); the place in the user's sequence where `timed` is false.
        line: [E] the line of the file that the event stands in.
        timed: whether the times are real.
        sequences: whether each user's events came as one sequence, oldest first, rather than as single events.
    """

    source: str
    users: list[str]
    items: list[str]
    user: Int32s
    item: Int32s
    time: Int64s
    line: Int32s
    timed: bool = True
    sequences: bool = False

    def __len__(self) -> int:
        return len(self.user)

    def keep(self, mask: Bools) -> Events:
        """The events where `mask` [E] holds, in the same order and with the same codes."""
        return replace(self, user=self.user[mask], item=self.item[mask], time=self.time[mask], line=self.line[mask])


@dataclass(frozen=True)
class Layout:
    """The names of the keys in a platform's interaction records."""

    user: str
    item: str
    time: str
    rating: str

    def fits(self, row: dict[str, Any]) -> bool:
        return self.user in row and self.item in row


class Codes:
    """Keys to codes, counted from 0 in order of first appearance."""

    def __init__(self) -> None:
        self._codes: defaultdict[str, int] = defaultdict()
        self._codes.default_factory = self._codes.__len__
        self.of = self._codes.__getitem__

    def keys(self) -> list[str]:
        return list(self._codes)


def read_events(path: str | os.PathLike[str], layouts: Sequence[Layout], *, min_rating: float | None = None) -> Events:
    """Read one interaction a line.

    Args:
        path: JSON Lines; a file, a `.gz` file, or `-`.
        layouts: the first one that fits the first record holds for all.
        min_rating: leave out what is rated lower.

    Raises:
        IdgrError: naming the file and line of the first record that is malformed, or lacks a key.
    """
    lines = Lines(path)
    return read_blocks(lines.path, lines.blocks(BLOCK), layouts, min_rating=min_rating)


Block = tuple[int, list[bytes]]


def read_blocks(
    path: str, blocks: Iterator[Block], layouts: Sequence[Layout], *, min_rating: float | None = None
) -> Events:
    """The same as `read_events` from `Lines.blocks`; `path` is for messages."""
    number, row, blocks = peek(path, blocks)
    layout = next((layout for layout in layouts if layout.fits(row)), None)
    if layout is None:
        wanted = " or ".join(f'"{layout.user}" and "{layout.item}"' for layout in layouts)
        raise IdgrError(f"no {wanted}", "give this source's records, one a line", where=path, line=number)
    parser = _RowParser(path, layout, isinstance(row.get(layout.time), str), min_rating)
    builder = EventBuilder(path)
    for first, block in blocks:
        builder.add(*parser.columns(first, block))
    return builder.events(scale=not parser.dated)


def peek(path: str, blocks: Iterator[Block]) -> tuple[int, dict[str, Any], Iterator[Block]]:
    """The first record with its line, and the blocks as they were before. `blocks` hold at least one line of text."""
    passed = []
    for first, block in blocks:
        passed.append((first, block))
        for number, raw in enumerate(block, first):
            if not raw.isspace():
                return number, parse_object(path, number, raw), chain(passed, blocks)
    raise AssertionError("Lines raises where there is no text")


def from_rows(source: str, rows: Sequence[dict[str, Any]]) -> Events:
    """Events from records of `user_id`, `item_id` and `timestamp` that are at hand. `source` is for messages."""
    builder = EventBuilder(source)
    if rows:
        users, items, times = ([row[name] for row in rows] for name in ("user_id", "item_id", "timestamp"))
        builder.add(users, items, times, range(1, len(rows) + 1))
    return builder.events()


class EventBuilder:
    """Collects columns block by block, in compact arrays."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._users, self._items = Codes(), Codes()
        self._user, self._item, self._line = array("i"), array("i"), array("i")
        self._times: list[npt.NDArray[Any]] = []

    def add(
        self, users: Sequence[str], items: Sequence[str], times: Sequence[int | float], lines: Sequence[int]
    ) -> None:
        """Add a block of events, given as columns, with times in one unit through all blocks."""
        if not users:
            return
        self._user.extend(map(self._users.of, users))
        self._item.extend(map(self._items.of, items))
        self._line.extend(lines)
        self._times.append(np.array(times))

    def events(self, *, scale: bool = True, timed: bool = True, sequences: bool = False) -> Events:
        """What was added; `scale` where the unit of the times is to be found out (see `microseconds`)."""
        time = np.concatenate(self._times) if self._times else np.zeros(0, np.int64)
        return Events(
            source=self._source,
            users=self._users.keys(),
            items=self._items.keys(),
            user=np.frombuffer(self._user, np.int32) if self._user else np.zeros(0, np.int32),
            item=np.frombuffer(self._item, np.int32) if self._item else np.zeros(0, np.int32),
            time=microseconds(time) if scale else time.astype(np.int64),
            line=np.frombuffer(self._line, np.int32) if self._line else np.zeros(0, np.int32),
            timed=timed,
            sequences=sequences,
        )


def microseconds(time: npt.NDArray[Any]) -> Int64s:
    """Times in a unit that their size tells (seconds, or milli-, micro- or nanoseconds since 1970) in microseconds.

    Seconds reach 1e11 in the year 5138, milliseconds 1e14 in the same, and so on, so dates after 1973 are told apart.
    """
    largest = float(np.abs(time).max()) if len(time) else 0.0
    if largest < 1e11:
        time = time * 1_000_000
    elif largest < 1e14:
        time = time * 1_000
    elif largest >= 1e17:
        time = time // 1_000
    return (np.rint(time) if time.dtype.kind == "f" else time).astype(np.int64)


def parse_date(text: str) -> int:
    """Microseconds since 1970 of an ISO date or date and time; UTC where it names no zone. Raises `ValueError`."""
    moment = datetime.fromisoformat(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


Columns = tuple[Sequence[str], Sequence[str], Sequence[int | float], Sequence[int]]


class _RowParser:
    """Takes user, item and time out of the records of one file."""

    def __init__(self, path: str, layout: Layout, dated: bool, min_rating: float | None) -> None:
        self._path, self._layout, self.dated, self._min_rating = path, layout, dated, min_rating
        self._get = itemgetter(layout.user, layout.item, layout.time)

    def columns(self, first: int, block: list[bytes]) -> Columns:
        """Users, items, times and line numbers of a block of lines."""
        if self._min_rating is None and not self.dated:
            try:
                users, items, times = zip(*[self._get(orjson.loads(line)) for line in block], strict=True)
            except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
                return self._careful(first, block)
            whole = set(map(type, users)) == {str} and set(map(type, items)) == {str} and set(map(type, times)) == {int}
            if whole and all(users) and all(items) and max(map(abs, times)) < 2**62:
                return users, items, times, range(first, first + len(block))
        return self._careful(first, block)

    def _careful(self, first: int, block: list[bytes]) -> Columns:
        """The same line by line: names the line at fault, and takes what is unusual but right."""
        rows = []
        for number, raw in enumerate(block, first):
            if raw.strip():
                record = parse_object(self._path, number, raw)
                try:
                    row = self._parse(record)
                except ValueError as fault:
                    raise faulty_line(fault, self._path, number) from None
                if row is not None:
                    rows.append((*row, number))
        if not rows:
            return (), (), (), ()
        users, items, times, numbers = zip(*rows, strict=True)
        return users, items, times, numbers

    def _parse(self, record: dict[str, Any]) -> tuple[str, str, int | float] | None:
        """User, item and time of a record; None if its rating is too low. Raises `ValueError`."""
        user, item = key(record, self._layout.user), key(record, self._layout.item)
        time = parse_time(record, self._layout.time, dated=self.dated)
        if self._min_rating is not None and parse_number(record, self._layout.rating) < self._min_rating:
            return None
        return user, item, time


def parse_number(record: dict[str, Any], name: str) -> float:
    """The number under `name`. Raises `ValueError` where it is missing or something else."""
    value = record.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise ValueError(f'"{name}" is missing or not a number; mend the record or leave --min-rating out')


def parse_time(record: dict[str, Any], name: str, *, dated: bool) -> int | float:
    """The time under `name`: a number as it stands or, if `dated`, a date as microseconds. Raises `ValueError`."""
    value = record.get(name)
    if dated and isinstance(value, str):
        try:
            return parse_date(value)
        except ValueError:
            raise ValueError(f'"{name}" is not a date; write it like 2019-03-01 12:00:00') from None
    if not dated and isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) >= 2**62:
            raise ValueError(f'"{name}" is out of range; give seconds or milliseconds since 1970')
        return value
    if name not in record:
        raise ValueError(f'no "{name}"; give every event its time')
    raise ValueError(f'"{name}" is not a {"date" if dated else "number"} as in the first record; use one form of time')
