"""Reward against KL: where each setting of a sweep ends, so that methods can be compared at equal distance from the SFT
policy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scar.report.style import COLOURS, fonts, legend_below, new_figure, set_caption, style_axes
from scar.report.sweeps import sweep_rows
from scar.report.tables import TASK_NAMES, comparability
from scar.tracking.records import RunRecord

LENGTH = "generation.max_new_tokens"
_VARIANT_COLOURS = ("#D55E00", "#56B4E9", "#009E73", "#F0E442")
_MARKERS = {"sparse": "o", "uniform": "v", "abc": "^", "prefix": "D"}


def frontier_figure(records: Sequence[RunRecord]) -> Figure:
    """Final test reward against the KL to the SFT policy, both means over seeds with +-1 sample std (ddof 1).

    A panel a task and response length, a line a method and kind of credit, through the settings in the order of their
    KL. Raises what `sweep_rows` raises.
    """
    rows = sweep_rows(records)
    panels: dict[tuple[str, Any], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        panels[row["task"], row.get(LENGTH)].append(row)
    variants = sorted({_variant(row) for row in rows}, key=str)
    with fonts():
        return _figure(panels, variants, records[0].manifest["scale"], sorted({row["n"] for row in rows}))


def _figure(
    panels: dict[tuple[str, Any], list[dict[str, Any]]],
    variants: list[tuple[str, ...]],
    scale: str,
    seeds: list[int],
) -> Figure:
    figure = new_figure(3.3)
    for axes, (where, found) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], sorted(panels.items(), key=str), strict=True
    ):
        _draw(axes, found, variants)
        task, length = where
        axes.set_title(TASK_NAMES.get(task, task) + (f", {length} tokens" if length else ""))
    figure.axes[0].set_ylabel("mean raw reward, test prompts")
    note = "" if scale == "paper" else f" ({comparability(scale)})"
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    set_caption(figure, [f"Final test reward and KL, scale {scale}{note}; {count} seeds a point, ± 1 std"])
    handles = {str(line.get_label()): line for axes in figure.axes for line in axes.get_lines()}
    legend_below(figure, list(handles.values()), list(handles), columns=4)
    return figure


def _variant(row: dict[str, Any]) -> tuple[str, ...]:
    """The method, and for SCAR its units and estimator where these vary."""
    return (row["method"], *(str(row[key]) for key in ("segmentation", "estimator") if row.get(key)))


def variant_name(row: dict[str, Any]) -> str:
    """The kind of credit of a row of a sweep: its method, and for SCAR its units and estimator where these vary."""
    return _name(_variant(row))


def _name(variant: tuple[str, ...]) -> str:
    method, *rest = variant
    return method if not rest else f"{method}: {', '.join(part.split('(')[0] for part in rest)}"


def _draw(axes: Axes, rows: list[dict[str, Any]], variants: list[tuple[str, ...]]) -> None:
    of_scar = [variant for variant in variants if variant[0] == "scar"]
    for variant in variants:
        found = sorted((row for row in rows if _variant(row) == variant), key=lambda row: row["final_kl_mean"])
        if not found:
            continue
        scar = variant in of_scar
        colour = _VARIANT_COLOURS[of_scar.index(variant) % 4] if scar else COLOURS.get(variant[0], "black")
        container = axes.errorbar(
            [row["final_kl_mean"] for row in found],
            [row["final_reward_mean"] for row in found],
            xerr=[row["final_kl_std"] or 0.0 for row in found],
            yerr=[row["final_reward_std"] or 0.0 for row in found],
            color=colour,
            marker="s" if scar else _MARKERS.get(variant[0], "x"),
            markersize=3.5,
            linewidth=1.1,
            elinewidth=0.6,
        )
        container.lines[0].set_label(_name(variant))
    axes.set_xlabel("KL to the SFT policy, nats a response")
    style_axes(axes)
