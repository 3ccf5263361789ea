"""Candidates for items' IDs: from a generator's search, or other choices of the words of an item's text.

They lie in a file of lines with `item_id` and `candidates`, in the order of preference: that of `gen-ids --shard`, or
one that is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from idgr.formats.jsonl import read_jsonl
from idgr.formats.records import Item, ItemId, key
from idgr.ids.keyphrase import keyphrase_candidates
from idgr.ids.spelling import can_spell, fold
from idgr.models.llama import item_slots
from idgr.models.tokenizer import encode

if TYPE_CHECKING:
    from idgr.models.backbone import Backbone


def word_candidates(items: Sequence[Item]) -> Iterator[dict[str, Any]]:
    """Lines with the keyphrases of each item's text, for IDs that no generator made."""
    found = keyphrase_candidates([item.text for item in items])
    for item, phrases in zip(items, found, strict=True):
        yield {"item_id": item.item_id, "candidates": phrases}


def read_offers(path: str) -> dict[str, list[str]]:
    """The candidates of each item, by its key. Raises `IdgrError` naming the line that is malformed."""

    def parse(row: dict[str, Any]) -> tuple[str, list[str]]:
        texts = row.get("candidates")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError('no list of texts under "candidates"; make the file again')
        return key(row, "item_id"), texts

    return dict(read_jsonl(path, parse, allow_empty=True))


def can_name(backbone: Backbone, texts: Sequence[str]) -> list[bool]:
    """Whether a recommender can call an item by each text: it is spelled, and fits the places of an item, if it has."""
    right, slots = can_spell(backbone.tokenizer, texts), item_slots(backbone.model)
    if not slots or not texts:
        return right
    return [good and len(row) < slots for good, row in zip(right, encode(backbone.tokenizer, texts), strict=True)]


def other_names(
    known: Sequence[ItemId],
    offers: Mapping[str, Sequence[str]],
    most: int,
    can_name: Callable[[Sequence[str]], list[bool]],
) -> list[list[str]]:
    """For each item at most `most` of its candidates: those that it can be called by and are no item's ID."""
    used = {fold(record.id) for record in known}
    offered: list[list[str]] = []
    for record in known:
        unlike: dict[str, str] = {}  # names that differ by case only are one name
        for text in offers.get(record.item_id, ()):
            unlike.setdefault(fold(text), text)
        offered.append([text for folded, text in unlike.items() if folded not in used])
    right = iter(can_name([text for row in offered for text in row]))
    return [[text for text in row if next(right)][:most] for row in offered]
