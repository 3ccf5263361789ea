"""How pure the items are that share the beginning of an ID: what is left to say about their category.

The clusters of a level are the items whose IDs have the same first words. Their purity is the entropy of the categories
within them, beside that of clusters of the same sizes to which the items are assigned at random: without it, small
clusters would look pure whatever the IDs say.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Purity:
    """How pure the clusters of a level are.

    Attributes:
        level: clusters are items with the same first `level` words.
        clusters: how many there are.
        entropy: of the categories within a cluster, in bits, the mean over items.
        chance: the same, the mean over random assignments to clusters of the same sizes.
    """

    level: int
    clusters: int
    entropy: float
    chance: float

    def row(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "clusters": self.clusters,
            "entropy_bits": round(self.entropy, 4),
            "chance_bits": round(self.chance, 4),
        }


def purities(ids: Sequence[str], of: Sequence[Hashable], *, draws: int, seed: int) -> list[Purity]:
    """The purity of each level, from the first word to the longest ID; at level 0 all items are one cluster.

    Of a shorter ID the whole counts where a level asks for more words.

    Args:
        ids: of each item, words with a space between.
        of: the category of each item.
        draws: random assignments, of the same order of the items at every level.
    """
    words = [text.split() for text in ids]
    if not words:
        return []
    number: dict[Hashable, int] = {}
    category_N = np.array([number.setdefault(one, len(number)) for one in of], dtype=np.int64)
    rng = np.random.default_rng(seed)
    shuffled = [category_N[rng.permutation(len(ids))] for _ in range(draws)]
    found = []
    for level in range(max(map(len, words)) + 1):
        prefixes: dict[tuple[str, ...], int] = {}
        cluster_N = np.array([prefixes.setdefault(tuple(row[:level]), len(prefixes)) for row in words], dtype=np.int64)
        chance = [entropy_within(cluster_N, drawn_N) for drawn_N in shuffled]
        found.append(Purity(level, len(prefixes), entropy_within(cluster_N, category_N), float(np.mean(chance))))
    return found


def entropy_within(cluster_N: Ints, category_N: Ints) -> float:
    """The entropy of the categories within the clusters, in bits, the mean over items: H(category | cluster)."""
    _, size = np.unique(cluster_N, return_counts=True)
    _, both = np.unique(np.stack([cluster_N, category_N]), axis=1, return_counts=True)
    return float(((size * np.log2(size)).sum() - (both * np.log2(both)).sum()) / len(cluster_N))
