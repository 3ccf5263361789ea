"""Two recommenders' lists as one: a weighted sum of the scores that both give to the candidates of either.

An item that only one list holds has, for the other, the score of that list's last item: it can have no higher one.
Log-probabilities over one catalogue, such as those of `recommend` with the softmax over valid children and of a SASRec,
can be summed as they are; scores of different kinds are better blended by place.

Legend: B users, N candidates of all users, those of a user side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idgr.evaluation.metrics import Ranks
from idgr.formats.records import Recommendation

Floats = NDArray[np.float64]

# Reciprocal rank fusion (Cormack, Clarke and Büttcher 2009, section 2).
_RANK_OFFSET = 60.0


@dataclass(frozen=True)
class Candidates:
    """The items of either list of each user.

    Attributes:
        items: N item keys, each user's first list before what only the second holds.
        begin: [B + 1] the candidates of user b are begin[b] to begin[b + 1] - 1.
        first, second: [N] their scores in the two lists.
    """

    items: list[str]
    begin: NDArray[np.int64]
    first: Floats
    second: Floats


def candidates(first: Sequence[Recommendation], second: Sequence[Recommendation], *, by_rank: bool) -> Candidates:
    """The candidates of users whose two lists stand at the same place.

    Args:
        by_rank: whether an item's score is 1 / (60 + place) in place of its own, and 0 outside of a list.
    """
    items: list[str] = []
    begin = [0]
    scores: tuple[list[float], list[float]] = ([], [])
    for lists in zip(first, second, strict=True):
        ours = list(dict.fromkeys([*lists[0].items, *lists[1].items]))
        for one, found in zip(lists, scores, strict=True):
            own = [1.0 / (_RANK_OFFSET + place) for place in range(1, len(one.items) + 1)] if by_rank else one.scores
            score_of = dict(zip(one.items, own, strict=True))
            absent = 0.0 if by_rank else min(own, default=0.0)
            found.extend(score_of.get(item, absent) for item in ours)
        items += ours
        begin.append(len(items))
    return Candidates(items, np.array(begin), np.array(scores[0]), np.array(scores[1]))


def blended(found: Candidates, weight: float) -> Floats:
    """[N] the sums of the scores, the second's times `weight` and the first's times the rest."""
    return (1.0 - weight) * found.first + weight * found.second


def blended_lists(found: Candidates, weight: float, k: int) -> list[tuple[list[str], list[float]]]:
    """Each user's k best candidates with their sums; equal sums in the order of the candidates."""
    score = blended(found, weight)
    lists = []
    for begin, end in zip(found.begin[:-1].tolist(), found.begin[1:].tolist(), strict=True):
        best = begin + np.argsort(-score[begin:end], kind="stable")[:k]
        lists.append(([found.items[place] for place in best.tolist()], score[best].tolist()))
    return lists


def blended_ranks(found: Candidates, targets: Sequence[str], weight: float) -> Ranks:
    """[B] the place that each user's target has among the candidates, from 1; 0 where it is none."""
    score = blended(found, weight)
    bounds = list(zip(found.begin[:-1].tolist(), found.begin[1:].tolist(), strict=True))
    ranks = np.zeros(len(targets), dtype=np.int64)
    for user, ((begin, end), target) in enumerate(zip(bounds, targets, strict=True)):
        try:
            place = found.items.index(target, begin, end)
        except ValueError:
            continue
        own = score[place]
        ranks[user] = 1 + (score[begin:end] > own).sum() + (score[begin:place] == own).sum()
    return ranks
