"""Whether two results differ by more than chance: paired tests over users, and bootstrap intervals.

The statistics are scipy's.

Shape letters: U users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

CORRECTIONS = ("holm", "bonferroni", "none")
INTERVALS = ("percentile", "basic", "BCa")
# Differences that should be equal lie within so much of the largest of them.
_ROUNDING = 32 * float(np.finfo(np.float64).eps)
_BATCH = 4_000_000  # numbers that a batch of resamples may hold, 8 bytes each


@dataclass(frozen=True)
class Resampling:
    """How what is drawn is drawn.

    Attributes:
        resamples: of the randomisation and of the bootstrap, each.
        seed: of both; each test begins with it anew, so a result does not depend on which others are asked for.
        level: the confidence of intervals.
        interval: one of `INTERVALS`; BCa takes time quadratic in U.
    """

    resamples: int = 9_999
    seed: int = 0
    level: float = 0.95
    interval: str = "percentile"


@dataclass(frozen=True)
class PairedTests:
    """What the differences between two results, user by user, tell.

    Attributes:
        difference: their mean.
        interval: of the mean, by bootstrap over users.
        t: Student's statistic for paired samples; None where all differences are equal, but for rounding.
        t_test: its two-sided p-value.
        randomisation: the two-sided p-value of Fisher's randomisation test: the share of the ways to exchange the two
            results of each user that give as large a difference of the means.
    """

    difference: float
    interval: tuple[float, float]
    t: float | None
    t_test: float
    randomisation: float


def paired_tests(reference: Values, other: Values, how: Resampling) -> PairedTests:
    """Test whether `other` differs from `reference`.

    Args:
        reference: [U], a number for each user.
        other: [U], of the same users in the same order; at least two.
    """
    differences = other - reference
    t, p = _student(differences)
    return PairedTests(
        float(differences.mean()), mean_interval(differences, how), t, p, _randomisation(differences, how)
    )


def mean_interval(values: Values, how: Resampling) -> tuple[float, float]:
    """A bootstrap confidence interval of the mean over users (Efron).

    Args:
        values: [U]; where all are equal, the interval is that value alone.
    """
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    from scipy.stats import bootstrap

    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=how.resamples,
        batch=max(1, _BATCH // len(values)),
        vectorized=True,
        confidence_level=how.level,
        method=how.interval,
        rng=np.random.default_rng(how.seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def corrected(p_values: Sequence[float], correction: str) -> list[float]:
    """p-values for as many tests as there are, so that with all null hypotheses true at most a share alpha of such
    families holds one below alpha (Holm 1979, or Bonferroni).

    Args:
        correction: one of `CORRECTIONS`.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if correction == "holm":
        order = np.argsort(p, kind="stable")
        stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
        p = np.empty_like(p)
        p[order] = stepped
    elif correction == "bonferroni":
        p = p * len(p)
    return [float(value) for value in np.minimum(p, 1.0)]


def _student(differences: Values) -> tuple[float | None, float]:
    if np.ptp(differences) <= _ROUNDING * np.abs(differences).max():  # no spread to divide by
        return None, 1.0 if differences[0] == 0 else 0.0
    from scipy.stats import ttest_1samp

    found = ttest_1samp(differences, 0.0)
    return float(found.statistic), float(found.pvalue)


def _randomisation(differences: Values, how: Resampling) -> float:
    """Exchanging a user's two results turns the sign of the difference, so users without one change nothing: they are
    left out, which makes it ten times as fast where most users miss under both."""
    told = differences[differences != 0]
    if len(told) < 2:  # with one user either sign is as far from nothing
        return 1.0
    from scipy.stats import permutation_test

    found = permutation_test(
        (told,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=how.resamples,
        batch=max(1, _BATCH // (4 * len(told))),  # scipy holds values and indices of both orders
        rng=np.random.default_rng(how.seed),
    )
    return float(found.pvalue)
