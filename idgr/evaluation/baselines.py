"""The two recommenders that every result is held against: popularity and Markov.

Both are counted from training sequences alone and take time linear in them. Neither knows what an item is: keys of any
hashable type will do. The rules for ties are part of the definition, since they move Beauty's HR@10 by 7 %.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Popularity(Generic[K]):
    """Items by their number of training interactions, equal ones in the order of first occurrence."""

    items: list[K]

    def recommend(
        self, history: Sequence[K], k: int, *, leave_out: Container[K] = (), allowed: Container[K] | None = None
    ) -> list[K]:
        """At most k items, best first.

        Args:
            history: not looked at; here so that baselines are called alike.
            leave_out: items that must not be recommended, such as those of the history.
            allowed: if given, only these may be.
        """
        return list(islice(_kept(iter(self.items), leave_out, allowed), k))


@dataclass(frozen=True)
class Markov(Generic[K]):
    """Item bigrams with back-off.

    First the successors of the newest history item by how often the pair stands in training, equal ones by popularity;
    then those of the item before it, and so on; then items by popularity.
    """

    popularity: Popularity[K]
    successors: dict[K, list[K]]

    def recommend(
        self, history: Sequence[K], k: int, *, leave_out: Container[K] = (), allowed: Container[K] | None = None
    ) -> list[K]:
        """At most k items, best first.

        Args:
            history: oldest first; items unknown to training have no successors.
            leave_out: items that must not be recommended, such as those of the history.
            allowed: if given, only these may be.
        """
        followers = chain.from_iterable(self.successors.get(item, ()) for item in reversed(history))
        return list(islice(_kept(chain(followers, self.popularity.items), leave_out, allowed), k))


def fit_popularity(sequences: Sequence[Sequence[K]]) -> Popularity[K]:
    """Count the training sequences (each oldest first, in the order of the file)."""
    keys, codes = _coded(sequences)
    return Popularity([keys[code] for code in _popularity_order(codes, len(keys)).tolist()])


def fit_markov(sequences: Sequence[Sequence[K]]) -> Markov[K]:
    """Count the training sequences (each oldest first, in the order of the file) and their adjacent pairs."""
    keys, codes = _coded(sequences)
    order = _popularity_order(codes, len(keys))
    place = np.empty(len(keys), dtype=np.int64)
    place[order] = np.arange(len(keys))

    # A pair is adjacent within one sequence: leave out those that begin at a sequence's last item.
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    lengths = lengths[lengths > 0]
    begins_pair = np.ones(len(codes), dtype=bool)
    begins_pair[np.cumsum(lengths) - 1] = False
    first = np.flatnonzero(begins_pair)
    pairs, counts = np.unique(codes[first] * max(len(keys), 1) + codes[first + 1], return_counts=True)
    before, after = np.divmod(pairs, max(len(keys), 1))
    by_rule = np.lexsort((place[after], -counts, before))
    before, after = before[by_rule], after[by_rule]

    followed, starts = np.unique(before, return_index=True)
    ends = np.append(starts, len(before))[1:]
    successors = {
        keys[item]: [keys[code] for code in after[start:end].tolist()]
        for item, start, end in zip(followed.tolist(), starts.tolist(), ends.tolist(), strict=True)
    }
    return Markov(Popularity([keys[code] for code in order.tolist()]), successors)


def _coded(sequences: Sequence[Sequence[K]]) -> tuple[list[K], NDArray[np.int64]]:
    """The distinct items in the order of first occurrence, and all sequences end to end as places in it."""
    code_of: dict[K, int] = {}
    codes = np.fromiter(
        (code_of.setdefault(item, len(code_of)) for sequence in sequences for item in sequence), dtype=np.int64
    )
    return list(code_of), codes


def _popularity_order(codes: NDArray[np.int64], n_items: int) -> NDArray[np.int64]:
    counts = np.bincount(codes, minlength=n_items)
    return np.argsort(-counts, kind="stable")  # codes stand in the order of first occurrence


def _kept(items: Iterator[K], leave_out: Container[K], allowed: Container[K] | None) -> Iterator[K]:
    seen: set[K] = set()
    for item in items:
        if item not in seen and item not in leave_out and (allowed is None or item in allowed):
            seen.add(item)
            yield item
