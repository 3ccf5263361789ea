"""Golden values worked out by hand, and properties that hold for any lists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.evaluation.metrics import (
    accuracy,
    breadth,
    coverage,
    discounted_gains,
    gini,
    hit_rate,
    mrr,
    ndcg,
    recommended_counts,
    short_share,
    target_ranks,
)

RANKS = np.array([1, 3, 0, 6, 10, 11])


def test_target_ranks_count_from_one_and_are_zero_for_a_miss() -> None:
    lists = [["a", "b", "c"], ["a", "b"], [], ["c"]]
    assert target_ranks(lists, ["a", "b", "a", "b"]).tolist() == [1, 2, 0, 0]


def test_target_ranks_refuse_lists_of_another_number_of_users() -> None:
    with pytest.raises(ValueError, match="zip"):
        target_ranks([["a"]], ["a", "b"])


def test_golden_accuracy() -> None:
    assert hit_rate(RANKS, 5) == pytest.approx(2 / 6)
    assert hit_rate(RANKS, 10) == pytest.approx(4 / 6)
    assert ndcg(RANKS, 5) == pytest.approx((1 + 1 / math.log2(4)) / 6)
    assert ndcg(RANKS, 10) == pytest.approx((1 + 1 / 2 + 1 / math.log2(7) + 1 / math.log2(11)) / 6)
    assert mrr(RANKS, 5) == pytest.approx((1 + 1 / 3) / 6)
    assert mrr(RANKS, 10) == pytest.approx((1 + 1 / 3 + 1 / 6 + 1 / 10) / 6)


def test_names_of_the_figures() -> None:
    assert list(accuracy(RANKS, [5, 10])) == ["hr@5", "ndcg@5", "mrr@5", "hr@10", "ndcg@10", "mrr@10"]
    assert accuracy(RANKS, [10])["hr@10"] == hit_rate(RANKS, 10)
    assert list(breadth([["a"]], 3, [5])) == ["coverage@5", "gini@5", "short@5"]


def test_no_users_score_zero() -> None:
    nobody = np.array([], dtype=np.int64)
    assert (hit_rate(nobody, 5), ndcg(nobody, 5), mrr(nobody, 5)) == (0.0, 0.0, 0.0)


def test_golden_breadth() -> None:
    lists = [["a", "b", "c"], ["a", "b"], ["a", "d", "e"]]
    counts = recommended_counts(lists, 2)
    assert counts.tolist() == [1, 2, 3]  # d, b, a
    assert coverage(counts, 4) == pytest.approx(3 / 4)
    # Sorted over a catalogue of four: 0 1 2 3; 2 (1·0 + 2·1 + 3·2 + 4·3) / (4 · 6) - 5/4.
    assert gini(counts, 4) == pytest.approx(40 / 24 - 5 / 4)
    assert short_share(lists, 2) == 0.0
    assert short_share(lists, 3) == pytest.approx(1 / 3)


def test_gini_of_the_extremes() -> None:
    assert gini(np.array([7, 7, 7]), 3) == pytest.approx(0.0)
    assert gini(np.array([9]), 10) == pytest.approx(0.9)
    assert gini(np.array([], dtype=np.int64), 10) == 0.0


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 20))
def test_the_three_metrics_are_ordered_and_grow_with_k(ranks: list[int], k: int) -> None:
    array = np.array(ranks)
    assert 0.0 <= mrr(array, k) <= ndcg(array, k) <= hit_rate(array, k) <= 1.0
    assert hit_rate(array, k) <= hit_rate(array, k + 1)
    assert (discounted_gains(array, k) > 0).sum() == sum(1 <= rank <= k for rank in ranks)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=20), st.integers(0, 20))
def test_gini_is_half_the_relative_mean_difference(counts: list[int], never: int) -> None:
    everything = np.array(counts + [0] * never, dtype=np.int64)
    if everything.sum() == 0:
        return
    n = len(everything)
    differences = np.abs(everything[:, None] - everything[None, :]).sum()
    assert gini(np.sort(np.array(counts)), n) == pytest.approx(differences / (2 * n * everything.sum()))
