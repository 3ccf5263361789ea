"""A rival that is trained on nothing: items whose texts share rare words with those of the history.

An item is the vector of its text's distinct words, each weighing its inverse document frequency log(I / df), divided by
its length. A history's vector is the sum of its items', the newest weighing 1, the one before 1/2, then 1/3, and so on;
a candidate's score is its product with that. Candidates that share no word have the score 0, and equal ones come in the
order of the catalogue.

Shape letters: B histories of a block, I items, W words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from idgr.ids.keyphrase import words_of
from idgr.ids.spelling import fold

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ranked = tuple[list[int], list[float]]

# Scores that lie in memory at once: 32 MiB of them.
_BLOCK = 2**22


class SharedWords:
    """Items as sparse vectors of words; see the module.

    Attributes:
        items_IW: CSR, float64, each row of length 1, or empty where an item has no word that tells anything.
    """

    def __init__(self, items_IW: Any) -> None:
        self.items_IW = items_IW
        self._items_WI = items_IW.T.tocsr()

    def rank(
        self,
        histories: Sequence[Sequence[int]],
        k: int,
        *,
        keep_history: bool = False,
        allowed: Bools | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> list[Ranked]:
        """The k best items after each history and their scores, best first; fewer where there are no more.

        Args:
            histories: item numbers, oldest first.
            keep_history: whether items of a history may be returned.
            allowed: [I]: which items may be; None for all.
            advance: told the number of histories of each block that is done.
        """
        n_items = self.items_IW.shape[0]
        return rank_by_scores(
            self._scores, n_items, histories, k, keep_history=keep_history, allowed=allowed, advance=advance
        )

    def _scores(self, histories: Sequence[Sequence[int]]) -> Floats:
        """[B, I]"""
        weights_BI = history_weights(histories, lambda age: 1 / (1 + age), self.items_IW.shape[0])
        scores_BI: Floats = (weights_BI @ self.items_IW @ self._items_WI).toarray()
        return scores_BI


def fit_shared_words(texts: Sequence[str]) -> SharedWords:
    """Weigh the words of the items' texts, in the order of the catalogue."""
    number: dict[str, int] = {}
    words: list[int] = []
    ends = [0]
    for text in texts:
        words += sorted({number.setdefault(fold(word), len(number)) for word in words_of(text)})
        ends.append(len(words))
    word = np.array(words, dtype=np.int64)
    weight_W = np.log(len(texts) / np.maximum(np.bincount(word, minlength=len(number)), 1))
    vectors_IW = sparse.csr_matrix((weight_W[word], word, ends), shape=(len(texts), len(number)))
    length_I = np.sqrt(np.asarray(vectors_IW.multiply(vectors_IW).sum(axis=1)).ravel())
    vectors_IW = sparse.diags(1 / np.where(length_I > 0, length_I, 1)).tocsr() @ vectors_IW
    vectors_IW.eliminate_zeros()  # words of all texts
    return SharedWords(vectors_IW)


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


def rank_by_scores(
    scores_of: Callable[[Sequence[Sequence[int]]], Floats],
    n_items: int,
    histories: Sequence[Sequence[int]],
    k: int,
    *,
    keep_history: bool,
    allowed: Bools | None,
    advance: Callable[[int], object] | None,
) -> list[Ranked]:
    """The k best items after each history and their scores, best first, equal ones by number.

    Args:
        scores_of: [B, I] the scores of all items after some histories; they are written into.
        n_items: I.
        histories, k, keep_history, allowed, advance: as of `SharedWords.rank`.
    """
    found: list[Ranked] = []
    size = max(1, _BLOCK // max(1, n_items))
    for begin in range(0, len(histories), size):
        block = histories[begin : begin + size]
        for history, scores_I in zip(block, scores_of(block), strict=True):
            if not keep_history:
                scores_I[np.asarray(history, dtype=np.int64)] = -np.inf
            if allowed is not None:
                scores_I[~allowed] = -np.inf
            found.append(_best(scores_I, k))
        if advance is not None:
            advance(len(block))
    return found


def _best(scores_I: Floats, k: int) -> Ranked:
    """The places and values of the k highest scores, equal ones by place; what is minus infinity is left out."""
    place = np.flatnonzero(scores_I > -np.inf)
    if len(place) > k:  # all that may be among the best, those that tie with the last of them too
        least = np.partition(scores_I[place], len(place) - k)[len(place) - k]
        place = place[scores_I[place] >= least]
    place = place[np.argsort(-scores_I[place], kind="stable")][:k]
    return place.tolist(), scores_I[place].tolist()
