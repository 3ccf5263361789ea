"""The records that stages exchange, and how each is read from a JSON object.

Every `parse` raises `ValueError` with what is wrong and what to do; `read_jsonl` adds file and line.
Unknown keys are ignored. Keys of users and items are strings; integers are accepted and turned into strings.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from idgr.formats.item_text import parse_fields, read_values
from idgr.formats.jsonl import Lines, read_jsonl
from idgr.formats.part_lines import open_lines

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Item:
    """A line of `items.jsonl`: an item and its plain text.

    `fields` holds what the text is made of, by name, where the text alone does not tell it: a value with a comma in it
    reads as two there. None where it does.
    """

    item_id: str
    text: str
    fields: dict[str, list[str]] | None = field(default=None, hash=False)

    @staticmethod
    def parse(row: dict[str, Any]) -> Item:
        text = row.get("text")
        if not isinstance(text, str):
            raise ValueError('no "text" string; make items.jsonl with `idgr prep`')
        return Item(key(row, "item_id"), text, parse_fields(row.get("fields")))

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {"item_id": self.item_id, "text": self.text}
        return row if self.fields is None else row | {"fields": self.fields}

    def values(self) -> dict[str, list[str]]:
        """The values of each field by lower-case name: `fields`, or what the text tells, commas parting values."""
        return read_values(self.text) if self.fields is None else self.fields


@dataclass(frozen=True, slots=True)
class Sequence:
    """A line of `train.jsonl`: what a user did, oldest first."""

    user_id: str
    items: list[str]

    @staticmethod
    def parse(row: dict[str, Any]) -> Sequence:
        return Sequence(key(row, "user_id"), key_list(row, "items"))

    def row(self) -> dict[str, Any]:
        return {"user_id": self.user_id, "items": self.items}


@dataclass(frozen=True, slots=True)
class Query:
    """A line of `valid.jsonl` or `test.jsonl`: a history, oldest first, and the item that came next.

    `target` is None where only a recommendation is asked for.
    """

    user_id: str
    history: list[str]
    target: str | None = None

    @staticmethod
    def parse(row: dict[str, Any]) -> Query:
        target = key(row, "target") if row.get("target") is not None else None
        return Query(key(row, "user_id"), key_list(row, "history", allow_empty=True), target)

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {"user_id": self.user_id, "history": self.history}
        return row if self.target is None else row | {"target": self.target}


@dataclass(frozen=True, slots=True)
class ItemId:
    """A line of `ids.jsonl`: an item's textual ID and how it was found (Algorithm 1).

    `penalty` is the diversity penalty, `max_tokens` the length limit in tokens and `attempt` the number of
    the attempt, from 1, that gave the ID; all three are None for IDs from elsewhere.
    """

    item_id: str
    id: str
    penalty: float | None = None
    max_tokens: int | None = None
    attempt: int | None = None

    @staticmethod
    def parse(row: dict[str, Any]) -> ItemId:
        text = row.get("id")
        if not isinstance(text, str) or not text.strip():
            raise ValueError('no "id" text; make ids.jsonl with `idgr gen-ids`')
        return ItemId(key(row, "item_id"), text, row.get("penalty"), row.get("max_tokens"), row.get("attempt"))

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {"item_id": self.item_id, "id": self.id}
        for name in ("penalty", "max_tokens", "attempt"):
            if (value := getattr(self, name)) is not None:
                row[name] = value
        return row


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A line of `recs.jsonl`: a user's recommended items with their scores, best first."""

    user_id: str
    items: list[str]
    scores: list[float]

    @staticmethod
    def parse(row: dict[str, Any]) -> Recommendation:
        items = key_list(row, "items", allow_empty=True)
        if len(set(items)) != len(items):
            raise ValueError("an item is recommended twice; write each item once, best first")
        scores = row.get("scores", [-float(i) for i in range(len(items))])
        if not isinstance(scores, list) or len(scores) != len(items):
            raise ValueError('"scores" is not a list as long as "items"; leave it out or mend it')
        if not all(isinstance(score, (int, float)) and not isinstance(score, bool) for score in scores):
            raise ValueError('"scores" holds something that is not a number; leave it out or mend it')
        return Recommendation(key(row, "user_id"), items, scores)

    def row(self) -> dict[str, Any]:
        return {"user_id": self.user_id, "items": self.items, "scores": self.scores}


@dataclass(frozen=True, slots=True)
class UserFigures:
    """A line of what `idgr eval --per-user` writes: a user, the target, and some of the numbers.

    `target` is None where the line does not tell it; `values` are in the order in which they were asked for.
    """

    user_id: str
    target: str | None
    values: list[float]


def key(row: dict[str, Any], name: str) -> str:
    """The user or item key under `name`. Raises `ValueError` where it is missing, empty or of another type."""
    value = row.get(name)
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if name not in row:
        raise ValueError(f'no "{name}"; give every record one')
    told = " but null or NaN" if value is None else ""
    raise ValueError(f'"{name}" is not a non-empty string or an integer{told}; mend the record')


def key_list(row: dict[str, Any], name: str, *, allow_empty: bool = False) -> list[str]:
    """The list of keys under `name`. Raises `ValueError` as `key` does."""
    values = row.get(name)
    if not isinstance(values, list):
        raise ValueError(f'"{name}" is not a list; give the item keys, oldest first')
    if not values and not allow_empty:
        raise ValueError(f'"{name}" is empty; give at least one item or leave the record out')
    if not all(type(value) is str and value for value in values):
        return [key({name: value}, name) for value in values]
    return values


def read_items(path: str | os.PathLike[str]) -> list[Item]:
    """`items.jsonl` in file order. Raises `IdgrError` where an item appears twice."""
    return list(read_jsonl(path, _once(Item.parse, "item_id")))


def read_ids(path: str | os.PathLike[str]) -> list[ItemId]:
    """`ids.jsonl`, or a folder of its parts, in file order. Raises `IdgrError` where an item or an ID appears twice."""
    parse = _once(_once(ItemId.parse, "item_id"), "id")
    return [record for lines in open_lines(os.fspath(path)) for record in read_jsonl(lines, parse)]


def read_sequences(path: str | os.PathLike[str], known: Container[str] | None = None) -> list[Sequence]:
    """`train.jsonl` in file order.

    Args:
        known: the catalogue's item keys, if every item must be among them.

    Raises:
        IdgrError: a user appears twice, or an item is not in `known`.
    """

    def parse(row: dict[str, Any]) -> Sequence:
        sequence = Sequence.parse(row)
        _check_known(sequence.items, known)
        return sequence

    return list(read_jsonl(path, _once(parse, "user_id")))


def read_queries(
    path: str | os.PathLike[str],
    known: Container[str] | None = None,
    *,
    need_target: bool = False,
    allow_empty: bool = False,
) -> Iterator[Query]:
    """Stream `valid.jsonl`, `test.jsonl` or bare histories.

    Args:
        known: the catalogue's item keys, if every item must be among them.
        need_target: whether each line must hold a `target`, and each user stand on one line only.
        allow_empty: whether a file without records is accepted.

    Raises:
        IdgrError: while streaming, at the first line that is wrong.
    """

    def parse(row: dict[str, Any]) -> Query:
        query = Query.parse(row)
        if need_target and query.target is None:
            raise ValueError('no "target"; give valid.jsonl or test.jsonl as `idgr prep` writes them')
        _check_known(query.history, known)
        if query.target is not None:
            _check_known([query.target], known)
        return query

    return read_jsonl(path, _once(parse, "user_id") if need_target else parse, allow_empty=allow_empty)


def read_recommendations(
    path: str | os.PathLike[str], known: Container[str] | None = None, users: Container[str] | None = None
) -> Iterator[Recommendation]:
    """Stream `recs.jsonl`.

    Args:
        known: the catalogue's item keys, if every recommended item must be among them.
        users: the users asked about, if every user must be among them.

    Raises:
        IdgrError: while streaming: a user appears twice or is not in `users`, or an item is not in `known`.
    """

    def parse(row: dict[str, Any]) -> Recommendation:
        recommendation = Recommendation.parse(row)
        if users is not None and recommendation.user_id not in users:
            raise ValueError(
                f"user {recommendation.user_id!r} is not in the truth; score lists against the file they were made for"
            )
        if known is not None:
            for item in recommendation.items:
                if item not in known:
                    raise ValueError(f"recommended item {item!r} is not in the catalogue; give the catalogue's --items")
        return recommendation

    return read_jsonl(path, _once(parse, "user_id"))


def read_user_figures(path: str | os.PathLike[str], names: Collection[str]) -> list[UserFigures]:
    """The numbers under `names` of every line of a per-user file, in file order.

    Raises:
        IdgrError: a line lacks one of them as a number, or a user appears twice.
    """

    def parse(row: dict[str, Any]) -> UserFigures:
        user = key(row, "user_id")
        for name in names:
            value = row.get(name)
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise ValueError(f'no number "{name}"; write the rows with `idgr eval --per-user` and the same -k')
        target = key(row, "target") if row.get("target") is not None else None
        return UserFigures(user, target, [float(row[name]) for name in names])

    return list(read_jsonl(path, _once(parse, "user_id")))


def is_per_user(path: str | os.PathLike[str]) -> bool:
    """Whether a file of `idgr eval` holds per-user rows, an object a line, whatever its name; else it holds metrics.

    Raises:
        IdgrError: the file cannot be read.
    """
    _, line = next(iter(Lines(path)))
    try:
        return "user_id" in orjson.loads(line)
    except (orjson.JSONDecodeError, TypeError):  # metrics are one object over several lines
        return False


def ids_fingerprint(ids: Iterable[ItemId]) -> str:
    """A hash of which item has which ID, whatever the order of the lines.

    `run.json` of a recommender holds it, so that a model is not used with other IDs than its own.
    """
    digest = hashlib.sha256()
    for line in sorted(f"{len(record.item_id)} {record.item_id} {record.id}\n" for record in ids):
        digest.update(line.encode())
    return digest.hexdigest()


def _check_known(items: list[str], known: Container[str] | None) -> None:
    if known is not None:
        for item in items:
            if item not in known:
                raise ValueError(f"unknown item {item!r}; give IDs or items that cover every history")


def _once(parse: Callable[[dict[str, Any]], R], field: str) -> Callable[[dict[str, Any]], R]:
    seen: set[str] = set()

    def checked(row: dict[str, Any]) -> R:
        record = parse(row)
        value = getattr(record, field)
        if value in seen:
            raise ValueError(f"duplicate {field} {value!r}; keep one record of each")
        seen.add(value)
        return record

    return checked
