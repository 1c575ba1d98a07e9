"""Tables of sweeps: runs that differ in settings, one row per setting, seeds averaged; pairs within a sweep; reward and KL.

Which settings a row names is read off the records: those in which runs of one task and method differ, the seed aside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scar.report.frames import runs_frame
from scar.report.selection import check_scale, settings
from scar.report.statistics import CONFIDENCE, student
from scar.report.style import (
    OTHER_COLOURS,
    comparability,
    fonts,
    legend_below,
    look_of,
    new_figure,
    set_caption,
    style_axes,
    task_name,
)
from scar.report.tables import statistics
from scar.report.writing import csv_text, markdown_table, show_difference, show_mean
from scar.tracking.records import RunRecord

LENGTH = "generation.max_new_tokens"
BASE = "red"
PAIRED_NUMBERS = ("final_reward", "curve_area", "final_kl", "distinct_bigrams")


def varied(records: Iterable[RunRecord]) -> list[str]:
    """The settings, by their flat names, in which some runs of one task and method differ."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record.manifest["task"], record.manifest["method"]].append(settings(record))
    keys: list[str] = []
    for group in groups.values():
        for key in sorted({key for values in group for key in values}):
            # The name of the units is said by `segmentation`.
            if key != "units.name" and len({str(values.get(key)) for values in group}) > 1 and key not in keys:
                keys.append(key)
    return keys


def sweep_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """`runs_frame` with a column for each setting that varies; `sparse_pair` and `base_pair` (text) tell which runs of sparse
    and of `BASE` a run is paired with: same task, seed and values of all settings that vary among those runs."""
    if not records:
        raise ValueError("no records to make a table of; check records=")
    check_scale(records)
    runs = runs_frame(records)
    values = [settings(record) for record in records]
    for key in varied(records):
        runs[key] = pd.Series([row.get(key) for row in values], dtype=object, index=runs.index)
    for column, method in (("sparse_pair", "sparse"), ("base_pair", BASE)):
        keys = varied(record for record in records if record.manifest["method"] == method)
        runs[column] = [
            str((run.task, run.seed, *(row.get(key) for key in keys)))
            for run, row in zip(runs.itertuples(), values, strict=True)
        ]
    return runs


def sweep_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One row per task, method and setting: the varied settings, `n`, mean and sample std (ddof 1) of the numbers of Table 1
    over seeds, `credit_share_mean`, and on how many seeds (`above_sparse` of `pairs`) the final reward is above that of the
    sparse run with the same seed and the same values of all settings that vary among sparse runs.

    Raises ValueError for no records, records of several scales, or two runs of one row and seed.
    """
    runs, keys = sweep_frame(records), ["task", "method", *varied(records)]
    for _, twins in runs.groupby([*keys, "seed"], sort=False, dropna=False)["record"]:
        if len(twins) > 1:
            paths = " / ".join(str(record.path) for record in twins)
            raise ValueError(f"two records of one setting and seed: {paths}; delete one of them")
    base = runs[runs["method"] == "sparse"].set_index("sparse_pair")["final_reward"]
    above = runs["final_reward"] - runs["sparse_pair"].map(base)  # nan without a partner
    runs = runs.assign(pairs=above.notna(), above_sparse=above > 0)
    groups = runs.groupby(keys, sort=False, dropna=False)
    rows = pd.concat([statistics(runs, keys), groups[["pairs", "above_sparse"]].sum()], axis=1).reset_index()
    rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return sorted(rows, key=lambda row: str([row[key] for key in keys]))


def sweep_csv(records: Sequence[RunRecord]) -> str:
    """`sweep_rows` as CSV, unrounded."""
    return csv_text(sweep_rows(records))


def sweep_markdown(records: Sequence[RunRecord]) -> str:
    """`sweep_rows` as a markdown table, rounded; the settings that vary are its columns after the method."""
    keys = varied(records)
    header = ["task", "method", *(key.removeprefix("generation.") for key in keys), "n", "final reward", "KL"]
    header += ["area", "distinct bigrams", "above sparse", "queries", "device s"]
    lines = []
    for row in sweep_rows(records):
        line = [row["task"], row["method"], *("-" if row[key] is None else str(row[key]) for key in keys)]
        line.append(str(row["n"]))
        for name, digits in (("final_reward", 2), ("final_kl", 1), ("curve_area", 2), ("distinct_bigrams", 1)):
            line.append(show_mean(row[f"{name}_mean"], row[f"{name}_std"], digits))
        line.append(f"{row['above_sparse']} of {row['pairs']}" if row["pairs"] and row["method"] != "sparse" else "-")
        lines.append([*line, f"{row['reward_queries_mean']:.0f}", f"{row['device_seconds_mean']:.0f}"])
    return markdown_table(header, lines) + "\n"


# Paired comparisons within a sweep: each method beside one of them, at equal seed and settings.


def paired_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One row per task, response length (where it varies) and kind of credit: how far its runs are from those of `BASE`.

    A run is paired with the run of `BASE` of the same task, seed and values of all settings that vary among those runs.
    Differences are first averaged over settings within a seed, then over seeds: `seeds`, `pairs`, and of each of
    `PAIRED_NUMBERS` the mean and Student's 95 % interval over seeds (None for one seed). Empty without runs of `BASE`.
    """
    runs = sweep_frame(records)
    base = runs[runs["method"] == BASE].set_index("base_pair")[list(PAIRED_NUMBERS)]
    others = runs[(runs["method"] != BASE) & runs["base_pair"].isin(base.index)]
    kind = ["method", *(key for key in ("segmentation", "estimator") if key in varied(records))]
    differences = others[list(PAIRED_NUMBERS)] - base.loc[others["base_pair"]].to_numpy()
    frame = differences.assign(
        task=others["task"],
        length=others.get(LENGTH),
        credit=[_name(_variant(row)) for row in others[kind].to_dict("records")],
        seed=others["seed"],
    )
    groups = frame.groupby(["task", "length", "credit"], dropna=False)
    return [
        {"task": task, "length": None if length != length else length, "credit": credit} | _over_seeds(group)
        for (task, length, credit), group in groups
    ]


def _over_seeds(group: pd.DataFrame) -> dict[str, Any]:
    means = group.groupby("seed")[list(PAIRED_NUMBERS)].mean()
    row: dict[str, Any] = {"seeds": len(means), "pairs": len(group)}
    for name in PAIRED_NUMBERS:
        test = student(means[name].to_numpy())
        row |= {name: float(means[name].mean()), f"{name}_interval": test.interval if test else None}
    return row


def paired_markdown(records: Sequence[RunRecord]) -> str:
    """`paired_rows` as a markdown table under a sentence that says what it is; "" where there is nothing to pair."""
    rows = paired_rows(records)
    if not rows:
        return ""
    header = ["task", "length", "credit", "seeds", "pairs", "final reward", "area", "KL", "distinct bigrams"]
    lines = []
    for row in rows:
        line = [row["task"], "-" if row["length"] is None else f"{row['length']}", row["credit"]]
        line += [str(row["seeds"]), str(row["pairs"])]
        lines.append([*line, *(_difference(row, name) for name in PAIRED_NUMBERS)])
    return (
        f"\nDifferences from {BASE} at equal seed and settings: the mean over settings within a seed, then over seeds; in brackets "
        f"Student's {CONFIDENCE:.0%} interval over seeds.\n\n{markdown_table(header, lines)}\n"
    )


def _difference(row: dict[str, Any], name: str) -> str:
    digits = 1 if name in ("final_kl", "distinct_bigrams") else 2
    return show_difference(row[name], row[f"{name}_interval"], digits=digits)


# Reward against KL: where each setting of a sweep ends, so that methods can be compared at equal distance from the SFT
# policy.


def frontier_figure(records: Sequence[RunRecord]) -> Figure:
    """Final test reward against the KL to the SFT policy, both means over seeds with +-1 sample std (ddof 1).

    A panel per task and response length, a line per method and kind of credit, through the settings in the order of their
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
    for axes, ((task, length), rows) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], sorted(panels.items(), key=str), strict=True
    ):
        _draw(axes, rows, variants)
        axes.set_title(task_name(task) + (f", {length} tokens" if length else ""))
    figure.axes[0].set_ylabel("mean raw reward, test prompts")
    note = "" if scale == "paper" else f" ({comparability(scale)})"
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    set_caption(figure, [f"Final test reward and KL, scale {scale}{note}; {count} seeds per point, ± 1 std"])
    handles = {str(line.get_label()): line for axes in figure.axes for line in axes.get_lines()}
    legend_below(figure, list(handles.values()), list(handles), columns=4)
    return figure


def _variant(row: dict[str, Any]) -> tuple[str, ...]:
    """The method, and for SCAR its units and estimator where these vary."""
    return (row["method"], *(str(row[key]) for key in ("segmentation", "estimator") if row.get(key)))


def _name(variant: tuple[str, ...]) -> str:
    """A kind of credit as shown: "scar: span, owen"."""
    method, *options = variant
    return method if not options else f"{method}: {', '.join(option.split('(')[0] for option in options)}"


def _draw(axes: Axes, rows: list[dict[str, Any]], variants: list[tuple[str, ...]]) -> None:
    of_scar = [variant for variant in variants if variant[0] == "scar"]
    colours = (look_of("scar").colour, *OTHER_COLOURS)
    for variant in variants:
        points = sorted((row for row in rows if _variant(row) == variant), key=lambda row: row["final_kl_mean"])
        if not points:
            continue
        look = look_of(variant[0])
        container = axes.errorbar(
            [row["final_kl_mean"] for row in points],
            [row["final_reward_mean"] for row in points],
            xerr=[row["final_kl_std"] or 0.0 for row in points],
            yerr=[row["final_reward_std"] or 0.0 for row in points],
            color=colours[of_scar.index(variant) % len(colours)] if variant in of_scar else look.colour,
            marker=look.marker,
            markersize=3.5,
            linewidth=1.1,
            elinewidth=0.6,
        )
        container.lines[0].set_label(_name(variant))
    axes.set_xlabel("KL to the SFT policy, nats per response")
    style_axes(axes)
