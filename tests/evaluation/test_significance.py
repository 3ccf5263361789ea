"""Paired tests and intervals: worked out by hand, beside scipy called on both results, and on data without effect."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from idgr.evaluation.significance import CORRECTIONS, Resampling, corrected, mean_interval, paired_tests

HOW = Resampling(resamples=999)


def hit_or_miss(rng: np.random.Generator, n_users: int, rate: float) -> np.ndarray:
    return (rng.random(n_users) < rate).astype(np.float64)


def test_five_users_gain_and_two_do_not_change() -> None:
    found = paired_tests(np.zeros(7), np.array([1.0, 1, 1, 0, 1, 1, 0]), HOW)
    assert found.difference == pytest.approx(5 / 7)
    # Of the 2^5 ways to turn the signs, all-plus and all-minus are as extreme.
    assert found.randomisation == pytest.approx(2 / 32)
    # t = mean / (s / sqrt(n)) with s² = (5 · (2/7)² + 2 · (5/7)²) / 6.
    t = (5 / 7) / np.sqrt((5 * (2 / 7) ** 2 + 2 * (5 / 7) ** 2) / 6 / 7)
    assert found.t == pytest.approx(t)
    assert found.t_test == pytest.approx(2 * stats.t.sf(t, 6))


def test_agrees_with_scipy_on_both_results() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(9), rng.random(9)
    found = paired_tests(a, b, HOW)
    student = stats.ttest_rel(b, a)
    assert (found.t, found.t_test) == (pytest.approx(student.statistic), pytest.approx(student.pvalue))
    exact = stats.permutation_test((b, a), lambda x, y: x.mean() - y.mean(), permutation_type="samples")
    assert len(exact.null_distribution) == 2**9
    assert found.randomisation == pytest.approx(exact.pvalue)
    interval = stats.bootstrap((b - a,), np.mean, n_resamples=999, method="percentile", rng=np.random.default_rng(0))
    assert found.interval == pytest.approx(tuple(interval.confidence_interval))


def test_drawn_signs_agree_with_students_t_on_many_users() -> None:
    rng = np.random.default_rng(2)
    a, b = hit_or_miss(rng, 4_000, 0.10), hit_or_miss(rng, 4_000, 0.105)
    found = paired_tests(a, b, Resampling(resamples=4_999))
    assert 0.02 < found.t_test < 0.5
    assert found.randomisation == pytest.approx(found.t_test, rel=0.25)
    low, high = found.interval
    error = (b - a).std(ddof=1) / np.sqrt(len(a))
    assert (low, high) == pytest.approx((found.difference - 1.96 * error, found.difference + 1.96 * error), abs=0.002)


def test_without_an_effect_p_is_large_and_with_one_small() -> None:
    rng = np.random.default_rng(3)
    a = hit_or_miss(rng, 2_000, 0.1)
    shuffled = np.where(rng.random(2_000) < 0.5, a, hit_or_miss(rng, 2_000, 0.1))
    nothing = paired_tests(a, shuffled, HOW)
    assert min(nothing.t_test, nothing.randomisation) > 0.2
    assert nothing.interval[0] < 0 < nothing.interval[1]
    effect = paired_tests(a, np.maximum(a, hit_or_miss(rng, 2_000, 0.03)), HOW)
    assert effect.t_test < 1e-6
    assert effect.randomisation == pytest.approx(2 / 1_000)  # the least that 999 resamples can tell
    assert effect.interval[0] > 0


def test_one_user_who_differs_tells_nothing() -> None:
    found = paired_tests(np.array([0.0, 0, 0, 0, 1]), np.array([0.0, 0, 0, 1, 1]), HOW)
    assert found.randomisation == 1.0
    assert found.t_test > 0.3


def test_equal_differences_have_no_spread() -> None:
    same = paired_tests(np.ones(4), np.ones(4), HOW)
    assert (same.t, same.t_test, same.randomisation, same.interval) == (None, 1.0, 1.0, (0.0, 0.0))
    shifted = paired_tests(np.zeros(4), np.ones(4), HOW)
    assert (shifted.t, shifted.t_test, shifted.interval) == (None, 0.0, (1.0, 1.0))
    assert shifted.randomisation == pytest.approx(2 / 16)


@pytest.mark.filterwarnings("error")
def test_differences_that_are_equal_but_for_rounding_have_no_spread() -> None:
    reference = np.array([0.3, 0.6, 0.7])
    assert np.ptp(reference + 0.1 - reference) > 0
    found = paired_tests(reference, reference + 0.1, HOW)
    assert (found.t, found.t_test) == (None, 0.0)
    assert found.difference == pytest.approx(0.1)
    assert paired_tests(reference, reference + np.array([0.1, 0.1, 0.2]), HOW).t is not None


@pytest.mark.parametrize("kind", ["percentile", "basic", "BCa"])
def test_intervals_repeat_and_widen_with_the_level(kind: str) -> None:
    values = np.random.default_rng(4).random(60)
    narrow, wide = (mean_interval(values, Resampling(999, 0, level, kind)) for level in (0.8, 0.99))
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]
    assert mean_interval(values, Resampling(999, 0, 0.8, kind)) == narrow
    assert mean_interval(values, Resampling(999, 1, 0.8, kind)) != narrow


def test_corrections() -> None:
    assert corrected([0.01, 0.04, 0.03], "holm") == pytest.approx([0.03, 0.06, 0.06])
    assert corrected([0.02, 0.5, 0.9], "holm") == pytest.approx([0.06, 1.0, 1.0])
    assert corrected([0.01, 0.5], "bonferroni") == pytest.approx([0.02, 1.0])
    assert corrected([0.01, 0.5], "none") == [0.01, 0.5]
    assert all(corrected([], correction) == [] for correction in CORRECTIONS)
