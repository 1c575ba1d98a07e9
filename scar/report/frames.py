"""Runs as two pandas frames, which every table and figure of runs is a group-by of: `runs` and `curves`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from scar.report.statistics import bootstrap_error
from scar.tracking.records import RunRecord

STAGES = ("rollout", "score", "segment", "credit", "update")
"""What an update's time is spent on."""
SMOOTHING = 5
"""Updates in the trailing mean of training curves (chosen by us; the paper gives no such number)."""


def runs_frame(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row per run, in the order of `records`.

    What ran: `record`, `task`, `method`, `segmentation`, `estimator` (as text), `coalitions` ("-" without), `alpha`, `seed`,
    `device` ("CPU" or "GPU").
    Of the policy on test prompts, in raw rewards and nats per response: `initial_reward`, `initial_bigrams`, `final_reward`,
    `final_kl`, `distinct_bigrams`, `final_score` and `eos_share` (nan in records without them).
    Of training: `curve_area` (mean over updates of the batch's mean raw reward), `reward_queries` (reward-model evaluations
    per response beyond the one that scores it), `device_seconds`, `update_seconds`, `<stage>_share` of `STAGES`,
    `queries_per_second` of the credit stage, `peak_bytes` (nan where there are none).

    Raises ValueError naming the record whose updates are not 1, 2, ... U or that lacks a key.
    """
    return pd.DataFrame([_run(record) for record in records])


def _run(record: RunRecord) -> dict[str, Any]:
    manifest, updates = record.manifest, _updates(record)
    coalitions, timing = manifest.get("coalitions"), manifest["timing"]
    seconds = {stage: _total(updates, f"time/{stage}_s") for stage in STAGES}
    total = _column(record, updates, "time/total_s").sum()
    queries = _column(record, updates, "credit/queries_mean")
    timed_queries = coalitions and seconds["credit"]
    try:
        initial, final = record.evaluation["initial"], record.evaluation["final"]
        return {
            "record": record,
            **{key: manifest[key] for key in ("task", "method", "segmentation", "alpha", "seed")},
            "estimator": estimator_text(manifest["estimator"]),
            "coalitions": f"{coalitions['backend']}, {coalitions['dtype']}" if coalitions else "-",
            "device": device_kind(record),
            "initial_reward": initial["reward_mean"],
            "initial_bigrams": initial["distinct_bigrams_mean"],
            "final_reward": final["reward_mean"],
            "final_kl": final["kl_mean"],
            "distinct_bigrams": final["distinct_bigrams_mean"],
            "final_score": final.get("score_mean", np.nan),
            "eos_share": final.get("eos_frac", np.nan),
            "curve_area": _column(record, updates, "reward/raw_mean").mean(),
            "reward_queries": queries.mean(),
            "device_seconds": timing["device_seconds"],
            "update_seconds": total / len(updates),
            **{f"{stage}_share": seconds[stage] / total if total else 0.0 for stage in STAGES},
            "queries_per_second": queries.sum() * manifest["settings"]["ppo"]["batch_size"] / seconds["credit"]
            if timed_queries
            else np.nan,
            "peak_bytes": timing.get("peak_memory_bytes", np.nan),
        }
    except KeyError as error:
        raise ValueError(f"the record {record.path} has no {error}; run it again with this code") from error


def evaluation_noise(runs: Mapping[int, RunRecord], others: Mapping[int, RunRecord] | None = None) -> float | None:
    """How far the mean final reward of `runs` (by seed), less that of `others` on the seeds that both have, is from that over
    all test prompts there could be: the bootstrap's standard error over prompts, in raw rewards. All runs share their prompts,
    so one draw of prompts counts for every run, and the spread over seeds does not contain this error. None without a run,
    and where a run has no samples.

    Raises ValueError naming two runs that were evaluated on different prompts.
    """
    sides = [runs] if others is None else [runs, others]
    seeds = sorted(set.intersection(*(set(side) for side in sides)))
    records = [side[seed] for side in sides for seed in seeds]
    if not records or not all((record.path / "samples.jsonl").is_file() for record in records):
        return None
    for record in records:
        if record.test_rewards[0] != records[0].test_rewards[0]:
            raise ValueError(
                f"{records[0].path} / {record.path} were evaluated on different prompts; run one of them again"
            )
    rewards = [np.mean([side[seed].test_rewards[1] for seed in seeds], axis=0) for side in sides]
    return bootstrap_error(rewards[0] if others is None else rewards[0] - rewards[1])


def curves_frame(records: Iterable[RunRecord], *, smoothing: int = SMOOTHING) -> pd.DataFrame:
    """One row per run and update: `task`, `method`, `segmentation`, `seed`, `update` (from 1), `reward` (mean raw reward of
    the training batch) and its trailing mean `smooth_reward`, `sqrt_kl` (square root of the trailing mean of the batch's KL,
    a mean below 0 counting as 0; docs/decisions.md#figure-3), `device_seconds` and `device_hours` of training so far.

    Raises ValueError for a window below 1, and naming the record as `runs_frame` does.
    """
    return pd.concat([_curve(record, smoothing) for record in records], ignore_index=True)


def _curve(record: RunRecord, smoothing: int) -> pd.DataFrame:
    updates = _updates(record)
    reward, kl, seconds = (
        _column(record, updates, key) for key in ("reward/raw_mean", "kl/seq_sum_mean", "device_seconds")
    )
    return pd.DataFrame(
        {key: record.manifest[key] for key in ("task", "method", "segmentation", "seed")}
        | {"update": updates["update"], "reward": reward, "smooth_reward": trailing_mean(reward, smoothing)}
        | {"sqrt_kl": np.sqrt(np.maximum(trailing_mean(kl, smoothing), 0.0))}
        | {"device_seconds": seconds, "device_hours": seconds / 3600}
    )


def trailing_mean(values: pd.Series, window: int = SMOOTHING) -> pd.Series:
    """Entry t is the mean of the last `window` values up to t (of those that exist, for the first ones)."""
    if window < 1:
        raise ValueError(f"smoothing window {window}; it must be 1 (none) or more updates")
    return values.rolling(window, min_periods=1).mean()


def first_update_at(reward: pd.Series, level: float, *, window: int = SMOOTHING) -> int | None:
    """The first update (from 1) whose trailing mean over `window` updates is at least `level`; None if none is.

    Only full windows count, so one lucky first batch is no arrival; a run shorter than `window` uses its length.
    """
    full = trailing_mean(reward, window).to_numpy()
    start = min(window, len(full)) - 1
    reached = np.flatnonzero(full[start:] >= level)
    return int(reached[0]) + start + 1 if len(reached) else None


def estimator_text(settings: Mapping[str, Any] | None) -> str | None:
    """An estimator as the command line names it: `permutation(permutations=2)`, `owen`; None for a method without one."""
    if settings is None:
        return None
    options = ", ".join(f"{key}={value}" for key, value in settings.items() if key != "name")
    return f"{settings['name']}({options})".removesuffix("()")


def device_kind(record: RunRecord) -> str:
    """ "CPU" or "GPU": what the run's seconds were measured on. CPU time is never called GPU time."""
    kind = record.manifest["device"]["kind"]
    return "GPU" if kind == "cuda" else kind.upper()


def device_names(records: Iterable[RunRecord]) -> str:
    """What the runs were timed on, with the hardware's names: "CPU (...), GPU (...)"."""
    return ", ".join(sorted({f"{device_kind(r)} ({r.manifest['device']['name']})" for r in records}))


def _updates(record: RunRecord) -> pd.DataFrame:
    rows = record.metrics
    if not rows or [row.get("update") for row in rows] != list(range(1, len(rows) + 1)):
        raise ValueError(f"{record.path}/metrics.jsonl does not hold updates 1 to {len(rows)}; run it again")
    return pd.DataFrame(rows)


def _column(record: RunRecord, updates: pd.DataFrame, key: str) -> pd.Series:
    if key not in updates or updates[key].isna().any():
        raise ValueError(f"{record.path}/metrics.jsonl has no {key!r} in some update; run it again with this code")
    return updates[key].astype(np.float64)


def _total(updates: pd.DataFrame, key: str) -> float:
    return float(updates[key].sum()) if key in updates else 0.0
