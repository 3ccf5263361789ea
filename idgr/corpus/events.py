"""Who took what when, in columns: the form in which interactions pass through `prep`.

Reads JSON Lines of any platform whose keys a `Layout` names. Legend: E events, U users, I items.
"""

from __future__ import annotations

import os
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from idgr.corpus.times import Int32s, Int64s, check_units, is_date, is_number, microseconds, parse_time
from idgr.errors import IdgrError, faulty_line
from idgr.formats.jsonl import Lines, parse_object
from idgr.formats.records import key

Bools = npt.NDArray[np.bool_]

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
        below_rating: how many events were left out since they are rated too low, and how many users and items with all
            of theirs.
        parts: of several files the path of each, and the line that its own are counted on from; empty of one file.
        without_key: so many rows were left out since they name no user or no item.
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
    below_rating: tuple[int, int, int] = (0, 0, 0)
    parts: tuple[tuple[int, str], ...] = ()
    without_key: int = 0

    def __len__(self) -> int:
        return len(self.user)

    def place(self, line: int) -> tuple[str, int]:
        """The file that a line stands in, and its number there."""
        return place_of(line, self.source, self.parts)

    def keep(self, mask: Bools) -> Events:
        """The events where `mask` [E] holds, in the same order and with the same codes."""
        return replace(self, user=self.user[mask], item=self.item[mask], time=self.time[mask], line=self.line[mask])


def place_of(line: int, source: str, parts: tuple[tuple[int, str], ...]) -> tuple[str, int]:
    """The file and the number of a line that is counted over several files (`Events.parts`)."""
    # The last that begins before it: one without a line of its own begins where the next one does.
    begin, path = next((part for part in reversed(parts) if part[0] < line), (0, source))
    return path, line - begin


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

    def __contains__(self, key: object) -> bool:
        return key in self._codes


class LowRated:
    """Counts the events that are left out since they are rated too low, and knows their users and items."""

    def __init__(self) -> None:
        self._events, self._users, self._items = 0, set[str](), set[str]()

    def add(self, user: str, item: str) -> None:
        self._events += 1
        self._users.add(user)
        self._items.add(item)

    def counts(self, users: Codes, items: Codes) -> tuple[int, int, int]:
        """How many events, and how many users and items that are not among those with other events."""
        return (
            self._events,
            sum(user not in users for user in self._users),
            sum(item not in items for item in self._items),
        )


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
    builder = EventBuilder(path)
    parser = _RowParser(path, layout, is_date(row.get(layout.time)), min_rating)
    builder.low = parser.low
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
        self.low = LowRated()

    def add(
        self,
        users: Sequence[str],
        items: Sequence[str],
        times: Sequence[int | float] | npt.NDArray[Any],
        lines: Sequence[int],
    ) -> None:
        """Add a block of events, given as columns, with times."""
        if not users:
            return
        self._user.extend(map(self._users.of, users))
        self._item.extend(map(self._items.of, items))
        self._line.extend(lines)
        self._times.append(np.array(times))

    def events(
        self,
        *,
        scale: bool = True,
        timed: bool = True,
        sequences: bool = False,
        parts: tuple[tuple[int, str], ...] = (),
        without_key: int = 0,
    ) -> Events:
        """What was added; `scale` where the unit of the times is to be found out (see `idgr.corpus.times`).

        The others are as those of `Events`.

        Raises:
            IdgrError: the unit of a time cannot be told.
        """
        line = np.frombuffer(self._line, np.int32) if self._line else np.zeros(0, np.int32)
        return Events(
            source=self._source,
            users=self._users.keys(),
            items=self._items.keys(),
            user=np.frombuffer(self._user, np.int32) if self._user else np.zeros(0, np.int32),
            item=np.frombuffer(self._item, np.int32) if self._item else np.zeros(0, np.int32),
            time=self._time(line, parts, scale=scale),
            line=line,
            timed=timed,
            sequences=sequences,
            below_rating=self.low.counts(self._users, self._items),
            parts=parts,
            without_key=without_key,
        )

    def _time(self, line: Int32s, parts: tuple[tuple[int, str], ...], *, scale: bool) -> Int64s:
        if not self._times:
            return np.zeros(0, np.int64)
        times, self._times = self._times, []
        time = np.concatenate(times)
        alike = all(part.dtype == time.dtype for part in times)
        if alike:
            times.clear()  # before the copies below are made
        if not scale:
            return time.astype(np.int64, copy=False)
        try:
            check_units(time, line, self._source)
        except IdgrError as fault:
            path, number = place_of(fault.line or 0, self._source, parts)
            raise IdgrError(fault.what, fault.todo, where=path, line=number) from None
        # Whole numbers among fractions keep all their digits.
        return microseconds(time) if alike else np.concatenate([microseconds(part) for part in times])


Columns = tuple[Sequence[str], Sequence[str], Sequence[int | float], Sequence[int]]


class _RowParser:
    """Takes user, item and time out of the records of one file."""

    def __init__(self, path: str, layout: Layout, dated: bool, min_rating: float | None) -> None:
        self._path, self._layout, self.dated, self._min_rating = path, layout, dated, min_rating
        self._get = itemgetter(layout.user, layout.item, layout.time)
        self.low = LowRated()

    def columns(self, first: int, block: list[bytes]) -> Columns:
        """Users, items, times and line numbers of a block of lines."""
        if self._min_rating is None and not self.dated:
            try:
                users, items, times = zip(*[self._get(orjson.loads(line)) for line in block], strict=True)
            except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
                return self._careful(first, block)
            texts = set(map(type, users)) == {str} and set(map(type, items)) == {str}
            numbers = set(map(type, times)) <= {int, float} and max(map(abs, times)) < 2**62
            if texts and numbers and all(users) and all(items):
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
            self.low.add(user, item)
            return None
        return user, item, time


def parse_number(record: dict[str, Any], name: str) -> float:
    """The number under `name`. Raises `ValueError` where it is missing or something else."""
    value = record.get(name)
    if isinstance(value, str) and is_number(value):
        return float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise ValueError(f'"{name}" is missing, NaN or not a number; mend the record or leave --min-rating out')
