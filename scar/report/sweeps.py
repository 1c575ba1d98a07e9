"""Tables of sweeps: runs that differ in settings, one row a setting, seeds averaged.

Which settings a row names is read off the records: those in which runs of one task and method differ, the seed aside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from scar.report.numbers import RunNumbers, mean_std, run_numbers
from scar.report.selection import setting, settings
from scar.report.style import COLOURS, fonts, legend_below, new_figure, set_caption, style_axes
from scar.report.tables import TASK_NAMES, comparability
from scar.tracking.records import RunRecord

NUMBERS = ("final_reward", "final_kl", "curve_area", "distinct_bigrams", "reward_queries", "device_seconds")
_SHOWN = ("estimator", "segmentation")  # in words of their own, not by their config keys
Values = tuple[tuple[str, Any], ...]


def varied(records: Sequence[RunRecord]) -> list[str]:
    """The settings, by their flat names, in which some runs of one task and method differ."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record.manifest["task"], record.manifest["method"]].append(_values(record))
    keys: list[str] = []
    for group in groups.values():
        for key in sorted({key for values in group for key in values}):
            if len({str(values.get(key)) for values in group}) > 1 and key not in keys:
                keys.append(key)
    return keys


def _values(record: RunRecord) -> dict[str, Any]:
    flat = {
        key: value for key, value in settings(record).items() if key != "units.name"
    }  # `segmentation` says the same
    return flat | {key: setting(record, key) for key in _SHOWN}


def sweep_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One row a task, method and setting: the varied settings, `n`, mean and sample std (ddof 1) of `NUMBERS` over seeds,
    `credit_share_mean`, and on how many seeds (`above_sparse` of `pairs`) the final reward is above that of the sparse
    run with the same seed and the same values of all settings that vary among sparse runs.

    Raises ValueError for no records, records of several scales, or two runs of one row and seed.
    """
    if not records:
        raise ValueError("no records to make a table of; check records=")
    if len(scales := {record.manifest["scale"] for record in records}) > 1:
        raise ValueError(f"records of several scales ({', '.join(sorted(scales))}) do not share a table; choose one")
    keys = varied(records)
    sparse_runs = [record for record in records if record.manifest["method"] == "sparse"]
    sparse_keys = varied(sparse_runs)
    cells: dict[tuple[str, str, Values], dict[int, RunRecord]] = defaultdict(dict)
    for record in records:
        where = (record.manifest["task"], record.manifest["method"], _values_of(record, keys))
        twin = cells[where].setdefault(record.manifest["seed"], record)
        if twin is not record:
            raise ValueError(f"two records of one setting and seed: {twin.path} / {record.path}; delete one of them")
    base = {pair_key(record, sparse_keys): run_numbers(record) for record in sparse_runs}
    return [
        {"task": task, "method": method, **dict(values)} | _statistics(runs, base, sparse_keys)
        for (task, method, values), runs in sorted(cells.items(), key=lambda item: str(item[0]))
    ]


def _values_of(record: RunRecord, keys: Sequence[str]) -> Values:
    values = _values(record)
    return tuple((key, values.get(key)) for key in keys)


def with_settings(records: Sequence[RunRecord]) -> list[tuple[RunRecord, dict[str, Any]]]:
    """Each record with its task, its method and the settings that vary."""
    keys = varied(records)
    return [
        (
            record,
            {"task": record.manifest["task"], "method": record.manifest["method"]} | dict(_values_of(record, keys)),
        )
        for record in records
    ]


def pair_key(record: RunRecord, keys: Sequence[str]) -> tuple[Any, ...]:
    """What two runs must share to be compared: task, seed and the values of `keys`."""
    return record.manifest["task"], record.manifest["seed"], _values_of(record, keys)


def _statistics(
    runs: Mapping[int, RunRecord], base: Mapping[tuple[Any, ...], RunNumbers], sparse_keys: Sequence[str]
) -> dict[str, Any]:
    numbers = {seed: run_numbers(record) for seed, record in runs.items()}
    row: dict[str, Any] = {"n": len(numbers)}
    for name in NUMBERS:
        row[f"{name}_mean"], row[f"{name}_std"] = mean_std([getattr(one, name) for one in numbers.values()])
    row["credit_share_mean"], _ = mean_std([one.credit_share for one in numbers.values()])
    pairs = [(numbers[seed], base.get(pair_key(record, sparse_keys))) for seed, record in runs.items()]
    found = [(one, other) for one, other in pairs if other is not None]
    return row | {"pairs": len(found), "above_sparse": sum(one.final_reward > o.final_reward for one, o in found)}


def sweep_csv(records: Sequence[RunRecord]) -> str:
    """`sweep_rows` as CSV, unrounded."""
    return pd.DataFrame(sweep_rows(records), dtype=object).to_csv(index=False)


def sweep_markdown(records: Sequence[RunRecord]) -> str:
    """`sweep_rows` as a markdown table, rounded; the settings that vary are its columns after the method."""
    rows, keys = sweep_rows(records), varied(records)
    header = ["task", "method", *(key.removeprefix("generation.") for key in keys), "n", "final reward", "KL"]
    header += ["area", "distinct bigrams", "above sparse", "queries", "device s"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        line = [
            row["task"],
            row["method"],
            *("-" if row[key] is None else str(row[key]) for key in keys),
            str(row["n"]),
        ]
        for name, digits in (("final_reward", 2), ("final_kl", 1), ("curve_area", 2), ("distinct_bigrams", 1)):
            std = row[f"{name}_std"]
            line.append(f"{row[f'{name}_mean']:z.{digits}f} ± " + ("-" if std is None else f"{std:.{digits}f}"))
        line.append(f"{row['above_sparse']} of {row['pairs']}" if row["pairs"] and row["method"] != "sparse" else "-")
        line += [f"{row['reward_queries_mean']:.0f}", f"{row['device_seconds_mean']:.0f}"]
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


# Paired comparisons within a sweep: each method beside one of them, at equal seed and settings.


BASE = "prefix"
PAIRED_NUMBERS = ("final_reward", "curve_area", "final_kl", "distinct_bigrams")
CONFIDENCE = 0.95


def paired_rows(records: Sequence[RunRecord], *, base: str = BASE) -> list[dict[str, Any]]:
    """One row a task, response length (where it varies) and kind of credit: how far its runs are from those of `base`.

    A run is paired with the run of `base` of the same task, seed and values of all settings that vary among those runs.
    Differences are first averaged over settings within a seed, then over seeds: `seeds`, `pairs`, and of each of `PAIRED_NUMBERS`
    the mean and Student's 95 % interval over seeds (None for one seed). Empty without runs of `base`.
    """
    of_base = [record for record in records if record.manifest["method"] == base]
    keys = varied(of_base)
    partners = {pair_key(record, keys): run_numbers(record) for record in of_base}
    found: dict[tuple[Any, ...], dict[int, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for record, row in with_settings(records):
        partner = partners.get(pair_key(record, keys))
        if partner is None or row["method"] == base:
            continue
        one = run_numbers(record)
        cell = found[row["task"], row.get(LENGTH), variant_name(row)]
        cell[record.manifest["seed"]].append([getattr(one, name) - getattr(partner, name) for name in PAIRED_NUMBERS])
    return [
        {"task": task, "length": length, "credit": credit} | _over_seeds(by_seed)
        for (task, length, credit), by_seed in sorted(found.items(), key=str)
    ]


def _over_seeds(by_seed: dict[int, list[list[float]]]) -> dict[str, Any]:
    means = np.array([np.mean(differences, axis=0) for differences in by_seed.values()])
    row: dict[str, Any] = {"seeds": len(means), "pairs": sum(map(len, by_seed.values()))}
    for name, values in zip(PAIRED_NUMBERS, means.T, strict=True):
        row[name] = float(values.mean())
        row[f"{name}_interval"] = None
        if len(values) > 1 and np.ptp(values) > 0:
            low, high = stats.ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
            row[f"{name}_interval"] = (float(low), float(high))
    return row


def paired_markdown(records: Sequence[RunRecord], *, base: str = BASE) -> str:
    """`paired_rows` as a markdown table under a sentence that says what it is; "" where there is nothing to pair."""
    rows = paired_rows(records, base=base)
    if not rows:
        return ""
    header = ["task", "length", "credit", "seeds", "pairs", "final reward", "area", "KL", "distinct bigrams"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        shown = [row["task"], "-" if row["length"] is None else str(row["length"]), row["credit"]]
        shown += [str(row["seeds"]), str(row["pairs"])]
        lines.append(shown + [_difference(row, name) for name in PAIRED_NUMBERS])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return (
        f"\nDifferences from {base} at equal seed and settings: the mean over settings within a seed, then over seeds; in brackets "
        f"Student's {CONFIDENCE:.0%} interval over seeds.\n\n{table}\n"
    )


def _difference(row: dict[str, Any], name: str) -> str:
    interval = row[f"{name}_interval"]
    digits = 1 if name in ("final_kl", "distinct_bigrams") else 2
    bounds = "" if interval is None else f" [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"
    return f"{row[name]:+.{digits}f}{bounds}"


# Reward against KL: where each setting of a sweep ends, so that methods can be compared at equal distance from the SFT
# policy.


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
