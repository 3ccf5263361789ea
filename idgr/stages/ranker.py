"""A ranker: what answers histories with items, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from idgr.errors import IdgrError
from idgr.formats.jsonl import Lines
from idgr.formats.records import Query, Recommendation
from idgr.stages.ranker_options import RankerOptions

COVER = "give IDs that cover every history"

Rank: TypeAlias = Callable[[Sequence[Query], int, Callable[[int], object]], list[Recommendation]]


@dataclass(frozen=True)
class Ranker:
    """Ranks items after histories.

    Attributes:
        known: the keys of the items that histories may hold; None for any.
        cure: what to do about an item that is not known.
        n_items: how many items there are to recommend.
        rank: the best items after each of some histories, in their order, so many for each; it tells of each part of
            them that is done.
        shown: what the model reads of a history, where it can be written.
        expanded: how many prefixes exact search has expanded; None for another search.
        settled: options that were left to the model, and what they are.
    """

    known: Container[str] | None
    cure: str
    n_items: int
    rank: Rank
    shown: Callable[[Query], dict[str, Any]] | None = None
    expanded: Callable[[], int] | None = None
    settled: dict[str, Any] = field(default_factory=dict)


def within_memory(rank: Rank, options: RankerOptions) -> Rank:
    """Tell in one line where the device has not the memory for a single history."""
    import torch

    def ranked(queries: Sequence[Query], k: int, advance: Callable[[int], object]) -> list[Recommendation]:
        try:
            return rank(queries, k, advance)
        except torch.OutOfMemoryError:
            what, todo = "the device has not the memory for a single history", "give fewer --beams, or --device cpu"
            raise IdgrError(what, todo, where=options.rec) from None

    return ranked


def allowed_items(options: RankerOptions, known: set[str] | None) -> set[str] | None:
    """The items that may be recommended, where a file tells them."""
    if options.allow is None:
        return None
    keys = set()
    for number, line in Lines(options.allow):
        item = line.decode(errors="replace")
        if known is not None and item not in known:
            todo = "give item keys of the catalogue, one a line"
            raise IdgrError(f"unknown item {item!r}", todo, where=options.allow, line=number)
        keys.add(item)
    return keys
