"""A rival that is trained on nothing: items whose texts share rare words with those of the history.

An item is the vector of its text's distinct words, each weighing its inverse document frequency log(I / df), divided by
its length. A history's vector is the sum of its items', the newest weighing 1, the one before 1/2, then 1/3, and so on;
a candidate's score is its product with that. Candidates that share no word have the score 0, and equal ones come in the
order of the catalogue.

Shape letters: B histories of a block, I items, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
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
