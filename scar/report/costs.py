"""What runs cost: device seconds per update and where they go, memory, and how fast the credit engine asks the reward model.

Runs that differ in method, units, the type in which coalitions are scored or the device are rows of their own; nothing is
compared here, so runs of several settings may stand together.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from scar.report.frames import STAGES, device_names, runs_frame
from scar.report.style import tasks_in_order
from scar.report.writing import csv_text, markdown_table, show_number
from scar.tracking.records import RunRecord

_KEYS = ["task", "method", "units", "coalitions", "device"]
_MEANS = ["update_seconds", "seconds", *(f"{stage}_share" for stage in STAGES), "queries_per_second"]
_MEANS += ["final_reward", "final_kl"]
_EXPLAINED = """\
Device hours: wall time of the training stages on a GPU, CPU seconds of the process on a CPU, without evaluation and \
saving. Shares are of the training time. Peak: bytes allocated on a GPU; on a CPU the most resident bytes of the \
process, which in a sweep ran other runs before. Means over runs; the peak is the largest."""


def cost_rows(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row per kind of run: runs `n`, mean seconds per update and per run, each stage's share, coalitions scored per second
    of the credit stage (nan where none are), final reward and KL (means over runs), and the most bytes that a run held."""
    runs = runs_frame(records).rename(columns={"segmentation": "units", "device_seconds": "seconds"})
    groups = runs.assign(units=runs["units"].fillna("-")).groupby(_KEYS, sort=False)
    rows = groups[_MEANS].mean().assign(n=groups.size(), peak_bytes=groups["peak_bytes"].max()).reset_index()
    order = tasks_in_order(rows["task"])
    return rows.sort_values("task", key=lambda tasks: tasks.map(order.index), kind="stable", ignore_index=True)


def costs_csv(records: Iterable[RunRecord]) -> str:
    """`cost_rows` at full precision."""
    return csv_text(cost_rows(records))


def costs_markdown(records: list[RunRecord], *, scale: str) -> str:
    """`cost_rows` as a table to read."""
    header = ["task", "method", "units", "coalitions scored by", "runs", "s per update", "device hours per run"]
    header += [f"{stage} %" for stage in STAGES] + ["peak GiB", "coalitions per second", "final reward", "final KL"]
    lines = []
    for row in cost_rows(records).to_dict("records"):
        line = [row["task"], row["method"], row["units"], row["coalitions"], str(row["n"])]
        line += [f"{row['update_seconds']:.2f}", f"{row['device']} {row['seconds'] / 3600:.4f}"]
        line += [f"{100 * row[f'{stage}_share']:.0f}" for stage in STAGES]
        line += [show_number(row["peak_bytes"] / 2**30, ".1f"), show_number(row["queries_per_second"], ",.0f")]
        lines.append([*line, f"{row['final_reward']:.2f}", f"{row['final_kl']:.2f}"])
    title = f"# What runs cost, scale {scale}\n\nDevice: {device_names(records)}."
    return f"{title}\n\n{markdown_table(header, lines)}\n\n{_EXPLAINED}\n"
