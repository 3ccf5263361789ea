"""Recommendations from Python: item keys in, item keys and scores out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from idgr.errors import UsageError
from idgr.formats.records import Query
from idgr.stages.ranker import Ranker
from idgr.stages.ranker_options import DEFAULT_BEAMS, RankerOptions, complete
from idgr.stages.rankers import load_ranker
from idgr.stages.recommend import HistoryParts, Options


def history_parts(**options: Any) -> HistoryParts:
    """A folder of histories in parts, to be answered part by part, by any number of processes.

    `missing()` names the parts that are to be made, `make(name)` answers one and notes it in the manifest; the model is
    loaded at the first.

    Args:
        options: those of `idgr.recommend`, with folders for `histories` and `output`.

    Raises:
        IdgrError: there are no parts, or the output was made with other options or inputs.
        UsageError: options do not go together.
    """
    return HistoryParts(Options(**options))


class Scored(NamedTuple):
    """An item and its score, the higher the better."""

    item: str
    score: float


class Recommender:
    """A trained model with its catalogue, in memory. `load` makes one.

    Example:
        recommender = Recommender.load("rec/")
        recommender.recommend([["B000142FVW", "B00BN1MORA"]], k=5)
    """

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker

    @classmethod
    def load(
        cls,
        rec: str | os.PathLike[str],
        *,
        ids: str | os.PathLike[str] | None = None,
        device: str = "auto",
        beams: int = DEFAULT_BEAMS,
        search: Literal["beam", "exact"] = "beam",
        normalize: Literal["full", "trie"] | None = None,
        adapter: str | None = None,
        gen: str | None = None,
        items: str | None = None,
        allow: str | None = None,
        keep_history: bool = False,
        batch_size: int = 32,
        precision: Literal["auto", "fp32", "bf16"] = "fp32",
        item_head_weight: float | None = None,
        cache: bool = False,
        cache_memory: int = 1024,
    ) -> Recommender:
        """Load a folder of `idgr train-rec`, `train-sasrec`, `train-two-tower` or `train-text-ranker`.

        Args:
            rec: the folder.
            ids: the ids.jsonl that it was trained on; the one in the folder if not given. A model of items has none.
            device: auto, cpu or cuda.
            beams: prefixes that beam search follows, at least as many as items will be asked for.
            search: exact finds the items that are proven to be the best.
            normalize: softmax over the vocabulary or the valid children; as trained if not given.
            adapter: a folder of `idgr train-adapter`.
            gen: the ID generator, where the recommender was trained with user IDs; and `items`, its items.jsonl.
            items: items.jsonl, for that, for a model that ranks texts, or for near items of those new to the item head.
            allow: a file of the only items to recommend, one key a line.
            keep_history: whether items of a history may be recommended again.
            batch_size: histories at a time.
            precision: of the weights; auto is bf16 where the device multiplies it.
            item_head_weight: of the item head's score, where there is a head; as trained if not given.
            cache: of a causal model: keep what was read of histories, so that one that grew costs its new items.
            cache_memory: MiB for that; what was used longest ago goes.

        Raises:
            UsageError: an argument has no such value, or arguments do not go together.
            IdgrError: a file or folder is not what it should be.
        """
        options = RankerOptions(
            rec=str(rec),
            ids=None if ids is None else str(ids),
            k=1,  # `recommend` is told how many
            device=device,
            beams=beams,
            search=search,
            normalize=normalize,
            adapter=adapter,
            gen=gen,
            items=items,
            allow=allow,
            keep_history=keep_history,
            batch_size=batch_size,
            precision=precision,
            item_head_weight=item_head_weight,
            cache=cache,
            cache_memory=cache_memory,
        )
        return cls(load_ranker(complete(options)))

    def recommend(
        self, histories: Sequence[Sequence[str]], k: int = 10, *, unknown: Literal["drop", "error"] = "drop"
    ) -> list[list[Scored]]:
        """The k best items after each history, best first; fewer where there are no more.

        Args:
            histories: keys of items, oldest first.
            unknown: whether items that are not in the catalogue are left out of a history, or are an error.

        Raises:
            UsageError: k is below 1 or above the beams, or a history holds an unknown item.
        """
        if k < 1:
            raise UsageError(f"k={k}", "ask for at least one item")
        known, queries = self._ranker.known, []
        for place, history in enumerate(histories):
            kept = [item for item in history if known is None or item in known]
            if unknown == "error" and len(kept) < len(history):
                strange = next(item for item in history if item not in kept)
                raise UsageError(f"unknown item {strange!r}", self._ranker.cure)
            queries.append(Query(str(place), kept))
        found = self._ranker.rank(queries, k, lambda done: None)
        return [list(map(Scored, one.items, one.scores)) for one in found]
