"""Tables in batches of rows: CSV and the like, Parquet, and folders of their parts.

polars parses what is plain; the `csv` module of Python goes over a block again whose lines are not one record each, and
names the line of a fault. Nothing is guessed of the values: those of CSV stay the text that they are.
"""

from __future__ import annotations

import csv
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from typing import IO

import polars as pl
from polars.exceptions import PanicException, PolarsError

from idgr.errors import IdgrError, UsageError
from idgr.formats.jsonl import STDIN, Lines
from idgr.formats.part_files import is_folder, is_parquet, part_files

BLOCK = 1 << 16  # lines of CSV that are parsed at once
ROWS = 1 << 20  # of Parquet
_DELIMITERS = ",;\t|"
_TYPED = re.compile(r"(.+):(?:token|float)(?:_seq)?")  # RecBole's spelling of a column
_MOST_NAMES = 40  # of columns that an error tells

Batch = tuple[pl.DataFrame, Sequence[int]]


class Table(ABC):
    """A table whose rows are read once, in their order.

    Attributes:
        path: of the file.
        names: of its columns, in their order, without RecBole's types.
        numbered: "line" or "row", which the numbers of its batches count.
    """

    path: str
    names: list[str]
    numbered: str

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """These columns of the next rows, and the number of the line (of Parquet: of the row) of each, from 1.

        Those of CSV are `String`, and null or empty where a row has nothing there.

        Raises:
            IdgrError: a row is broken, with its line.
        """

    def find(self, column: str) -> str | None:
        """The name of a column as the user has it, RecBole's types left aside; None where there is none."""
        name = column if column in self.names else _untyped([column])[0]
        return name if name in self.names else None

    def check(self, column: str, flag: str) -> str:
        """The name of a column, as `find` gives it.

        Raises:
            UsageError: the table has no such column.
            IdgrError: it has two.
        """
        name = self.find(column)
        if name is None:
            raise UsageError(f"{flag} {column}: no such column in {self.path}", f"choose from {told_names(self.names)}")
        if self.names.count(name) > 1:
            raise IdgrError(f"two columns are called {name!r}", "rename one of them", where=self.path, line=1)
        return name

    def fault(self, what: str, todo: str, number: int) -> IdgrError:
        """The error for a row: `path:line:`, or the row of a Parquet file, which has no lines."""
        if self.numbered == "line":
            return IdgrError(what, todo, where=self.path, line=number)
        return IdgrError(f"row {number}: {what}", todo, where=self.path)


def told_names(names: Sequence[str]) -> str:
    """The names of columns for a message, many of them cut short."""
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")


def open_tables(paths: Sequence[str | os.PathLike[str]], columns: Sequence[str] | None = None) -> Iterator[Table]:
    """The tables at some paths, each opened when it is its turn.

    Args:
        paths: files of CSV (commas, semicolons, tabs or bars, as the header tells; gzip or not; `-` for standard input)
            or Parquet, told apart by their first bytes; or folders, whose files are taken in the order of their names,
            but for those that begin with `_` or a dot.
        columns: names for files of CSV without a header.

    Raises:
        IdgrError: one cannot be read, or is no table.
        UsageError: names are given for Parquet.
    """
    for path in paths:
        for part in _parts(os.fspath(path)):
            if not is_parquet(part):
                yield _Csv(part, columns)
            elif columns is None:
                yield _Parquet(part)
            else:
                todo = "leave it out; --user-col and the like name columns"
                raise UsageError(f"--columns is for CSV without a header, and {part} is Parquet", todo)


def _parts(path: str) -> list[str]:
    return part_files(path, "Parquet or CSV") if path != STDIN and is_folder(path) else [path]


class _Parquet(Table):
    numbered = "row"

    def __init__(self, path: str) -> None:
        self.path = path
        with self._told():
            self._lazy = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            self.names = self._lazy.collect_schema().names()
            self._height = int(self._lazy.select(pl.len()).collect().item())

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        for first in range(0, self._height, ROWS):
            with self._told():
                frame = self._lazy.select(columns).slice(first, ROWS).collect()
            yield frame, range(first + 1, first + 1 + frame.height)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what polars raises into one line; what it writes to standard error where it panics is dropped."""
        try:
            with _silent():
                yield
        except (PolarsError, OSError, PanicException) as fault:
            what = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
            todo = "fetch or write the file again"
            raise IdgrError(f"cannot be read as Parquet ({what})", todo, where=self.path) from None


@contextmanager
def _silent() -> Iterator[None]:
    """Without standard error, that of libraries that are not Python too."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class _Csv(Table):
    numbered = "line"

    def __init__(self, path: str, columns: Sequence[str] | None) -> None:
        lines = Lines(path)
        self.path = lines.path
        line, raw, self._blocks = _below(lines.blocks(BLOCK))
        header = self._decoded(line, raw).strip("\r\n")
        if "\r" in header:
            todo = f"write line feeds: tr '\\r' '\\n' < {path}"
            raise IdgrError("lines end in carriage returns alone", todo, where=path, line=line)
        self._mark, cells = _split(header, columns)
        typed = columns is None and all(_TYPED.fullmatch(cell) for cell in cells)
        self._quote = None if typed else '"'
        self.names = list(columns) if columns is not None else _untyped(cells) if typed else cells
        if columns is None:
            self._refuse_numbers(line, cells)
            return
        if len(cells) != len(columns):
            what = f"{len(cells)} fields, but --columns names {len(columns)}"
            raise IdgrError(what, "name every column, in their order", where=path, line=line)
        self._blocks = chain([(line, [raw])], self._blocks)

    def _refuse_numbers(self, line: int, cells: Sequence[str]) -> None:
        number = next((cell for cell in cells if re.fullmatch(r"-?\d+(\.\d*)?", cell)), None)
        if number is not None:
            what = f"no header: {number} is a value, not the name of a column"
            raise IdgrError(what, "name the columns with --columns, in their order", where=self.path, line=line)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        spelled = {f"column_{place}": pl.String() for place in range(1, len(self.names) + 1)}
        places = [self.names.index(name) for name in columns]
        for first, lines in self._whole():
            frame = self._plain(lines, spelled)
            if frame is not None:
                taken = [frame.get_column(f"column_{place + 1}").alias(self.names[place]) for place in places]
                yield pl.DataFrame(taken), range(first, first + len(lines))
                continue
            rows = list(self._careful(first, lines))
            data = [pl.Series(self.names[at], [row[at] for _, row in rows], dtype=pl.String) for at in places]
            yield pl.DataFrame(data), [number for number, _ in rows]

    def _whole(self) -> Iterator[tuple[int, list[bytes]]]:
        """Blocks that end where a record does, not within its quotes."""
        first, held = 0, list[bytes]()
        for number, block in self._blocks:
            if not block:
                continue
            first, held = (first, held + block) if held else (number, block)
            if self._ends_within_quotes(held):
                if len(held) > 64 * BLOCK:
                    raise self._unclosed(first)
                continue
            yield first, held
            held = []
        if held:
            raise self._unclosed(first)

    def _ends_within_quotes(self, lines: list[bytes]) -> bool:
        if self._quote is None or b"".join(lines).count(b'"') % 2 == 0:
            return False
        texts = (raw.decode("latin-1") for raw in lines)
        try:
            for _ in csv.reader(texts, delimiter=self._mark, strict=True):
                pass
        except csv.Error as fault:
            return "unexpected end" in str(fault)
        return False  # the odd quote stands within a field that has none around it

    def _unclosed(self, first: int) -> IdgrError:
        what = "a quote that is opened in this line or after it is not closed"
        return IdgrError(what, "close it, or write two for one that is text", where=self.path, line=first)

    def _plain(self, lines: list[bytes], spelled: dict[str, pl.String]) -> pl.DataFrame | None:
        """The rows of lines that are one record each, with all their fields; None where any may not be."""
        data = b"".join(lines)
        try:
            frame = pl.read_csv(
                data,
                has_header=False,
                schema=spelled,
                separator=self._mark,
                quote_char=self._quote,
                infer_schema=False,
                raise_if_empty=False,
            )
        except (PolarsError, PanicException):
            return None  # broken, or written as only `csv` takes it
        if frame.height != len(lines):
            return None
        # polars fills short rows up: none is short where the last column is full, or the marks are as many as they are.
        full = frame.width > 0 and frame.to_series(frame.width - 1).null_count() == 0
        marks = frame.height * (frame.width - 1)
        return frame if full or (b'"' not in data and data.count(self._mark.encode()) == marks) else None

    def _careful(self, first: int, lines: list[bytes]) -> Iterator[tuple[int, list[str]]]:
        """The records of some lines, each with the line that it begins in; blank lines are passed over."""
        texts = (self._decoded(number, raw) for number, raw in enumerate(lines, first))
        reader = csv.reader(texts, delimiter=self._mark, quoting=csv.QUOTE_MINIMAL if self._quote else csv.QUOTE_NONE)
        before = first - 1
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as fault:  # such as a carriage return, or a field longer than the module takes
                what = f"not a line of CSV ({fault})"
                raise IdgrError(what, "mend the line", where=self.path, line=before + 1) from None
            if fields is None:
                return
            number, before = before + 1, first - 1 + reader.line_num
            if len(fields) == len(self.names):
                yield number, fields
            elif any(field.strip() for field in fields):
                what = f"{len(fields)} fields, not {len(self.names)} as in the header"
                raise IdgrError(what, "mend the line or leave it out", where=self.path, line=number)

    def _decoded(self, number: int, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as fault:
            what = f"not valid UTF-8 ({fault.reason})"
            raise IdgrError(what, "save the file as UTF-8", where=self.path, line=number) from None


def _below(blocks: Iterator[tuple[int, list[bytes]]]) -> tuple[int, bytes, Iterator[tuple[int, list[bytes]]]]:
    """The first line that is not blank, with its number before it, and the blocks of the lines below."""
    for first, block in blocks:
        for at, raw in enumerate(block):
            if not raw.isspace():
                return first + at, raw, chain([(first + at + 1, block[at + 1 :])], blocks)
    raise AssertionError("Lines raises where there is no text")


def _split(header: str, columns: Sequence[str] | None) -> tuple[str, list[str]]:
    """The delimiter that gives most cells, and the cells; with `columns` the one that gives as many as there are."""
    found = {}
    for mark in _DELIMITERS:
        try:
            found[mark] = [cell.strip() for cell in next(csv.reader([header], delimiter=mark), [])]
        except csv.Error:
            continue
    if columns is not None:
        for mark, cells in found.items():
            if len(cells) == len(columns):
                return mark, cells
    mark = max(found, key=lambda mark: len(found[mark]), default=",")
    return mark, found.get(mark, [header])


def _untyped(names: Sequence[str]) -> list[str]:
    """Without what RecBole writes behind a name: `user_id:token`."""
    return [found[1] if (found := _TYPED.fullmatch(name)) else name for name in names]


@contextmanager
def lines_to_parquet(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """A stream of JSON Lines, whose records are written to `stream` as Parquet if the block ends well."""
    with tempfile.TemporaryFile() as lines:
        yield lines
        some = lines.tell() > 0
        lines.seek(0)
        frame = pl.read_ndjson(lines, infer_schema_length=None) if some else pl.DataFrame()
        frame.write_parquet(packed := BytesIO())
        stream.write(packed.getbuffer())
