"""Figures 3 to 5: training reward against the distance from the SFT policy, device time and updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scar.report.figures import SMOOTHING, learning_curve
from scar.report.selection import device_kind
from scar.report.style import fonts, legend_below, new_figure, set_caption, style_axes
from scar.report.summary import column, run_numbers, trailing_mean
from scar.report.tables import TASK_NAMES
from scar.report.variants import Variant, Variants
from scar.tracking.records import RunRecord

HEIGHT = 3.3


@dataclass(frozen=True)
class Curve:
    """One variant over the updates: mean over seeds of x f64[U] and of the reward f64[U], and the reward's sample std."""

    x: np.ndarray
    reward: np.ndarray
    std: np.ndarray | None


def curve(runs: Mapping[int, RunRecord], x_of: Callable[[RunRecord], np.ndarray]) -> Curve:
    """Mean raw reward of the training batch against `x_of`, update by update (see `learning_curve`)."""
    _, mean, std = learning_curve(runs.values())
    return Curve(np.mean([x_of(record) for record in runs.values()], axis=0), mean, std)


def updates(record: RunRecord) -> np.ndarray:
    """f64[U]: 1, 2, ... U."""
    return column(record, "update")


def sqrt_kl(record: RunRecord) -> np.ndarray:
    """f64[U]: sqrt(max(KL, 0)) of each batch, smoothed like the reward. Batches with an estimate below 0 count as 0; the code
    that the paper builds on drops such runs (paper note 36)."""
    return np.sqrt(np.maximum(trailing_mean(column(record, "kl/seq_sum_mean"), SMOOTHING), 0.0))


def device_hours(record: RunRecord) -> np.ndarray:
    """f64[U]: device time so far, training only."""
    return column(record, "device_seconds") / 3600


def curve_numbers(found: Variants, x_of: Callable[[RunRecord], np.ndarray]) -> list[dict[str, Any]]:
    """The numbers behind a figure: x, mean and std of each variant's line."""
    rows = []
    for variant, runs in found.runs.items():
        if runs:
            line = curve(runs, x_of)
            std = None if line.std is None else line.std.tolist()
            row = {"variant": variant.name, "n": len(runs), "x": line.x.tolist()}
            rows.append(row | {"mean": line.reward.tolist(), "std": std})
    return rows


def figure3(found: Variants) -> Figure:
    """Figure 3: reward against sqrt(KL) to the SFT policy, a point an update, joined in the order of the updates. The large
    marks are the trained policies on test prompts."""
    with fonts():
        figure = _figure(found, sqrt_kl, "sqrt of KL to the SFT policy, sqrt(nats a response)", points=True)
        axes = figure.axes[0]
        axes.margins(x=0.03)
        for variant, runs in found.runs.items():
            if runs:
                ends = [run_numbers(record) for record in runs.values()]
                x = np.mean([np.sqrt(max(end.final_kl, 0.0)) for end in ends])
                y = np.mean([end.final_reward for end in ends])
                axes.plot(x, y, "D", color=variant.line["color"], markeredgecolor="white", markersize=5.5, zorder=3)
        _caption(figure, found, "Reward and KL", "a point an update; diamonds: the trained policy on test prompts")
        return figure


def figure4(found: Variants) -> Figure:
    """Figure 4: reward against the device time that training has taken, evaluation and saving excluded."""
    with fonts():
        kind = device_kind(found.records[0])
        longest = max(device_hours(record)[-1] for record in found.records)
        factor, unit = (60, "minutes") if longest < 1 else (1, "hours")

        def time_of(record: RunRecord) -> np.ndarray:
            return factor * device_hours(record)

        figure = _figure(found, time_of, f"device time, {kind}-{unit}")
        what = "CPU time of the process" if kind == "CPU" else "wall time x devices"
        _caption(figure, found, "Reward and device time", f"device time: {what}, training only")
        return figure


def figure5(found: Variants) -> Figure:
    """Figure 5: token units beside span units (and sentences, where they ran), update by update."""
    with fonts():
        figure = _figure(found, updates, "update")
        figure.axes[0].xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))
        _caption(figure, found, "Kinds of units", "")
        return figure


def _figure(found: Variants, x_of: Callable[[RunRecord], np.ndarray], x_label: str, *, points: bool = False) -> Figure:
    figure = new_figure(HEIGHT)
    axes = figure.subplots()
    handles: list[Any] = []
    names: list[str] = []
    for variant, runs in found.runs.items():
        if not runs:
            continue
        line = curve(runs, x_of)
        look: dict[str, Any] = variant.line | ({"marker": ".", "markersize": 3} if points else {})
        handles += axes.plot(line.x, line.reward, **look)
        names.append(f"{variant.name}, {found.count(variant)}")
        if line.std is not None and not points:
            low, high = line.reward - line.std, line.reward + line.std
            axes.fill_between(line.x, low, high, color=variant.line["color"], alpha=0.12, linewidth=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(f"mean raw reward of the batch\n(trailing mean of up to {SMOOTHING} updates)")
    style_axes(axes)
    legend_below(figure, handles, names, columns=2 if len(names) == 4 else 3)
    return figure


def _caption(figure: Figure, found: Variants, title: str, extra: str) -> None:
    task = TASK_NAMES.get(found.task, found.task)
    spread = " ± 1 std" if len(figure.axes[0].collections) else ""
    missing = f"no run of {', '.join(found.missing)}" if found.missing else ""
    details = "; ".join(part for part in (extra, missing) if part)
    set_caption(figure, [f"{title}, {task}: mean over seeds{spread}; {found.caption()}", details])


FIGURE3 = tuple(Variant(method) for method in ("sparse", "uniform", "abc", "scar", "prefix"))
FIGURE4 = (Variant("sparse"), Variant("abc"), Variant("scar", "span"), Variant("scar", "token"))
FIGURE5 = (Variant("scar", "span"), Variant("scar", "token"))
FIGURES: dict[str, tuple[str, Sequence[Variant], Callable[[Variants], Figure], Callable[[RunRecord], np.ndarray]]] = {
    "figure3": ("imdb", FIGURE3, figure3, sqrt_kl),
    "figure4": ("tldr", FIGURE4, figure4, device_hours),
    "figure5": ("tldr", FIGURE5, figure5, updates),
}
"""The paper's figures of training curves: task, variants, how they are drawn, and their x axis."""
