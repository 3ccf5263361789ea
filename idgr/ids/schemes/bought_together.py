"""What is bought with an item: pairs of items that stand near one another in sequences, and a vector for each item.

Legend: N items, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from idgr.ids.schemes.text_vectors import Floats32, of_length_one

WINDOW = 5  # places of a sequence within which two items count as bought together
_WIDTH = 128  # of a vector
_PRIOR = 5.0  # pairs' weight that every item has besides, so that one rare pair says little
_POWERS = 5  # iterations that sharpen the decomposition


def near_pairs(sequences: Sequence[Sequence[int]], n_items: int) -> Any:
    """How near two different items stand: the sum of 1 by their distance, over the places at most `WINDOW` apart.

    Returns:
        A symmetric scipy CSR array, [N, N], float64.
    """
    from scipy.sparse import csr_array

    items = np.fromiter((item for row in sequences for item in row), dtype=np.int64)
    owner = np.repeat(np.arange(len(sequences)), [len(row) for row in sequences])
    before, after, weight = [], [], []
    for distance in range(1, WINDOW + 1):
        pair = (owner[distance:] == owner[:-distance]) & (items[distance:] != items[:-distance])
        before.append(items[:-distance][pair])
        after.append(items[distance:][pair])
        weight.append(np.full(np.count_nonzero(pair), 1 / distance))
    pairs: Any = (np.concatenate(weight), (np.concatenate(before), np.concatenate(after)))
    near: Any = csr_array(pairs, shape=(n_items, n_items))
    return near + near.T


def bought_vectors(sequences: Sequence[Sequence[int]], n_items: int, seed: int) -> Floats32:
    """[N, D] a vector for each item, of length 1: those of items that are bought with the same ones point one way.

    The leading singular vectors of the pairs, each by the roots of the weights of its two items (as in spectral
    clustering), by their singular values. Of an item that was bought with no other the vector is zero. Call it within
    `idgr.ids.schemes.libraries.one_thread`, with scikit-learn imported before.

    Args:
        sequences: of places in the catalogue, oldest first; of training alone.
        seed: of the random start of the decomposition.
    """
    from scipy.sparse import diags_array
    from sklearn.utils.extmath import randomized_svd

    near = near_pairs(sequences, n_items)
    scale = diags_array(1 / np.sqrt(near.sum(axis=1) + _PRIOR))
    width = min(_WIDTH, n_items)
    left_ND, singular_D, _ = randomized_svd(scale @ near @ scale, width, n_iter=_POWERS, random_state=seed)
    return of_length_one(left_ND * singular_D)
