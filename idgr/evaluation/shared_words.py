"""A rival that is trained on nothing: items whose texts share rare words with those of the history.

An item is the vector of its text's distinct words, each weighing its inverse document frequency log(I / df), divided by
its length. A history's vector is the sum of its items', the newest weighing 1, the one before 1/2, then 1/3, and so on;
a candidate's score is its product with that. Candidates that share no word have the score 0, and equal ones come in the
order of the catalogue.

Shape letters: B histories of a block, I items, W words.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from idgr.evaluation.item_scores import Floats, ItemScores, history_weights
from idgr.ids.keyphrase import words_of
from idgr.ids.spelling import fold


class SharedWords(ItemScores):
    """Items as sparse vectors of words; see the module.

    Attributes:
        items_IW: CSR, float64, each row of length 1, or empty where an item has no word that tells anything.
    """

    def __init__(self, items_IW: Any) -> None:
        super().__init__(items_IW.shape[0])
        self.items_IW = items_IW
        self._items_WI = items_IW.T.tocsr()

    def scores(self, histories: Sequence[Sequence[int]]) -> Floats:
        """[B, I]"""
        weights_BI = history_weights(histories, lambda age: 1 / (1 + age), self.n_items)
        scores_BI: Floats = (weights_BI @ self.items_IW @ self._items_WI).toarray()
        return scores_BI


@dataclass(frozen=True)
class WordCounts:
    """The distinct words of some rows, as numbers.

    Attributes:
        word: of all rows, end to end, ascending within a row.
        ends: [I + 1] where each row's words begin; the last one is where all end.
        held_by_W: how many rows hold each word.
    """

    word: npt.NDArray[np.int64]
    ends: list[int]
    held_by_W: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[Iterable[Hashable]]) -> WordCounts:
        number: dict[Hashable, int] = {}
        words: list[int] = []
        ends = [0]
        for row in rows:
            words += sorted({number.setdefault(word, len(number)) for word in row})
            ends.append(len(words))
        word = np.array(words, dtype=np.int64)
        return cls(word, ends, np.maximum(np.bincount(word, minlength=len(number)), 1))

    def table(self, weight_W: Floats) -> Any:
        """[I, W] as CSR: what each word weighs where a row holds it."""
        shape = (len(self.ends) - 1, len(self.held_by_W))
        return sparse.csr_matrix((weight_W[self.word], self.word, self.ends), shape=shape)

    def vectors(self) -> Any:
        """[I, W] as CSR: the rows' words by their inverse document frequency, each row of length 1, or empty."""
        vectors_IW = self.table(np.log((len(self.ends) - 1) / self.held_by_W))
        length_I = np.sqrt(np.asarray(vectors_IW.multiply(vectors_IW).sum(axis=1)).ravel())
        vectors_IW = sparse.diags(1 / np.where(length_I > 0, length_I, 1)).tocsr() @ vectors_IW
        vectors_IW.eliminate_zeros()  # words of all rows
        return vectors_IW


def fit_shared_words(texts: Sequence[str]) -> SharedWords:
    """Weigh the words of the items' texts, in the order of the catalogue."""
    return SharedWords(WordCounts.of((fold(word) for word in words_of(text)) for text in texts).vectors())
