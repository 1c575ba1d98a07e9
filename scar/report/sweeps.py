"""Tables of sweeps: runs that differ in settings, one row a setting, seeds averaged.

Which settings a row names is read off the records: those in which runs of one task and method differ, the seed aside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from scar.report.selection import setting, settings
from scar.report.summary import RunNumbers, mean_std, run_numbers
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
