"""Popularity and Markov: the rules for ties, a plain implementation, and the published figures on real data."""

from __future__ import annotations

import gzip
from collections import Counter
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.evaluation.baselines import fit_markov, fit_popularity
from idgr.evaluation.metrics import hit_rate, ndcg, target_ranks

DATASETS = Path(__file__).parents[2].parent / "shared" / "datasets"


def test_popularity_breaks_ties_by_first_occurrence() -> None:
    popularity = fit_popularity([["c", "b"], ["a", "b"], ["d", "a"]])
    assert popularity.items == ["b", "a", "c", "d"]
    assert popularity.recommend([], 2) == ["b", "a"]


def test_markov_ranks_successors_by_pairs_then_popularity_then_backs_off() -> None:
    train = [["x", "b"], ["x", "c"], ["x", "c"], ["x", "d"], ["e", "d"], ["y", "e"]]
    markov = fit_markov(train)
    # After x: c twice; b and d once each, d being the more popular. After y: e. Then popularity: x, then y.
    assert markov.recommend(["y", "x"], 10) == ["c", "d", "b", "e", "x", "y"]
    assert markov.recommend(["y", "x"], 10, leave_out={"y", "x"}) == ["c", "d", "b", "e"]
    assert markov.recommend(["x", "unknown"], 1) == ["c"]
    assert markov.recommend([], 2) == ["x", "c"]
    assert markov.recommend(["x"], 10, allowed={"b", "e"}) == ["b", "e"]


def test_pairs_do_not_reach_across_users() -> None:
    assert fit_markov([["a", "b"], [], ["c"], ["d", "a"]]).successors == {"a": ["b"], "d": ["a"]}


def test_nothing_to_learn_from_recommends_nothing() -> None:
    assert fit_markov([]).recommend(["a"], 5) == []


def plain_markov(train: list[list[int]], history: list[int], k: int) -> list[int]:
    """The definition, word by word."""
    occurrences = [item for sequence in train for item in sequence]
    counts = Counter(occurrences)
    by_popularity = sorted(counts, key=lambda item: (-counts[item], occurrences.index(item)))
    pairs = Counter(pair for sequence in train for pair in pairwise(sequence))
    ranking: list[int] = []
    for newest in reversed(history):
        followers = [after for before, after in pairs if before == newest]
        ranking += sorted(followers, key=lambda item: (-pairs[newest, item], by_popularity.index(item)))
    return [item for item in dict.fromkeys(ranking + by_popularity) if item not in history][:k]


items = st.integers(0, 7)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.lists(items, max_size=8), max_size=10), st.lists(items, max_size=5), st.integers(1, 9))
def test_markov_equals_the_plain_definition(train: list[list[int]], history: list[int], k: int) -> None:
    assert fit_markov(train).recommend(history, k, leave_out=set(history)) == plain_markov(train, history, k)


# HR@5, NDCG@5, HR@10, NDCG@10 of leave-one-out, history left out of the ranking.
PUBLISHED = {
    "beauty": ((0.0528, 0.0398, 0.0719, 0.0460), (0.0075, 0.0041, 0.0115, 0.0055)),
    "sports": ((0.0296, 0.0213, 0.0397, 0.0245), (0.0057, 0.0041, 0.0091, 0.0052)),
    "yelp": ((0.0139, 0.0091, 0.0226, 0.0119), (0.0056, 0.0036, 0.0095, 0.0049)),
    "office": ((0.0879, 0.0731, 0.1037, 0.0781), (0.0040, 0.0022, 0.0111, 0.0044)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_figures_on_real_data(name: str) -> None:
    path = DATASETS / name / "sequences.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with gzip.open(path) as stream:
        sequences = [orjson.loads(line)["items"] for line in stream]
    markov = fit_markov([sequence[:-2] for sequence in sequences])
    targets = [sequence[-1] for sequence in sequences]
    for baseline, figures in zip((markov, markov.popularity), PUBLISHED[name], strict=True):
        lists = [baseline.recommend(seq[:-1], 10, leave_out=set(seq[:-1])) for seq in sequences]
        ranks = target_ranks(lists, targets)
        measured = (hit_rate(ranks, 5), ndcg(ranks, 5), hit_rate(ranks, 10), ndcg(ranks, 10))
        assert measured == pytest.approx(figures, abs=0.00006)
