"""What ranked lists are worth: hit rate, NDCG, reciprocal rank, coverage, Gini, short lists.

Each user has one held-out item, the target, so the ideal DCG is 1 and NDCG is the target's discount.

Shape letters: B users, I items of the catalogue.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.int64]


def target_ranks(lists: Sequence[Sequence[Hashable]], targets: Sequence[Hashable]) -> Ranks:
    """The place of each user's target in the user's list.

    Args:
        lists: B lists, best first.
        targets: B items.

    Returns:
        [B]: from 1; 0 where the target is not in the list.
    """
    places = (
        next((rank for rank, item in enumerate(row, 1) if item == target), 0)
        for row, target in zip(lists, targets, strict=True)
    )
    return np.fromiter(places, dtype=np.int64, count=len(targets))


def hits(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """[B]: 1 where the target is among the first k, else 0."""
    return ((ranks >= 1) & (ranks <= k)).astype(np.float64)


def discounted_gains(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """[B]: 1 / log2(rank + 1) where the target is among the first k, else 0 (Järvelin and Kekäläinen 2002)."""
    return np.where(hits(ranks, k) > 0, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def reciprocal_ranks(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """[B]: 1 / rank where the target is among the first k, else 0."""
    return np.where(hits(ranks, k) > 0, 1.0 / np.maximum(ranks, 1), 0.0)


def hit_rate(ranks: Ranks, k: int) -> float:
    """HR@k: the share of users whose target is among the first k (for one target a user, recall@k)."""
    return _mean(hits(ranks, k))


def ndcg(ranks: Ranks, k: int) -> float:
    """NDCG@k, averaged over the users."""
    return _mean(discounted_gains(ranks, k))


def mrr(ranks: Ranks, k: int) -> float:
    """MRR@k: the mean of the reciprocal ranks."""
    return _mean(reciprocal_ranks(ranks, k))


def recommended_counts(lists: Sequence[Sequence[Hashable]], k: int) -> NDArray[np.int64]:
    """How many users' first k each item is among, for every item that is in any; ascending."""
    counts: dict[Hashable, int] = {}
    for row in lists:
        for item in row[:k]:
            counts[item] = counts.get(item, 0) + 1
    return np.sort(np.fromiter(counts.values(), dtype=np.int64, count=len(counts)))


def coverage(counts: NDArray[np.int64], n_items: int) -> float:
    """The share of the I items of the catalogue that are recommended to anyone.

    Args:
        counts: as `recommended_counts` gives them; items left out count as never recommended.
    """
    return float((counts > 0).sum() / n_items)


def gini(counts: NDArray[np.int64], n_items: int) -> float:
    """How unequally recommendations fall on the I items: 0 all alike, towards 1 all on one item.

    The Gini coefficient of the counts over the whole catalogue, items never recommended included; 0 where nothing is
    recommended.

    Args:
        counts: as `recommended_counts` gives them.
    """
    total = counts.sum()
    if total == 0:
        return 0.0
    ascending = np.sort(counts)
    places = np.arange(n_items - len(counts) + 1, n_items + 1)  # the items left out come first, with 0 each
    return float(2.0 * (places * ascending).sum() / (n_items * total) - (n_items + 1) / n_items)


def short_share(lists: Sequence[Collection[Hashable]], k: int) -> float:
    """The share of users who get fewer than k items."""
    return _mean(np.array([len(row) < k for row in lists], dtype=np.float64))


def accuracy(ranks: Ranks, cutoffs: Sequence[int]) -> dict[str, float]:
    """HR, NDCG and MRR at each cutoff, under the names of `metrics.json` (`hr@5`, `ndcg@5`, `mrr@5`, …)."""
    return {
        f"{name}@{k}": metric(ranks, k)
        for k in cutoffs
        for name, metric in (("hr", hit_rate), ("ndcg", ndcg), ("mrr", mrr))
    }


def breadth(lists: Sequence[Sequence[Hashable]], n_items: int, cutoffs: Sequence[int]) -> dict[str, float]:
    """Coverage, Gini and the share of short lists at each cutoff (`coverage@5`, `gini@5`, `short@5`, …)."""
    figures: dict[str, float] = {}
    for k in cutoffs:
        counts = recommended_counts(lists, k)
        figures[f"coverage@{k}"] = coverage(counts, n_items)
        figures[f"gini@{k}"] = gini(counts, n_items)
        figures[f"short@{k}"] = short_share(lists, k)
    return figures


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
