"""Figures 2 to 5: training reward by update, against KL, against device time; tokens beside spans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scar.report.numbers import column, run_numbers, trailing_mean
from scar.report.selection import Cells, check_fairness, device_kind, device_names, narrow, select_cells
from scar.report.style import (
    NOT_IN_PAPER_DASHES,
    UNIT_DASHES,
    fonts,
    legend_below,
    method_colour,
    new_figure,
    set_caption,
    style_axes,
)
from scar.report.tables import TASK_NAMES, comparability, method_name
from scar.tracking.records import RunRecord

# Kinds of credit that a figure compares: a method, and for SCAR its units; their runs, and what they may be compared in.


@dataclass(frozen=True)
class Variant:
    """A method, and for SCAR its units ("token", "span" or "sentence")."""

    method: str
    units: str | None = None

    @property
    def name(self) -> str:
        """As shown: "SCAR, span units"."""
        return method_name(self.method) + (f", {self.units} units" if self.units else "")

    @property
    def line(self) -> dict[str, Any]:
        """Colour, dashes and width of its line."""
        dashes = UNIT_DASHES[self.units] if self.units else "-"
        if method_name(self.method).endswith("(not in the paper)"):
            dashes = (0, NOT_IN_PAPER_DASHES)
        width = 1.5 if self.method == "scar" else 1.1
        return {"color": method_colour(self.method, ()), "linestyle": dashes, "linewidth": width, "label": self.name}


@dataclass(frozen=True)
class Variants:
    """The runs of one task by variant and seed, `seeds` as asked for, `missing` variants that have no run at all."""

    task: str
    seeds: list[int]
    runs: dict[Variant, dict[int, RunRecord]]

    @property
    def missing(self) -> list[str]:
        """Names of the variants without any run."""
        return [variant.name for variant, runs in self.runs.items() if not runs]

    @property
    def records(self) -> list[RunRecord]:
        """All runs."""
        return [record for runs in self.runs.values() for record in runs.values()]

    def count(self, variant: Variant) -> str:
        """How many seeds a variant has: "n=5", "n=3/5"."""
        have = len(self.runs[variant])
        return f"n={have}" if have == len(self.seeds) else f"n={have}/{len(self.seeds)}"

    def caption(self) -> str:
        """Scale, seeds and devices, and what the numbers may be compared with."""
        scale = self.records[0].manifest["scale"]
        note = "" if scale == "paper" else f"; {comparability(scale)}"
        seeds = ", ".join(map(str, self.seeds))
        return f"scale {scale}, seed{'s' if len(self.seeds) > 1 else ''} {seeds}, {device_names(self.records)}{note}"


def select_variants(
    records: Iterable[RunRecord], task: str, variants: Sequence[Variant], *, seeds: Sequence[int]
) -> Variants:
    """The runs of each variant on `task`.

    Raises ValueError where none has a run, where runs of one variant differ in more than the seed, or where the variants
    do not share what a comparison rests on (`check_fairness`).
    """
    records = [record for record in records if record.matches(task=task, seed=list(seeds))]
    found: dict[Variant, dict[int, RunRecord]] = {}
    for variant in variants:
        own = narrow([r for r in records if r.matches(method=variant.method)], segmentation=variant.units)
        runs = select_cells(own, methods=[variant.method]).runs if own else {}
        found[variant] = runs.get((task, variant.method), {})
    chosen = Variants(task, sorted(seeds), found)
    if not chosen.records:
        raise ValueError(f"no run of task {task} with seed {', '.join(map(str, seeds))} among the records")
    if len(scales := {record.manifest["scale"] for record in chosen.records}) > 1:
        raise ValueError(f"records of several scales ({', '.join(sorted(scales))}) do not share a figure; choose one")
    check_fairness(chosen.records)
    return chosen


SMOOTHING = 5
"""Updates in the trailing mean of Figure 2: the window behind Table 1's "updates to sparse's end" (ours)."""


def learning_curve(
    records: Iterable[RunRecord], *, smoothing: int = SMOOTHING
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Mean raw reward of the training batch over seeds of one method, for each update.

    Args:
        records: the runs of one task and method, one a seed.
        smoothing: updates in the trailing mean of each run's curve, taken before the statistics (1: none).

    Returns:
        i64[U] update (1-based), f64[U] mean and f64[U] sample std (ddof 1) over seeds; None for the std of one seed.
    """
    records = list(records)
    curves = [run_numbers(record).curve for record in records]
    if len(lengths := {len(curve) for curve in curves}) != 1:
        raise ValueError(f"runs of {sorted(lengths)} updates have no common curve: {[str(r.path) for r in records]}")
    smooth = np.stack([trailing_mean(curve, smoothing) for curve in curves])
    std = smooth.std(axis=0, ddof=1) if len(curves) > 1 else None
    return np.arange(1, smooth.shape[1] + 1), smooth.mean(axis=0), std


def _draw_panel(axes: Axes, cells: Cells, task: str, smoothing: int) -> None:
    for method in cells.methods:
        runs = cells.runs[task, method]
        if not runs:
            continue
        updates, mean, std = learning_curve(runs.values(), smoothing=smoothing)
        colour, width = method_colour(method, cells.methods), 1.5 if method == "scar" else 1.1
        (line,) = axes.plot(updates, mean, color=colour, linewidth=width, label=method)
        if method_name(method).endswith("(not in the paper)"):
            line.set_dashes(NOT_IN_PAPER_DASHES)
        if std is not None:
            axes.fill_between(updates, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
    starts = [run_numbers(r).initial_reward for m in cells.methods for r in cells.runs[task, m].values()]
    if starts:
        axes.axhline(float(np.mean(starts)), color="black", linewidth=0.8, linestyle=":", label="sft")
    axes.set_title(TASK_NAMES.get(task, task) + ("" if starts else ": no finished run"))
    axes.set_xlabel("update")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    style_axes(axes)


def _legend_name(label: str, cells: Cells) -> str:
    if label == "sft":
        return "SFT policy, test prompts"
    counts = [len(cells.runs[task, label]) for task in cells.tasks]
    shown = [f"{n}" if n == len(cells.seeds) else f"{n}/{len(cells.seeds)}" for n in counts]
    return f"{method_name(label)}, n={shown[0] if len(set(shown)) == 1 else ', '.join(shown)}"


def figure2(
    records: Iterable[RunRecord],
    *,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    smoothing: int = SMOOTHING,
) -> Figure:
    """Figure 2: mean raw reward of the training batch against the update, a panel a task, a line a method.

    Lines are means over seeds, bands are +-1 sample std (ddof 1); one seed has no band. The dotted line is the SFT
    policy's mean raw reward on test prompts. The legend shows `n=3/5` where seeds are missing.
    """
    cells = select_cells(records, tasks=tasks, methods=methods, seeds=seeds)
    with fonts():
        return _draw(cells, smoothing)


def _draw(cells: Cells, smoothing: int) -> Figure:
    figure = new_figure(3.3 if len(cells.tasks) < 3 else 2.7)
    panels = figure.subplots(1, len(cells.tasks), squeeze=False)[0]
    for axes, task in zip(panels, cells.tasks, strict=True):
        _draw_panel(axes, cells, task, smoothing)
    average = f"\n(trailing mean of up to {smoothing} updates)" if smoothing > 1 else ""
    panels[0].set_ylabel(f"mean raw reward of the batch{average}")
    scale = cells.records[0].manifest["scale"]
    note = "" if scale == "paper" else f"; {comparability(scale)}"
    seeds = ", ".join(map(str, cells.seeds))
    what = (
        f"Training reward, scale {scale}, seeds {seeds}: mean over seeds ± 1 std; {device_names(cells.records)}{note}"
    )
    set_caption(figure, [what])
    handles = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    order = [label for label in (*cells.methods, "sft") if label in handles]
    legend_below(figure, [handles[label] for label in order], [_legend_name(label, cells) for label in order])
    return figure


def figure2_curves(
    records: Iterable[RunRecord],
    *,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    smoothing: int = SMOOTHING,
) -> dict[str, Any]:
    """The numbers behind Figure 2: `smoothing_updates`, and `mean` and `std` (raw reward) by update of each line."""
    cells = select_cells(records, tasks=tasks, methods=methods, seeds=seeds)
    curves = []
    for (task, method), runs in cells.runs.items():
        if runs:
            _, mean, std = learning_curve(runs.values(), smoothing=smoothing)
            curve = {"mean": mean.tolist(), "std": None if std is None else std.tolist()}
            curves.append({"task": task, "method": method, "n": len(runs)} | curve)
    return {"smoothing_updates": smoothing, "curves": curves}


# Figures 3 to 5: training reward against the distance from the SFT policy, device time and updates.


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
