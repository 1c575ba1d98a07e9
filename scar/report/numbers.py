"""The numbers of one run, and their statistics over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scar.tracking.records import RunRecord

REACH_WINDOW = 5
"""Updates in the trailing mean behind "updates to reach sparse's end" (ours; the paper gives no such number)."""


def trailing_mean(values: np.ndarray, window: int) -> np.ndarray:
    """f64[U]: entry t is the mean of the last `window` values up to t (of those that exist, for the first ones)."""
    if window < 1:
        raise ValueError(f"smoothing window {window}; it must be 1 (none) or more updates")
    return np.array([values[max(0, t + 1 - window) : t + 1].mean() for t in range(len(values))])


def first_update_at(curve: np.ndarray, level: float, *, window: int = REACH_WINDOW) -> int | None:
    """The first update (1-based) whose trailing mean over `window` updates is at least `level`; None if none is.

    Only full windows count, so one lucky first batch is no arrival; a run shorter than `window` uses its length.
    """
    smooth, start = trailing_mean(curve, window), min(window, len(curve)) - 1
    reached = np.flatnonzero(smooth[start:] >= level)
    return int(reached[0]) + start + 1 if len(reached) else None


def column(record: RunRecord, key: str) -> np.ndarray:
    """f64[U]: one metric of every update; ValueError names the record if its updates are not 1, 2, ... U or lack the key."""
    rows = record.metrics
    if not rows or [row.get("update") for row in rows] != list(range(1, len(rows) + 1)):
        raise ValueError(f"{record.path}/metrics.jsonl does not hold updates 1 to {len(rows)}; run it again")
    if any(key not in row for row in rows):
        raise ValueError(f"{record.path}/metrics.jsonl has no {key!r} in some update; run it again with this code")
    return np.array([row[key] for row in rows], dtype=np.float64)


@dataclass(frozen=True)
class RunNumbers:
    """The numbers of one run. Rewards are the reward model's raw outputs r_phi(x, y); KL is in nats a response.

    `curve` f64[U]: mean raw reward of each training batch; `curve_area`: its mean over updates; `reward_queries`: extra
    reward-model evaluations a response; `device_seconds`: training time; `credit_share`: part of it spent on credit.
    """

    initial_reward: float
    initial_bigrams: float
    final_reward: float
    final_kl: float
    distinct_bigrams: float
    curve: np.ndarray
    curve_area: float
    reward_queries: float
    device_seconds: float
    credit_share: float


def run_numbers(record: RunRecord) -> RunNumbers:
    """Read one run's numbers; ValueError names the record if a key is missing or its updates are not 1, 2, ... U."""
    try:
        initial, final = record.evaluation["initial"], record.evaluation["final"]
        curve, total = column(record, "reward/raw_mean"), column(record, "time/total_s").sum()
        return RunNumbers(
            initial_reward=initial["reward_mean"],
            initial_bigrams=initial["distinct_bigrams_mean"],
            final_reward=final["reward_mean"],
            final_kl=final["kl_mean"],
            distinct_bigrams=final["distinct_bigrams_mean"],
            curve=curve,
            curve_area=float(curve.mean()),
            reward_queries=float(column(record, "credit/queries_mean").mean()),
            device_seconds=record.manifest["timing"]["device_seconds"],
            credit_share=float(column(record, "time/credit_s").sum() / total) if total else 0.0,
        )
    except KeyError as error:
        raise ValueError(f"the record {record.path} has no {error}; run it again with this code") from error


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample std (ddof 1) over seeds; the std of one value is None, never 0, and so are both of none."""
    mean = float(np.mean(values)) if len(values) else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None
