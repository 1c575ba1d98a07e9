"""Means, intervals and paired differences over seeds, on plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
Interval = tuple[float, float]


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample std (ddof 1) over seeds; the std of one value is None, never 0, and so are both of none."""
    mean = float(np.mean(values)) if len(values) else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def bootstrap_interval(values: np.ndarray) -> Interval | None:
    """Percentile bootstrap interval of the mean of f64[n]; None for n < 2."""
    if len(values) < 2:
        return None
    interval = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def student_interval(values: np.ndarray) -> Interval | None:
    """Student's interval of the mean of f64[n]; None for n < 2 and for values that are all the same."""
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return float(low), float(high)


def wilson_interval(successes: float, n: int) -> Interval:
    """Wilson's score interval of a proportion; `successes` may hold halves (ties), which is why it is not scipy's."""
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    share, spread = successes / n, z * z / n
    middle = share + spread / 2
    reach = math.sqrt(spread * (share * (1 - share) + spread / 4))
    return (middle - reach) / (1 + spread), (middle + reach) / (1 + spread)


@dataclass(frozen=True)
class Comparison:
    """`one` against `other` (mean and sample std) over the `n` seeds that both have. `interval` is None for fewer than two
    seeds; `above`: seeds on which `one` is higher; `improvement`: P(one > other), ties half."""

    n: int
    one: tuple[float | None, float | None]
    other: tuple[float | None, float | None]
    difference: float | None
    interval: Interval | None
    above: int
    improvement: float | None


def compare(one: Mapping[int, float], other: Mapping[int, float]) -> Comparison:
    """Compare numbers by seed; only seeds that both have count."""
    seeds = sorted(one.keys() & other.keys())
    first, second = (np.array([side[seed] for seed in seeds], dtype=np.float64) for side in (one, other))
    differences = first - second
    improvement = stats.mannwhitneyu(first, second).statistic / len(seeds) ** 2 if seeds else None
    return Comparison(
        n=len(seeds),
        one=mean_std(first.tolist()),
        other=mean_std(second.tolist()),
        difference=float(differences.mean()) if seeds else None,
        interval=bootstrap_interval(differences),
        above=int((differences > 0).sum()),
        improvement=None if improvement is None else float(improvement),
    )
