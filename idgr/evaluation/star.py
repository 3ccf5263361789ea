"""A rival that is trained on nothing: items that are like the newest ones, in their texts and in who bought them.

After the retrieval of STAR (Lee et al. 2024, "STAR: A Simple Training-free Approach for Recommendations using Large
Language Models", arXiv 2410.16458), without its ratings and without the language model that reorders what is found:

    score(candidate) = sum over the newest L items of DECAY ** age * (A * semantic + (1 - A) * collaborative)

where age is 0 for the newest item, semantic the cosine of the two items' text vectors, and collaborative the cosine of
their users: the number of training sequences that hold both by the root of the product of the numbers that hold each.
Equal scores come in the order of the catalogue; so do all candidates of an empty history.

Shape letters: B histories of a block, I items, U users of training, D numbers of a text vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from idgr.evaluation.item_scores import Floats, ItemScores, history_weights

# The paper's settings (section 4.1): items of the history, what an older item weighs, what texts weigh beside users.
NEWEST = 3
DECAY = 0.7
SEMANTIC = 0.5


class Star(ItemScores):
    """Items as vectors of their texts and of their users; see the module.

    Attributes:
        texts_ID: each row of length 1, or 0 where nothing is known of an item's text; CSR, or dense.
        users_IU: CSR, each row of length 1, or empty where no training sequence holds the item.
    """

    def __init__(self, texts_ID: Any, users_IU: Any) -> None:
        super().__init__(users_IU.shape[0])
        self.texts_ID, self.users_IU = texts_ID, users_IU
        # As CSR, since a product with the transpose would turn it around for every block.
        self._texts_DI = texts_ID.T.tocsr() if sparse.issparse(texts_ID) else texts_ID.T
        self._users_UI = users_IU.T.tocsr()

    def scores(self, histories: Sequence[Sequence[int]]) -> Floats:
        """[B, I]"""
        newest = [history[-NEWEST:] for history in histories]
        weights_BI = history_weights(newest, lambda age: DECAY**age, self.n_items)
        semantic_BI = weights_BI @ self.texts_ID @ self._texts_DI
        collaborative_BI = weights_BI @ self.users_IU @ self._users_UI
        scores_BI: Floats = SEMANTIC * _dense(semantic_BI) + (1 - SEMANTIC) * _dense(collaborative_BI)
        return scores_BI


def item_users(sequences: Sequence[Sequence[int]], n_items: int) -> Any:
    """[I, U] as CSR: 1 where a sequence holds an item, once or more often.

    Args:
        sequences: the item numbers of each.
        n_items: I.
    """
    lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
    items = np.fromiter((item for sequence in sequences for item in sequence), dtype=np.int64)
    users = np.repeat(np.arange(len(sequences)), lengths)
    users_IU = sparse.csr_matrix((np.ones(len(items)), (items, users)), shape=(n_items, len(sequences)))
    users_IU.data[:] = 1  # repeats were summed
    return users_IU


def fit_star(texts_ID: Any, sequences: Sequence[Sequence[int]]) -> Star:
    """Count who bought what.

    Args:
        texts_ID: a vector for each item's text, of length 1 or 0: CSR or dense, any float.
        sequences: the item numbers of each training sequence; an item that a sequence holds twice counts once.
    """
    users_IU = item_users(sequences, texts_ID.shape[0])
    count_I = np.diff(users_IU.indptr)
    users_IU = sparse.diags(1 / np.sqrt(np.maximum(count_I, 1))).tocsr() @ users_IU
    return Star(texts_ID if sparse.issparse(texts_ID) else np.asarray(texts_ID, dtype=np.float64), users_IU)


def _dense(scores_BI: Any) -> Floats:
    found: Floats = scores_BI.toarray() if sparse.issparse(scores_BI) else scores_BI
    return found
