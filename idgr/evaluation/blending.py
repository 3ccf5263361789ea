"""Several recommenders' lists as one: a weighted sum of the scores that all give to the candidates of any.

An item that a list does not hold has, for it, the score of that list's last item: it can have no higher one.
Log-probabilities over one catalogue, such as those of `recommend` with the softmax over valid children and of a SASRec,
can be summed as they are; scores of different kinds are better blended by place.

Weights are those of the lists after the first, from 0 to 1 and together at most 1; the first has what is left.

Legend: B users, N candidates of all users, those of a user side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import fsum

import numpy as np
from numpy.typing import NDArray

from idgr.evaluation.metrics import Ranks
from idgr.formats.records import Recommendation

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

# Reciprocal rank fusion (Cormack, Clarke and Büttcher 2009, section 2).
_RANK_OFFSET = 60.0


@dataclass(frozen=True)
class Candidates:
    """The items of any list of each user.

    Attributes:
        items: N item keys, each user's first list before what only the second holds, and so on.
        begin: [B + 1] the candidates of user b are begin[b] to begin[b + 1] - 1.
        scores: [N] of each list.
    """

    items: list[str]
    begin: Places
    scores: list[Floats]


def candidates(*recommenders: Sequence[Recommendation], by_rank: bool) -> Candidates:
    """The candidates of users whose lists, one a recommender, stand at the same place.

    Args:
        by_rank: whether an item's score is 1 / (60 + place) in place of its own, and 0 outside of a list.
    """
    items: list[str] = []
    begin = [0]
    scores: list[list[float]] = [[] for _ in recommenders]
    for lists in zip(*recommenders, strict=True):
        ours = list(dict.fromkeys(item for one in lists for item in one.items))
        for one, found in zip(lists, scores, strict=True):
            own = [1.0 / (_RANK_OFFSET + place) for place in range(1, len(one.items) + 1)] if by_rank else one.scores
            score_of = dict(zip(one.items, own, strict=True))
            absent = 0.0 if by_rank else min(own, default=0.0)
            found.extend(score_of.get(item, absent) for item in ours)
        items += ours
        begin.append(len(items))
    return Candidates(items, np.array(begin), [np.array(one) for one in scores])


def simplex(n_lists: int, steps: int) -> Iterator[list[float]]:
    """Every way to share 1 among lists in parts of 1 / steps: the weights of all but the first, in ascending order."""
    n_weights = n_lists - 1
    for bars in combinations(range(steps + n_weights), n_weights):  # the parts of each list end at a bar
        yield [(high - low - 1) / steps for low, high in zip((-1, *bars), bars, strict=False)]


def blended(found: Candidates, weights: Sequence[float]) -> Floats:
    """[N] the sums of the scores, each list's times its weight."""
    first, *others = found.scores
    total: Floats = max(0.0, 1.0 - fsum(weights)) * first
    for weight, score in zip(weights, others, strict=True):
        total = total + weight * score
    return total


def blended_lists(found: Candidates, weights: Sequence[float], k: int) -> list[tuple[list[str], list[float]]]:
    """Each user's k best candidates with their sums; equal sums in the order of the candidates."""
    score = blended(found, weights)
    lists = []
    for begin, end in zip(found.begin[:-1].tolist(), found.begin[1:].tolist(), strict=True):
        best = begin + np.argsort(-score[begin:end], kind="stable")[:k]
        lists.append(([found.items[place] for place in best.tolist()], score[best].tolist()))
    return lists


def target_places(found: Candidates, targets: Sequence[str]) -> Places:
    """[B] where each user's target stands among the candidates of all users; -1 where it is none of the user's."""
    bounds = list(zip(found.begin[:-1].tolist(), found.begin[1:].tolist(), strict=True))
    places = np.full(len(targets), -1, dtype=np.int64)
    for user, ((begin, end), target) in enumerate(zip(bounds, targets, strict=True)):
        try:
            places[user] = found.items.index(target, begin, end)
        except ValueError:
            continue
    return places


def blended_ranks(found: Candidates, places: Places, weights: Sequence[float]) -> Ranks:
    """[B] the place that each user's target has by the sums, from 1; 0 where it is no candidate.

    Args:
        places: of the targets, as `target_places` finds them.
    """
    score = blended(found, weights)
    held = places >= 0
    own = np.where(held, score[places], np.inf) if len(score) else np.full(len(places), np.inf)
    user = np.repeat(np.arange(len(places)), np.diff(found.begin))
    ahead = (score > own[user]) | ((score == own[user]) & (np.arange(len(score)) < places[user]))
    return np.where(held, 1 + np.bincount(user[ahead], minlength=len(places)), 0)
