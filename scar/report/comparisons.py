"""Two methods side by side, seed by seed: means, Student's interval of the difference, probability of improvement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scar.report.frames import SMOOTHING, first_update_at
from scar.report.selection import Cells
from scar.report.statistics import CONFIDENCE, compare
from scar.report.style import method_name, task_name
from scar.report.tables import curve_of
from scar.report.writing import NOISE, count_of, csv_text, markdown_table, show_difference, show_noise

DEFINITIONS = f"""\
Differences are taken seed by seed. Brackets: Student's {CONFIDENCE:.0%} interval of the mean difference over seeds, none where \
all seeds differ alike. Noise: {NOISE}. P: probability of improvement, that a random run \
of the first method beats a random run of the second, ties half. Area: mean over updates of the training batch's mean raw \
reward. Reach: median update, and device seconds, at which the first method's training reward (trailing mean of \
{SMOOTHING}) is at least the mean over the last {SMOOTHING} updates of the same seed's run of the second; and how many \
seeds got there."""


@dataclass(frozen=True)
class Reach:
    """When runs get to where others end: median `updates` and device `seconds` of the `reached` among `n` seeds."""

    n: int
    reached: int
    updates: float | None
    seconds: float | None


def reach(cells: Cells, task: str, method: str, target: str) -> Reach:
    """How long runs of `method` take to the training reward at which the same seed's run of `target` ends."""
    seeds = sorted(cells.of(task, method).keys() & cells.of(task, target).keys())
    arrivals = []
    for seed in seeds:
        own, other = (curve_of(cells, task, name, seed) for name in (method, target))
        update = first_update_at(own["reward"], other["smooth_reward"].iloc[-1])
        if update is not None:
            arrivals.append((update, own["device_seconds"].iloc[update - 1]))
    if not arrivals:
        return Reach(len(seeds), 0, None, None)
    updates, seconds = np.median(arrivals, axis=0).tolist()
    return Reach(len(seeds), len(arrivals), updates, seconds)


def comparison_rows(cells: Cells) -> list[dict[str, Any]]:
    """SCAR against every other method, and every other against sparse: one row per task and pair that share a seed."""
    pairs = [("scar", other) for other in cells.methods if other != "scar"]
    pairs += [(method, "sparse") for method in cells.methods if method not in ("scar", "sparse")]
    return [
        {"task": task, "one": method, "other": other} | _row(cells, task, method, other)
        for task in cells.tasks
        for method, other in pairs
        if cells.of(task, method).keys() & cells.of(task, other).keys()
    ]


def _row(cells: Cells, task: str, method: str, other: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in ("final_reward", "curve_area", "final_kl"):
        result = compare(cells.numbers(task, method, name), cells.numbers(task, other, name))
        low, high = result.interval or (None, None)
        row |= {"n": result.n, f"{name}_one_mean": result.one[0], f"{name}_one_std": result.one[1]}
        row |= {f"{name}_other_mean": result.other[0], f"{name}_other_std": result.other[1]}
        row |= {f"{name}_difference": result.difference, f"{name}_low": low, f"{name}_high": high}
        row |= {f"{name}_p": result.p}
        row |= {f"{name}_above": result.above, f"{name}_improvement": result.improvement}
    row["evaluation_noise"] = cells.noise(task, method, other)
    arrival = reach(cells, task, method, other)
    return row | {"reached": arrival.reached, "reach_updates": arrival.updates, "reach_seconds": arrival.seconds}


def comparisons_csv(cells: Cells) -> str:
    """`comparison_rows` as CSV, unrounded."""
    return csv_text(comparison_rows(cells))


def comparisons_markdown(cells: Cells) -> str:
    """`comparison_rows` as a markdown table, rounded, with what its columns mean."""
    header = ["task", "comparison", "n", "final reward", "noise", "seeds above", "P", "area", "final KL", "reach"]
    lines = []
    for row in comparison_rows(cells):
        line = [task_name(row["task"]), f"{method_name(row['one'])} - {method_name(row['other'])}"]
        line += [count_of(row["n"], len(cells.seeds)), _difference(row, "final_reward")]
        line.append(show_noise(row["evaluation_noise"]))
        line += [f"{row['final_reward_above']} of {row['n']}", f"{row['final_reward_improvement']:.2f}"]
        line += [_difference(row, "curve_area"), _difference(row, "final_kl", digits=1)]
        lines.append([*line, _reached(row)])
    return f"{markdown_table(header, lines)}\n\n{DEFINITIONS}\n"


def _difference(row: dict[str, Any], name: str, *, digits: int = 2) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return show_difference(row[f"{name}_difference"], None if low is None else (low, high), digits=digits)


def _reached(row: dict[str, Any]) -> str:
    if not row["reached"]:
        return f"0 of {row['n']}"
    return f"update {row['reach_updates']:.0f}, {row['reach_seconds']:.0f} s ({row['reached']} of {row['n']})"
