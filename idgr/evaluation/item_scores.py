"""Rivals that are trained on nothing: a score for every item after a history, the best items by it.

Shape letters: B histories of a block, I items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ranked = tuple[list[int], list[float]]

# Scores that lie in memory at once: 32 MiB of them.
_BLOCK = 2**22


class ItemScores(ABC):
    """Scores items by their numbers.

    Args:
        n_items: I.
    """

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    @abstractmethod
    def scores(self, histories: Sequence[Sequence[int]]) -> Floats:
        """[B, I] of all items after some histories; the caller may write into them."""

    def rank(
        self,
        histories: Sequence[Sequence[int]],
        k: int,
        *,
        keep_history: bool = False,
        allowed: Bools | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> list[Ranked]:
        """The k best items after each history and their scores, best first, equal ones by number; fewer where there
        are no more.

        Args:
            histories: item numbers, oldest first.
            keep_history: whether items of a history may be returned.
            allowed: [I]: which items may be; None for all.
            advance: told the number of histories of each block that is done.
        """
        found: list[Ranked] = []
        size = max(1, _BLOCK // max(1, self.n_items))
        for begin in range(0, len(histories), size):
            block = histories[begin : begin + size]
            for history, scores_I in zip(block, self.scores(block), strict=True):
                if not keep_history:
                    scores_I[np.asarray(history, dtype=np.int64)] = -np.inf
                if allowed is not None:
                    scores_I[~allowed] = -np.inf
                found.append(best_scores(scores_I, k))
            if advance is not None:
                advance(len(block))
        return found


def history_weights(histories: Sequence[Sequence[int]], weight: Callable[[Floats], Floats], n_items: int) -> Any:
    """[B, I] as CSR: what each item of each history weighs; an item that stands there twice has two entries.

    Args:
        histories: item numbers, oldest first.
        weight: of items by their ages, 0 for the newest of a history.
        n_items: I.
    """
    lengths = np.fromiter(map(len, histories), dtype=np.int64, count=len(histories))
    items = np.fromiter((item for history in histories for item in history), dtype=np.int64)
    ends = np.cumsum(lengths)
    age = (np.repeat(ends, lengths) - 1 - np.arange(len(items))).astype(np.float64)
    return sparse.csr_matrix((weight(age), items, np.append(0, ends)), shape=(len(histories), n_items))


def best_scores(scores_I: Floats, k: int) -> Ranked:
    """The places and values of the k highest scores, equal ones by place; what is minus infinity is left out."""
    place = np.flatnonzero(scores_I > -np.inf)
    if len(place) > k:  # all that may be among the best, those that tie with the last of them too
        least = np.partition(scores_I[place], len(place) - k)[len(place) - k]
        place = place[scores_I[place] >= least]
    place = place[np.argsort(-scores_I[place], kind="stable")][:k]
    return place.tolist(), scores_I[place].tolist()
