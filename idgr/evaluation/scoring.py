"""Recommendations held against the truth and beside the baselines: what stands in `metrics.json`.

All items are ranked and each user has one target (leave-one-out or the like); there are no sampled negatives.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from idgr.errors import IdgrError
from idgr.evaluation.baselines import fit_markov
from idgr.evaluation.metrics import Ranks, accuracy, breadth, discounted_gains, hits, target_ranks
from idgr.evaluation.segments import segments, transitions
from idgr.formats.records import Query, read_recommendations


@dataclass(frozen=True)
class Scores:
    """What `idgr eval` writes.

    Args:
        metrics: the content of `metrics.json`.
        per_user: a row a user, in the order of the truth.
    """

    metrics: dict[str, Any]
    per_user: list[dict[str, Any]]


def read_lists(
    path: str | os.PathLike[str], truth: Sequence[Query], catalogue: Container[str] | None = None
) -> list[list[str]]:
    """The recommended items of every user of the truth, in its order.

    Args:
        path: `recs.jsonl`, in any order of users.
        catalogue: the item keys that may be recommended, if that is to be checked.

    Raises:
        IdgrError: a user of the truth has no line or two, a line is of another user, an item is not in the catalogue.
    """
    users = {query.user_id for query in truth}
    list_of = {line.user_id: line.items for line in read_recommendations(path, catalogue, users)}
    missing = [query.user_id for query in truth if query.user_id not in list_of]
    if missing:
        raise IdgrError(
            f"no recommendations for {len(missing)} of {len(truth)} users of the truth, such as {missing[0]!r}",
            "recommend for the whole file that is the truth",
            where=path,
        )
    return [list_of[query.user_id] for query in truth]


def baseline_lists(
    truth: Sequence[Query], train: Sequence[Sequence[str]], k: int, *, keep_history: bool = False
) -> dict[str, list[list[str]]]:
    """What popularity and Markov recommend to the users of the truth, at most k items each.

    Args:
        train: the training sequences, in the order of the file.
        keep_history: whether items of the history may be recommended again.
    """
    markov = fit_markov(train)
    return {
        name: [
            baseline.recommend(query.history, k, leave_out=() if keep_history else set(query.history))
            for query in truth
        ]
        for name, baseline in (("popularity", markov.popularity), ("markov", markov))
    }


def score(
    lists: Sequence[Sequence[str]],
    truth: Sequence[Query],
    n_items: int,
    cutoffs: Sequence[int],
    *,
    baselines: dict[str, list[list[str]]] | None = None,
    train: Sequence[Sequence[str]] | None = None,
    by_segment: bool = False,
) -> Scores:
    """Score lists, and the baselines' in the same way.

    Args:
        lists: best first, in the order of the truth.
        truth: each with a target.
        n_items: the size of the catalogue.
        cutoffs: the k of HR@k and the others.
        baselines: lists by name, in the order of the truth.
        train: the training sequences, for the popularity of targets; without them rows lack `target_count`.
        by_segment: whether to score each segment of users too, and to tell the transition of each; needs `train`.
    """
    targets = [_target(query) for query in truth]
    ranks = target_ranks(lists, targets)
    ranks_of = {name: target_ranks(theirs, targets) for name, theirs in (baselines or {}).items()}
    metrics: dict[str, Any] = {
        "n_users": len(truth),
        "n_items": n_items,
        **accuracy(ranks, cutoffs),
        **breadth(lists, n_items, cutoffs),
    }
    if baselines is not None:
        metrics["baselines"] = {
            name: accuracy(ranks_of[name], cutoffs) | breadth(theirs, n_items, cutoffs)
            for name, theirs in baselines.items()
        }
    counts = transition = None
    if train is not None:
        count_of = Counter(item for sequence in train for item in sequence)
        counts = [count_of[target] for target in targets]
    if by_segment:
        if train is None or counts is None:
            raise ValueError("segments need the training sequences")
        lasts = [query.history[-1] if query.history else None for query in truth]
        transition = transitions(lasts, targets, counts, train)
        metrics["segments"] = {
            division: {
                name: {
                    "n_users": int(members.sum()),
                    **accuracy(ranks[members], cutoffs),
                    "baselines": {other: accuracy(theirs[members], cutoffs) for other, theirs in ranks_of.items()},
                }
                for name, members in parts.items()
            }
            for division, parts in segments([len(query.history) for query in truth], counts, transition).items()
        }
    return Scores(metrics, _rows(truth, lists, ranks, counts, transition, cutoffs))


def _rows(
    truth: Sequence[Query],
    lists: Sequence[Sequence[str]],
    ranks: Ranks,
    counts: Sequence[int] | None,
    transition: Sequence[str] | None,
    cutoffs: Sequence[int],
) -> list[dict[str, Any]]:
    columns = {f"hr@{k}": hits(ranks, k).astype(int).tolist() for k in cutoffs}
    columns |= {f"ndcg@{k}": discounted_gains(ranks, k).tolist() for k in cutoffs}
    rows = []
    for place, query in enumerate(truth):
        row: dict[str, Any] = {
            "user_id": query.user_id,
            "target": query.target,
            "rank": int(ranks[place]),
            "results": len(lists[place]),
            "history_length": len(query.history),
        }
        if counts is not None:
            row["target_count"] = counts[place]
        if transition is not None:
            row["transition"] = transition[place]
        rows.append(row | {name: column[place] for name, column in columns.items()})
    return rows


def _target(query: Query) -> str:
    if query.target is None:
        raise ValueError(f"user {query.user_id!r} of the truth has no target")
    return query.target
