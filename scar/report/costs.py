"""What runs cost: device seconds an update and where they go, memory, and how fast the credit engine asks the reward model.

Runs that differ in method, units, the type in which coalitions are scored or the device are rows of their own; nothing is
compared here, so runs of several settings may stand together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from scar.report.selection import TASKS, device_kind, device_names
from scar.tracking.records import RunRecord

STAGES = ("rollout", "score", "segment", "credit", "update")
_KEYS = ["task", "method", "units", "coalitions", "device"]


def cost_rows(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a kind of run: runs `n`, mean seconds an update and a run, each stage's share, the most bytes that a run held,
    coalitions scored a second of the credit stage (NaN where none are), final reward and KL (means over runs)."""
    frame = pd.DataFrame([_of_run(record) for record in records])
    rows = frame.groupby(_KEYS, sort=False, dropna=False).agg(
        n=("seconds", "size"),
        **{name: (name, "mean") for name in frame if name not in _KEYS and name != "peak_bytes"},
        peak_bytes=("peak_bytes", "max"),
    )
    order = {task: place for place, task in enumerate(TASKS)}
    return rows.reset_index().sort_values("task", key=lambda tasks: tasks.map(order), kind="stable", ignore_index=True)


def _of_run(record: RunRecord) -> dict[str, Any]:
    manifest, rows = record.manifest, pd.DataFrame(record.metrics)
    spent = {stage: float(rows.get(f"time/{stage}_s", pd.Series([0.0])).sum()) for stage in STAGES}
    asked = float(rows["credit/queries_mean"].sum()) * manifest["settings"]["ppo"]["batch_size"]
    scored = manifest.get("coalitions")
    final = record.evaluation["final"]
    return {
        "task": manifest["task"],
        "method": manifest["method"],
        "units": manifest["segmentation"] or "-",
        "coalitions": f"{scored['backend']}, {scored['dtype']}" if scored else "-",
        "device": device_kind(record),
        "update_seconds": float(rows["time/total_s"].mean()),
        "seconds": manifest["timing"]["device_seconds"],
        **{f"{stage}_share": seconds / float(rows["time/total_s"].sum()) for stage, seconds in spent.items()},
        "queries_per_second": asked / spent["credit"] if scored and spent["credit"] else float("nan"),
        "final_reward": final["reward_mean"],
        "final_kl": final["kl_mean"],
        "peak_bytes": manifest["timing"].get("peak_memory_bytes", float("nan")),
    }


def costs_csv(records: Iterable[RunRecord]) -> str:
    """`cost_rows` at full precision."""
    return cost_rows(records).to_csv(index=False)


def costs_markdown(records: list[RunRecord], *, scale: str) -> str:
    """`cost_rows` as a table to read."""
    shown = ["task", "method", "units", "coalitions scored by", "runs", "s an update", "device hours a run"]
    shown += [f"{stage} %" for stage in STAGES] + ["peak GiB", "coalitions a second", "final reward", "final KL"]
    lines = [f"| {' | '.join(shown)} |", f"|{' --- |' * len(shown)}"]
    for row in cost_rows(records).to_dict("records"):
        values = [row["task"], row["method"], row["units"], row["coalitions"], row["n"]]
        values += [f"{row['update_seconds']:.2f}", f"{row['device']} {row['seconds'] / 3600:.4f}"]
        values += [f"{100 * row[f'{stage}_share']:.0f}" for stage in STAGES]
        values += [_number(row["peak_bytes"] / 2**30, ".1f"), _number(row["queries_per_second"], ",.0f")]
        values += [f"{row['final_reward']:.2f}", f"{row['final_kl']:.2f}"]
        lines.append(f"| {' | '.join(map(str, values))} |")
    explained = (
        "Device hours: wall time of the training stages on a GPU, CPU seconds of the process on a CPU, without evaluation and "
        "saving. Shares are of the training time. Peak: bytes allocated on a GPU; on a CPU the most resident bytes of the "
        "process, which in a sweep ran other runs before. Means over runs; the peak is the largest."
    )
    return (
        f"# What runs cost, scale {scale}\n\nDevice: {device_names(records)}.\n\n"
        + "\n".join(lines)
        + f"\n\n{explained}\n"
    )


def _number(value: float, form: str) -> str:
    return "-" if value != value else format(value, form)
