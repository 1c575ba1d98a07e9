"""Two methods side by side, seed by seed: means, bootstrap interval of the difference, probability of improvement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scar.report.numbers import REACH_WINDOW, column, first_update_at, mean_std, run_numbers, trailing_mean
from scar.report.selection import Cells
from scar.report.tables import TASK_NAMES, markdown_table, method_name
from scar.tracking.records import RunRecord

CONFIDENCE = 0.95
RESAMPLES = 10_000

DEFINITIONS = f"""\
Differences are taken seed by seed. Brackets: {CONFIDENCE:.0%} percentile bootstrap interval of the mean difference over \
seeds ({RESAMPLES:,} resamples, fixed stream); such an interval covers the true mean in about 84 % of cases with five seeds, \
in about 75 % with three, not in {CONFIDENCE:.0%} (normal numbers, simulated). P: probability of improvement, that a random run \
of the first method beats a random run of the second, ties half. Area: mean over updates of the training batch's mean raw \
reward. Reach: median update, and device seconds, at which the first method's training reward (trailing mean of \
{REACH_WINDOW}) is at least the mean over the last {REACH_WINDOW} updates of the same seed's run of the second; and how many \
seeds got there."""


@dataclass(frozen=True)
class Comparison:
    """`one` against `other` over the `n` seeds that both have. `interval` is None for fewer than two seeds; `above`: seeds
    on which `one` is higher; `improvement`: P(one > other), ties half. Units are those of what is compared."""

    n: int
    one: tuple[float | None, float | None]
    other: tuple[float | None, float | None]
    difference: float | None
    interval: tuple[float, float] | None
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


def bootstrap_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean of f64[n]; None for n < 2."""
    if len(values) < 2:
        return None
    found = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def by_seed(runs: Mapping[int, RunRecord], name: str) -> dict[int, float]:
    """One of the numbers of `RunNumbers` for every seed."""
    return {seed: getattr(run_numbers(record), name) for seed, record in runs.items()}


@dataclass(frozen=True)
class Reach:
    """When runs get to where others end: median `updates` and device `seconds` of the `reached` among `n` seeds."""

    n: int
    reached: int
    updates: float | None
    seconds: float | None


def reach(runs: Mapping[int, RunRecord], targets: Mapping[int, RunRecord]) -> Reach:
    """How long `runs` take to the training reward at which the same seed's run of `targets` ends."""
    seeds, found = sorted(runs.keys() & targets.keys()), []
    for seed in seeds:
        level = trailing_mean(run_numbers(targets[seed]).curve, REACH_WINDOW)[-1]
        update = first_update_at(run_numbers(runs[seed]).curve, level)
        if update is not None:
            found.append((update, column(runs[seed], "device_seconds")[update - 1]))
    updates, seconds = (float(np.median(values)) for values in zip(*found, strict=True)) if found else (None, None)
    return Reach(len(seeds), len(found), updates, seconds)


def comparison_rows(cells: Cells) -> list[dict[str, Any]]:
    """SCAR against every other method, and every other against sparse: one row a task and pair that share a seed."""
    pairs = [("scar", other) for other in cells.methods if other != "scar"]
    pairs += [(one, "sparse") for one in cells.methods if one not in ("scar", "sparse")]
    rows = []
    for task in cells.tasks:
        for one, other in pairs:
            first, second = cells.runs.get((task, one), {}), cells.runs.get((task, other), {})
            if first.keys() & second.keys():
                rows.append({"task": task, "one": one, "other": other} | _row(first, second))
    return rows


def _row(first: Mapping[int, RunRecord], second: Mapping[int, RunRecord]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in ("final_reward", "curve_area", "final_kl"):
        found = compare(by_seed(first, name), by_seed(second, name))
        low, high = found.interval or (None, None)
        row |= {"n": found.n, f"{name}_one_mean": found.one[0], f"{name}_one_std": found.one[1]}
        row |= {f"{name}_other_mean": found.other[0], f"{name}_other_std": found.other[1]}
        row |= {f"{name}_difference": found.difference, f"{name}_low": low, f"{name}_high": high}
        row |= {f"{name}_above": found.above, f"{name}_improvement": found.improvement}
    arrived = reach(first, second)
    return row | {"reached": arrived.reached, "reach_updates": arrived.updates, "reach_seconds": arrived.seconds}


def comparisons_csv(cells: Cells) -> str:
    """`comparison_rows` as CSV, unrounded."""
    return pd.DataFrame(comparison_rows(cells), dtype=object).to_csv(index=False)


def comparisons_markdown(cells: Cells) -> str:
    """`comparison_rows` as a markdown table, rounded, with what its columns mean."""
    header = ["task", "comparison", "n", "final reward", "seeds above", "P", "area", "final KL", "reach"]
    lines = []
    for row in comparison_rows(cells):
        line = [TASK_NAMES.get(row["task"], row["task"])]
        line += [f"{method_name(row['one'])} - {method_name(row['other'])}", _count(row, cells)]
        line += [_difference(row, "final_reward"), f"{row['final_reward_above']} of {row['n']}"]
        line += [f"{row['final_reward_improvement']:.2f}", _difference(row, "curve_area")]
        lines.append([*line, _difference(row, "final_kl", digits=1), _reached(row)])
    return f"{markdown_table(header, lines)}\n\n{DEFINITIONS}\n"


def _count(row: dict[str, Any], cells: Cells) -> str:
    return f"{row['n']}" if row["n"] == len(cells.seeds) else f"{row['n']}/{len(cells.seeds)}"


def _difference(row: dict[str, Any], name: str, *, digits: int = 2) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return show_difference(row[f"{name}_difference"], None if low is None else (low, high), digits=digits)


def show_difference(value: float, interval: tuple[float, float] | None, *, digits: int = 2) -> str:
    """A difference with its sign and, if there is one, its interval: "+0.63 [+0.41, +0.86]"."""
    bounds = "" if interval is None else f" [{interval[0]:+z.{digits}f}, {interval[1]:+z.{digits}f}]"
    return f"{value:+z.{digits}f}{bounds}"


def _reached(row: dict[str, Any]) -> str:
    if not row["reached"]:
        return f"0 of {row['n']}"
    return f"update {row['reach_updates']:.0f}, {row['reach_seconds']:.0f} s ({row['reached']} of {row['n']})"
