"""Means, intervals and paired differences over seeds, on plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
Interval = tuple[float, float]


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample std (ddof 1) over seeds; the std of one value is None, never 0, and so are both of none."""
    mean = float(np.mean(values)) if len(values) else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class StudentTest:
    """Student's t on one mean: its interval, and the two-sided p value of "the mean is 0"."""

    interval: Interval
    p: float


def student(values: np.ndarray) -> StudentTest | None:
    """Student's test of the mean of f64[n] over seeds. None where no spread can be estimated: for n < 2, and for values that
    are all the same but for rounding."""
    if len(values) < 2 or np.ptp(values) <= 1e-12 * np.abs(values).max():
        return None
    test = stats.ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(CONFIDENCE)
    return StudentTest((float(low), float(high)), float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for how many there are, so that one or more false findings among them are as rare as one test says,
    however the tests depend on each other.

    Holm (1979): the k-th smallest of m is multiplied by m - k + 1, is no smaller than the one before it, and no larger than 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected.tolist()


def bootstrap_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of f64[P] when its P items are drawn anew with replacement; None for P < 2.

    For a mean the bootstrap needs no resampling: the error over all resamples is the items' std (ddof 0) over sqrt(P).
    """
    return float(np.std(values) / math.sqrt(len(values))) if len(values) > 1 else None


def wilson_interval(successes: float, n: int) -> Interval:
    """Wilson's score interval of a proportion; `successes` may hold halves (ties), which is why it is not scipy's."""
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    share, spread = successes / n, z * z / n
    middle = share + spread / 2
    reach = math.sqrt(spread * (share * (1 - share) + spread / 4))
    return (middle - reach) / (1 + spread), (middle + reach) / (1 + spread)


def even_p(successes: float, n: int) -> float:
    """Two-sided p value of "the share is one half": the score test that `wilson_interval` inverts."""
    return float(2 * stats.norm.sf(abs(2 * successes - n) / math.sqrt(n)))


@dataclass(frozen=True)
class Comparison:
    """`one` against `other` (mean and sample std) over the `n` seeds that both have. `interval` and `p` are those of a paired t
    test, None where `student` has none; `above`: seeds on which `one` is higher; `improvement`: P(one > other), ties half."""

    n: int
    one: tuple[float | None, float | None]
    other: tuple[float | None, float | None]
    difference: float | None
    interval: Interval | None
    p: float | None
    above: int
    improvement: float | None


def compare(one: Mapping[int, float], other: Mapping[int, float]) -> Comparison:
    """Compare numbers by seed; only seeds that both have count."""
    seeds = sorted(one.keys() & other.keys())
    first, second = (np.array([side[seed] for seed in seeds], dtype=np.float64) for side in (one, other))
    differences = first - second
    test = student(differences)
    improvement = stats.mannwhitneyu(first, second).statistic / len(seeds) ** 2 if seeds else None
    return Comparison(
        n=len(seeds),
        one=mean_std(first.tolist()),
        other=mean_std(second.tolist()),
        difference=float(differences.mean()) if seeds else None,
        interval=test.interval if test else None,
        p=test.p if test else None,
        above=int((differences > 0).sum()),
        improvement=None if improvement is None else float(improvement),
    )
