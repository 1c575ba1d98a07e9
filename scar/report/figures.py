"""Figures 2 to 5: training reward by update, against KL, against device time; tokens beside spans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scar.report.frames import SMOOTHING, curves_frame, device_kind, device_names, runs_frame
from scar.report.selection import Cells, check_fairness, check_scale, narrow, select_cells
from scar.report.style import (
    PAPER_METHODS,
    UNIT_DASHES,
    comparability,
    fonts,
    in_order,
    legend_below,
    look_of,
    method_name,
    new_figure,
    set_caption,
    style_axes,
    task_name,
)
from scar.report.writing import count_of
from scar.tracking.records import RunRecord


@dataclass(frozen=True)
class Line:
    """Mean over seeds of x f64[U] and of the reward f64[U], and the reward's sample std (ddof 1; None for one seed)."""

    x: np.ndarray
    reward: np.ndarray
    std: np.ndarray | None


def line_of(curves: pd.DataFrame, x: str = "update") -> Line:
    """Trailing mean of the batch's raw reward against the column `x` of `curves_frame`, update by update over seeds.

    Raises ValueError for runs of different length: they have no common line.
    """
    groups = curves.groupby("update")
    if groups.size().nunique() != 1:
        lengths = sorted(curves.groupby("seed").size().unique().tolist())
        raise ValueError(f"runs of {lengths} updates have no common curve")
    mean, std = (getattr(groups["smooth_reward"], name)().to_numpy() for name in ("mean", "std"))
    at = np.arange(1.0, len(mean) + 1) if x == "update" else groups[x].mean().to_numpy()
    return Line(at, mean, None if np.isnan(std).any() else std)


def draw_line(axes: Axes, line: Line, *, name: str, method: str, band: float = 0.15, **look: Any) -> Any:
    """One line of a method in its look, with a band of +-1 std unless there is one seed or `band` is 0; returns the line."""
    style = {"color": look_of(method).colour, "linestyle": look_of(method).dashes} | look
    (handle,) = axes.plot(line.x, line.reward, linewidth=1.5 if method == "scar" else 1.1, label=name, **style)
    if line.std is not None and band:
        low, high = line.reward - line.std, line.reward + line.std
        axes.fill_between(line.x, low, high, color=style["color"], alpha=band, linewidth=0)
    return handle


def whole_updates(axes: Axes, *, bins: int) -> None:
    """Ticks at whole updates."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=bins, steps=[1, 2, 5, 10], integer=True))


def figure2(cells: Cells, *, smoothing: int = SMOOTHING) -> Figure:
    """Figure 2: mean raw reward of the training batch against the update, a panel per task, a line per method.

    Lines are means over seeds, bands are +-1 sample std (ddof 1); one seed has no band. The dotted line is the SFT
    policy's mean raw reward on test prompts. The legend shows `n=3/5` where seeds are missing.
    """
    with fonts():
        figure = new_figure(3.3 if len(cells.tasks) < 3 else 2.7)
        panels = figure.subplots(1, len(cells.tasks), squeeze=False)[0]
        curves = curves_frame(cells.records, smoothing=smoothing)
        for axes, task in zip(panels, cells.tasks, strict=True):
            _draw_panel(axes, cells, curves[curves["task"] == task], task)
        average = f"\n(trailing mean of up to {smoothing} updates)" if smoothing > 1 else ""
        panels[0].set_ylabel(f"mean raw reward of the batch{average}")
        scale = cells.records[0].manifest["scale"]
        note = "" if scale == "paper" else f"; {comparability(scale)}"
        seeds = ", ".join(map(str, cells.seeds))
        devices = device_names(cells.records)
        set_caption(
            figure, [f"Training reward, scale {scale}, seeds {seeds}: mean over seeds ± 1 std; {devices}{note}"]
        )
        handles = {line.get_label(): line for axes in panels for line in axes.get_lines()}
        order = [label for label in (*cells.methods, "sft") if label in handles]
        legend_below(figure, [handles[label] for label in order], [_legend_name(label, cells) for label in order])
        return figure


def _draw_panel(axes: Axes, cells: Cells, curves: pd.DataFrame, task: str) -> None:
    for method in cells.methods:
        own = curves[curves["method"] == method]
        if len(own):
            draw_line(axes, line_of(own), name=method, method=method)
    starts = cells.runs.loc[cells.runs["task"] == task, "initial_reward"]
    if len(starts):
        axes.axhline(starts.mean(), color="black", linewidth=0.8, linestyle=":", label="sft")
    axes.set_title(task_name(task) + ("" if len(starts) else ": no finished run"))
    axes.set_xlabel("update")
    whole_updates(axes, bins=5)
    style_axes(axes)


def _legend_name(label: str, cells: Cells) -> str:
    if label == "sft":
        return "SFT policy, test prompts"
    shown = [count_of(len(cells.of(task, label)), len(cells.seeds)) for task in cells.tasks]
    return f"{method_name(label)}, n={shown[0] if len(set(shown)) == 1 else ', '.join(shown)}"


def figure2_curves(cells: Cells, *, smoothing: int = SMOOTHING) -> dict[str, Any]:
    """The numbers behind Figure 2: `smoothing_updates`, and `mean` and `std` (raw reward) by update of each line."""
    curves = []
    frame = curves_frame(cells.records, smoothing=smoothing)
    for (task, method), own in frame.groupby(["task", "method"], sort=False):
        numbers = _numbers(line_of(own))
        curves.append({"task": task, "method": method, "n": own["seed"].nunique()} | numbers)
    return {"smoothing_updates": smoothing, "curves": curves}


def _numbers(line: Line) -> dict[str, Any]:
    return {"mean": line.reward.tolist(), "std": None if line.std is None else line.std.tolist()}


# Figures 3 to 5: training reward against the distance from the SFT policy, device time and updates, for kinds of credit.


HEIGHT = 3.3


@dataclass(frozen=True)
class Variant:
    """A kind of credit that a figure compares: a method, and for SCAR its units ("token", "span" or "sentence")."""

    method: str
    units: str | None = None

    @property
    def name(self) -> str:
        """As shown: "SCAR, span units"."""
        return method_name(self.method) + (f", {self.units} units" if self.units else "")


@dataclass(frozen=True)
class Variants:
    """The runs of one task by variant and seed, `seeds` as asked for, `missing` variants that have no run at all."""

    task: str
    seeds: list[int]
    runs: dict[Variant, dict[int, RunRecord]]
    left_out: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """Names of the variants without any run."""
        return [variant.name for variant, runs in self.runs.items() if not runs]

    @property
    def records(self) -> list[RunRecord]:
        """All runs."""
        return [record for runs in self.runs.values() for record in runs.values()]

    @cached_property
    def curves(self) -> dict[Variant, pd.DataFrame]:
        """`curves_frame` of each variant that has runs."""
        return {variant: curves_frame(runs.values()) for variant, runs in self.runs.items() if runs}

    def numbers(self, variant: Variant, name: str) -> dict[int, float]:
        """One column of `runs_frame` for every seed of a variant."""
        runs = self.runs.get(variant, {})
        return dict(zip(runs, runs_frame(runs.values())[name], strict=True)) if runs else {}

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
    own, left_out = {}, []
    for variant in variants:
        runs = narrow([r for r in records if r.matches(method=variant.method)], segmentation=variant.units)
        # Runs of other units are a setting apart, made by an experiment of their own.
        experiment = "units" if variant.units == "token" else "table1"
        cells = select_cells(runs, methods=[variant.method], experiment=experiment) if runs else None
        own[variant] = cells.of(task, variant.method) if cells else {}
        left_out += cells.left_out if cells else []
    chosen = Variants(task, sorted(seeds), own, left_out)
    if not chosen.records:
        raise ValueError(f"no run of task {task} with seed {', '.join(map(str, seeds))} among the records")
    check_scale(chosen.records)
    check_fairness(chosen.records)
    return chosen


def line_numbers(chosen: Variants, x: str) -> list[dict[str, Any]]:
    """The numbers behind a figure: x, mean and std of each variant's line."""
    lines = {variant: line_of(curves, x) for variant, curves in chosen.curves.items()}
    return [
        {"variant": variant.name, "n": len(chosen.runs[variant]), "x": line.x.tolist()} | _numbers(line)
        for variant, line in lines.items()
    ]


def figure3(chosen: Variants) -> Figure:
    """Figure 3: reward against sqrt(KL) to the SFT policy, a point per update, joined in the order of the updates. The large
    marks are the trained policies on test prompts."""
    with fonts():
        figure = _figure(chosen, "sqrt_kl", "sqrt of KL to the SFT policy, sqrt(nats per response)", points=True)
        axes = figure.axes[0]
        axes.margins(x=0.03)
        for variant in chosen.curves:
            kl = np.array(list(chosen.numbers(variant, "final_kl").values()))
            reward = np.array(list(chosen.numbers(variant, "final_reward").values()))
            colour = look_of(variant.method).colour
            mark: dict[str, Any] = {"color": colour, "markeredgecolor": "white", "markersize": 5.5, "zorder": 3}
            axes.plot(np.sqrt(np.maximum(kl, 0.0)).mean(), reward.mean(), "D", **mark)
        _caption(figure, chosen, "Reward and KL", "a point per update; diamonds: the trained policy on test prompts")
        return figure


def figure4(chosen: Variants) -> Figure:
    """Figure 4: reward against the device time that training has taken, evaluation and saving excluded."""
    with fonts():
        longest = max(curves["device_hours"].max() for curves in chosen.curves.values())
        factor, unit = (60, "minutes") if longest < 1 else (1, "hours")
        kind = device_kind(chosen.records[0])
        figure = _figure(chosen, "device_hours", f"device time, {kind}-{unit}", factor=factor)
        what = "CPU time of the process" if kind == "CPU" else "wall time x devices"
        _caption(figure, chosen, "Reward and device time", f"device time: {what}, training only")
        return figure


def figure5(chosen: Variants) -> Figure:
    """Figure 5: token units beside span units (and sentences, where they ran), update by update."""
    with fonts():
        figure = _figure(chosen, "update", "update")
        whole_updates(figure.axes[0], bins=8)
        _caption(figure, chosen, "Kinds of units", "")
        return figure


def _figure(chosen: Variants, x: str, x_label: str, *, points: bool = False, factor: float = 1) -> Figure:
    figure = new_figure(HEIGHT)
    axes = figure.subplots()
    handles, names = [], []
    for variant, curves in chosen.curves.items():
        line = line_of(curves, x)
        look: dict[str, Any] = {"linestyle": UNIT_DASHES[variant.units]} if variant.units else {}
        look |= {"marker": ".", "markersize": 3} if points else {}
        line = Line(factor * line.x, line.reward, line.std)
        band = 0.0 if points else 0.12
        handles.append(draw_line(axes, line, name=variant.name, method=variant.method, band=band, **look))
        names.append(f"{variant.name}, n={count_of(len(chosen.runs[variant]), len(chosen.seeds))}")
    axes.set_xlabel(x_label)
    axes.set_ylabel(f"mean raw reward of the batch\n(trailing mean of up to {SMOOTHING} updates)")
    style_axes(axes)
    legend_below(figure, handles, names, columns=2 if len(names) == 4 else 3)
    return figure


def _caption(figure: Figure, chosen: Variants, title: str, extra: str) -> None:
    spread = " ± 1 std" if len(figure.axes[0].collections) else ""
    missing = f"no run of {', '.join(chosen.missing)}" if chosen.missing else ""
    details = "; ".join(detail for detail in (extra, missing) if detail)
    set_caption(figure, [f"{title}, {task_name(chosen.task)}: mean over seeds{spread}; {chosen.caption()}", details])


@dataclass(frozen=True)
class CurveFigure:
    """One of the paper's figures of training curves: its task, the paper's variants, how it is drawn, its x axis (a column of
    `curves_frame`), and whether methods that the paper does not have are drawn too."""

    task: str
    variants: tuple[Variant, ...]
    draw: Callable[[Variants], Figure]
    x: str
    of_methods: bool = True

    def variants_in(self, records: Iterable[RunRecord]) -> list[Variant]:
        """The paper's variants, and each other method in the records."""
        others = {record.manifest["method"] for record in records} - set(PAPER_METHODS)
        return [*self.variants, *(Variant(method) for method in in_order(others) if self.of_methods)]


FIGURES = {
    "figure3": CurveFigure("imdb", tuple(map(Variant, PAPER_METHODS)), figure3, "sqrt_kl"),
    "figure4": CurveFigure(
        "tldr",
        (Variant("sparse"), Variant("abc"), Variant("scar", "span"), Variant("scar", "token")),
        figure4,
        "device_hours",
    ),
    "figure5": CurveFigure("tldr", (Variant("scar", "span"), Variant("scar", "token")), figure5, "update", False),
}
"""The paper's figures of training curves."""
