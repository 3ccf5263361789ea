"""First candidates in files: what `gen-ids --shard` writes and `gen-ids --assign` reads.

Each line holds a mark of what its candidates depend on, so that shards of another generator, of other options or of
another text are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from idgr.errors import IdgrError, UsageError
from idgr.formats.jsonl import read_jsonl
from idgr.formats.part_lines import open_part
from idgr.formats.records import Item, key

_MOST_DIGITS = 9


@dataclass(frozen=True)
class Shard:
    """Every `of`th item, beginning with the `number`th, counted from 1."""

    number: int
    of: int

    def places(self, n_items: int) -> range:
        return range(self.number - 1, n_items, self.of)


def parse_shard(text: str) -> Shard:
    """`I/N`, with I from 1 to N. Raises `UsageError` otherwise."""
    number, slash, of = text.partition("/")
    numbers = number.isdecimal() and of.isdecimal() and max(len(number), len(of)) <= _MOST_DIGITS
    if not (slash and numbers and 1 <= int(number) <= int(of)):
        raise UsageError(f"--shard {text} is not I/N with I from 1 to N", "give 1/4, 2/4, 3/4 and 4/4, for instance")
    return Shard(int(number), int(of))


def mark(settings: Mapping[str, Any], item: Item) -> str:
    """A hash of an item's text and of the settings that its candidates depend on."""
    digest = hashlib.sha256(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS))
    digest.update(item.text.encode())
    return digest.hexdigest()[:16]


def candidate_rows(
    items: Sequence[Item], candidates: Iterable[list[str]], settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The lines of a shard."""
    for item, texts in zip(items, candidates, strict=True):
        yield {"item_id": item.item_id, "attempt": 1, "candidates": texts, "mark": mark(settings, item)}


def read_candidates(
    paths: Sequence[str], items: Sequence[Item], settings: Mapping[str, Any], unasked: Container[str] = ()
) -> dict[str, list[str]]:
    """The candidates of all shards by item, for every item that has text.

    Args:
        unasked: items that need none.

    Raises:
        IdgrError: naming the line that is malformed, of an unknown item, repeated, or made with other settings; or an
            item that no shard holds.
    """
    wanted = {item.item_id: item for item in items if item.text}
    found: dict[str, list[str]] = {}

    def take(row: dict[str, Any]) -> None:
        name, texts = key(row, "item_id"), row.get("candidates")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError('no list of texts under "candidates"; give files that `idgr gen-ids --shard` wrote')
        if name not in wanted:
            raise ValueError(f"unknown item {name!r}; give the items that the shards were made from")
        if name in found:
            raise ValueError(f"duplicate item_id {name!r}; give each shard once")
        if row.get("mark") != mark(settings, wanted[name]):
            raise ValueError(
                "made from another text, with another generator or with other options; give --assign what --shard had"
            )
        found[name] = texts

    for path in paths:
        for _ in read_jsonl(open_part(path), take):
            pass
    lacking = [name for name in wanted if name not in found and name not in unasked]
    if lacking:
        raise IdgrError(
            f"no candidates for {len(lacking)} items, such as {lacking[0]!r}",
            "give the files of all shards to --assign",
            where=paths[0],
        )
    return found
