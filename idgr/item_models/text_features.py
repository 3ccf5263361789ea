"""What a ranker of texts is told of a candidate: how like its text is to those of a history, and of what kind it is.

Three likenesses of two texts, each the cosine of vectors of words that weigh their inverse document frequency
log(I / df):

    head   of their first words
    lead   of the first three of these, which of goods are mostly the brand
    pair   of pairs of neighbours among the first words

A word that most texts hold, such as the name of a field, is none. For each likeness a candidate has the sum over the
history, the newest item weighing 1, the one before 1/2, then 1/3, and so on, and the likeness to each of the newest
items alone. Of the candidate itself are told how common its words are, its first word and its length; of the history
its length. All this means the same in every catalogue, so what is learnt of it holds where nobody has been.

Shape letters: B histories, C candidates, I items, F features, G features of an item alone, W words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from idgr.evaluation.item_scores import best_scores, history_weights
from idgr.evaluation.shared_words import WordCounts
from idgr.ids.keyphrase import words_of
from idgr.ids.spelling import fold

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

AGES = 3  # so many newest items are told one by one
_HEAD, _LEAD = 16, 3
_TINY = 1e-6
# Those of three likenesses; of the history and of a candidate's place among the others; of an item alone.
N_FEATURES = 3 * (1 + AGES) + 3 + 5


@dataclass(frozen=True)
class Candidates:
    """What is ranked.

    Attributes:
        items_BC: the items whose texts are likest to the history's, the likest first; -1 where there are no more.
        features_BCF: 0 where there is no item.
        likeness_BI: the sums of head and pair over the history, those of its own items as well.
    """

    items_BC: Ints
    features_BCF: Floats
    likeness_BI: Floats


class TextFeatures:
    """A catalogue's texts.

    Args:
        texts: in the order of the catalogue.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        heads = _heads(texts)
        leads, pairs = [head[:_LEAD] for head in heads], [list(pairwise(head)) for head in heads]
        head, head_common = _weighed(heads)
        lead, lead_common = _weighed(leads)
        pair, pair_common = _weighed(pairs)
        firsts = Counter(words[0] for words in heads if words)
        first = np.log([firsts[words[0]] if words else 1 for words in heads])
        own = [head_common, lead_common, pair_common, first, np.log1p([len(words) for words in heads])]
        # As CSR both ways, since a product with a transpose would turn it around each time.
        self._likenesses = [(rows, rows.T.tocsr()) for rows in (head, lead, pair)]
        own_IG = np.stack(own, axis=1)
        self.own_IG = ((own_IG - own_IG.mean(0)) / (own_IG.std(0) + _TINY)).astype(np.float32)
        self.n_items = len(texts)

    def candidates(self, histories: Sequence[Sequence[int]], n: int) -> Candidates:
        """The n items that are likest to each history and not in it, equal ones by number, with their features.

        Args:
            histories: item numbers, oldest first.
        """
        weights_BI = history_weights(histories, lambda age: 1 / (1 + age), self.n_items).astype(np.float32)
        sums = [(weights_BI @ rows_IW @ rows_WI).toarray() for rows_IW, rows_WI in self._likenesses]
        likeness_BI: Floats = sums[0] + sums[2]
        items_BC = np.full((len(histories), n), -1, dtype=np.int64)
        for row, history in enumerate(histories):
            open_I = likeness_BI[row].copy()
            open_I[np.asarray(history, dtype=np.int64)] = -np.inf
            found, _ = best_scores(open_I, n)
            items_BC[row, : len(found)] = found
        place_BC = items_BC.clip(0)
        found_F = []
        for (rows_IW, rows_WI), sum_BI in zip(self._likenesses, sums, strict=True):
            found_F.append(np.take_along_axis(sum_BI, place_BC, axis=1))
            for age in range(AGES):
                newest_B = np.array([history[-1 - age] if age < len(history) else -1 for history in histories])
                alone_BI = (rows_IW[newest_B.clip(0)] @ rows_WI).toarray()
                found_F.append(np.take_along_axis(alone_BI, place_BC, axis=1) * (newest_B >= 0)[:, None])
        likeness_BC = np.take_along_axis(likeness_BI, place_BC, axis=1)
        length_B = np.log1p([len(history) for history in histories])
        found_F += [
            likeness_BC / np.maximum(likeness_BC[:, :1], _TINY),
            np.broadcast_to(np.log1p(np.arange(n)), likeness_BC.shape),
            np.broadcast_to(length_B[:, None], likeness_BC.shape),
        ]
        features_BCF = np.concatenate([np.stack(found_F, axis=2), self.own_IG[place_BC]], axis=2, dtype=np.float32)
        return Candidates(items_BC, features_BCF * (items_BC >= 0)[:, :, None], likeness_BI)


def _heads(texts: Sequence[str]) -> list[list[str]]:
    """The first words of each text that are not in most of them."""
    words = [[fold(word) for word in words_of(text)] for text in texts]
    held_by = Counter(word for row in words for word in set(row))
    return [[word for word in row if 2 * held_by[word] <= len(texts)][:_HEAD] for row in words]


def _weighed(rows: Sequence[Sequence[Hashable]]) -> tuple[Any, npt.NDArray[np.float64]]:
    """Rows of words as vectors [I, W] of length 1 or 0, as CSR; and [I] the mean log(df) of a row's words, or 0."""
    counts = WordCounts.of(rows)
    common_I = np.asarray(counts.table(np.log(counts.held_by_W)).sum(axis=1)).ravel()
    return counts.vectors().astype(np.float32), common_I / np.maximum(np.diff(counts.ends), 1)
