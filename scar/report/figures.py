"""Figure 2: the training reward of each method, update by update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scar.report.selection import Cells, device_names, select_cells
from scar.report.style import (
    NOT_IN_PAPER_DASHES,
    fonts,
    legend_below,
    method_colour,
    new_figure,
    set_caption,
    style_axes,
)
from scar.report.summary import run_numbers, trailing_mean
from scar.report.tables import TASK_NAMES, comparability, method_name
from scar.tracking.records import RunRecord

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
