"""Whether events of equal time stand in order of item key, which would be an order that no user acted in.

Dumps that are sorted by user and item leave the events of one second in order of key, and a sequence ordered by time
keeps that. In an order that knows nothing of keys, a group of n events of one time ascends in 1 of n! cases.
Legend: E events, I items, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, factorial, log, log1p
from typing import Any

import numpy as np

from idgr.corpus.ordering import Histories
from idgr.corpus.statistics import key_ranks

CHANCE = 1e-3  # how often data in no order of key may be taken for such that are
_LARGEST = 12  # events of a group; larger ones count as such, which makes the test more careful


@dataclass(frozen=True)
class TieOrder:
    """How the groups of equal time stand.

    Attributes:
        groups: of one user, with two events or more of one time.
        ascending, descending: so many of them are in order of key, upwards or downwards.
        expected: so many of them ascend by chance, and as many descend.
        p: at most so probable is it by chance that as many ascend, or as many descend.
    """

    groups: int
    ascending: int
    descending: int
    expected: float
    p: float

    @property
    def by_key(self) -> bool:
        """Whether more groups are in order of key than chance allows."""
        return self.p < CHANCE

    def row(self) -> dict[str, Any]:
        return {
            "groups": self.groups,
            "ascending": self.ascending,
            "descending": self.descending,
            "by_chance": round(self.expected, 1),
            "p": self.p,
        }

    def told(self) -> str:
        """The finding in words, of the direction that is more frequent."""
        count, way = max((self.ascending, "ascend"), (self.descending, "descend"))
        groups = f"{count:,} of {self.groups:,} groups of equal time"
        return f"{groups} {way} by item key, where chance gives {self.expected:,.0f}"


def tie_order(histories: Histories) -> TieOrder:
    """Test the groups of equal time of all users, in the order in which they stand.

    Of the orders of keys (`key_ranks`) the one is taken that more groups agree with.
    """
    user = histories.user
    tied = np.flatnonzero((user[1:] == user[:-1]) & (histories.time[1:] == histories.time[:-1]))
    if not len(tied):
        return TieOrder(0, 0, 0, 0.0, 1.0)
    group = np.concatenate([[0], np.cumsum(np.diff(tied) != 1)])  # [pairs of neighbours]
    steps = np.bincount(group)  # [G], one less than its events
    sizes = np.bincount(np.minimum(steps + 1, _LARGEST))
    chances = [(int(count), 1 / factorial(size)) for size, count in enumerate(sizes.tolist()) if count]
    best, p, ranks = (0, 0), 1.0, key_ranks(histories.items)
    for rank in ranks:
        up = rank[histories.item[tied + 1]] > rank[histories.item[tied]]
        rising = np.bincount(group, weights=up)
        counts = int((rising == steps).sum()), int((rising == 0).sum())
        if max(counts) >= max(best):
            best = counts
            p = tail(chances, max(counts))
    expected = sum(count * chance for count, chance in chances)
    return TieOrder(len(steps), *best, expected, min(1.0, 2 * len(ranks) * p))


def tail(chances: Sequence[tuple[int, float]], observed: int) -> float:
    """At most so probable is it that `observed` or more of independent trials succeed (Chernoff's bound).

    Args:
        chances: numbers of trials, and the probability of success of each of them.
        observed: of all trials.
    """
    if observed <= sum(count * chance for count, chance in chances):
        return 1.0
    if observed >= sum(count for count, _ in chances):
        return exp(sum(count * log(chance) for count, chance in chances))
    low, high = 0.0, 60.0  # e^60 is more than any 1 / chance here

    def mean(tilt: float) -> float:
        weights = ((count, chance * exp(tilt)) for count, chance in chances)
        return sum(
            count * odds / (1 + odds - chance) for (count, odds), (_, chance) in zip(weights, chances, strict=True)
        )

    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < observed else (low, middle)
    return exp(sum(count * log1p(chance * (exp(low) - 1)) for count, chance in chances) - low * observed)
