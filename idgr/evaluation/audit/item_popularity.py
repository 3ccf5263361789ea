"""A check that the texts of a catalogue do not tell what others did with the items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from idgr.corpus.popularity import popularity_in
from idgr.evaluation.audit.checks import Check, judged
from idgr.formats.records import Item

NO_POPULARITY = "no popularity in the text"


def popularity_check(items: Sequence[tuple[int, Item]], path: Path) -> Check:
    """Ratings, reviews and ranks of sales in a text: some of them are of after the split."""
    faults = []
    for number, item in items:
        told = popularity_in(item.values())
        if told is not None:
            shown = told if len(told) <= 60 else f"{told[:59]}…"
            faults.append(f"line {number}: item {item.item_id!r} has {shown!r}")
    return judged(NO_POPULARITY, path, faults, f"{len(items):,} texts without ratings, reviews and ranks of sales")
