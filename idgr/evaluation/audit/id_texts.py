"""Checks of textual IDs as texts: unique, also in case and as tokens, and never empty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.evaluation.audit.checks import Check, judged, skipped
from idgr.formats.records import ItemId, key
from idgr.ids.spelling import fold
from idgr.models.tokenizer import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Numbered = Sequence[tuple[int, ItemId]]


def any_id(row: dict[str, Any]) -> ItemId:
    """A line of `ids.jsonl`; lenient, so that an empty ID is counted and does not stop the audit."""
    text, attempt = row.get("id"), row.get("attempt")
    told = attempt if type(attempt) is int else None
    return ItemId(key(row, "item_id"), text if isinstance(text, str) else "", attempt=told)


def id_text_checks(ids: Numbered, path: Path) -> list[Check]:
    """The checks that need no tokenizer, of IDs with the numbers of their lines."""
    empty = [f"line {number}: item {one.item_id!r}" for number, one in ids if not one.id.strip()]
    items = _twins(ids, [one.item_id for _, one in ids], "the item")
    exact = _twins(ids, [one.id for _, one in ids], "the ID")
    folded = _twins(ids, [fold(one.id) if one.id.strip() else f"\0{number}" for number, one in ids], "but for case")
    return [
        judged("no ID is empty", path, empty, f"{len(ids):,} IDs"),
        judged("items stand once", path, items, f"{len(ids):,} items"),
        judged("IDs are unique", path, [fault for fault in exact if not fault.endswith("''")], f"{len(ids):,} IDs"),
        judged("IDs differ by more than case", path, folded, f"{len(ids):,} IDs"),
    ]


def token_check(ids: Numbered, tokenizer: PreTrainedTokenizerBase | None, path: Path, reason: str = "") -> Check:
    """Whether the recommender's tokenizer tells all IDs apart; SKIP with the reason where there is no tokenizer."""
    name = "IDs are unique as tokens"
    if tokenizer is None:
        return skipped(name, path, reason)
    rows = encode(tokenizer, [one.id for _, one in ids])
    faults = _twins(ids, [" ".join(map(str, row)) for row in rows], "the tokens of")
    return judged(name, path, faults, f"{len(ids):,} IDs, {len({token for row in rows for token in row}):,} tokens")


def _twins(ids: Numbered, values: Sequence[str], what: str) -> list[str]:
    first: dict[str, int] = {}
    faults = []
    for (number, one), value in zip(ids, values, strict=True):
        if value in first:
            shown = one.item_id if what == "the item" else one.id
            faults.append(f"line {number} equals line {first[value]}, {what}: {shown!r}")
        first.setdefault(value, number)
    return faults
