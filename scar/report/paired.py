"""Paired comparisons within a sweep: each method beside one of them, at equal seed and settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from scar.report.frontier import LENGTH, variant_name
from scar.report.summary import run_numbers
from scar.report.sweeps import pair_key, varied, with_settings
from scar.tracking.records import RunRecord

BASE = "prefix"
NUMBERS = ("final_reward", "curve_area", "final_kl", "distinct_bigrams")
CONFIDENCE = 0.95


def paired_rows(records: Sequence[RunRecord], *, base: str = BASE) -> list[dict[str, Any]]:
    """One row a task, response length (where it varies) and kind of credit: how far its runs are from those of `base`.

    A run is paired with the run of `base` of the same task, seed and values of all settings that vary among those runs.
    Differences are first averaged over settings within a seed, then over seeds: `seeds`, `pairs`, and of each of `NUMBERS`
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
        cell[record.manifest["seed"]].append([getattr(one, name) - getattr(partner, name) for name in NUMBERS])
    return [
        {"task": task, "length": length, "credit": credit} | _over_seeds(by_seed)
        for (task, length, credit), by_seed in sorted(found.items(), key=str)
    ]


def _over_seeds(by_seed: dict[int, list[list[float]]]) -> dict[str, Any]:
    means = np.array([np.mean(differences, axis=0) for differences in by_seed.values()])
    row: dict[str, Any] = {"seeds": len(means), "pairs": sum(map(len, by_seed.values()))}
    for name, values in zip(NUMBERS, means.T, strict=True):
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
        lines.append(shown + [_difference(row, name) for name in NUMBERS])
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
