"""Which runs a table or figure rests on, whether they may be compared, and the numbers of one run.

Owns selection, fairness, per-run numbers and statistics over seeds. Leaves layout to `tables.py` and `figures.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scar.tracking.records import RunRecord

TASKS = ("imdb", "tldr", "hh")
METHODS = ("sparse", "uniform", "abc", "scar", "prefix")
REACH_WINDOW = 5
"""Updates in the trailing mean behind "updates to reach sparse's end" (ours; the paper gives no such number)."""
READ_BY = {"alpha": ("abc", "scar"), "estimator": ("scar",), "segmentation": ("scar",)}
"""The settings that tell runs of one method apart, and the methods that they are meant for (see `narrow`)."""

_FLAGS = {
    "alpha": "--alpha",
    "estimator": "--estimator",
    "segmentation": "--segmentation",
    "model_seed": "--model-seed",
}
# What may differ between seeds of one method: the seed, and what says where and how a run was stored or watched.
_NOT_SETTINGS = ("seed", "hydra", "tracker", "paths", "run_dir", "force")
# What all methods of a task must share; the exceptions are chosen per method (Tables 3-5 give alpha for SCAR only).
_SHARED_SECTIONS = ("ppo", "models", "task", "evaluation")
_NOT_SHARED = ("task.alpha", "task.segmentation")


@dataclass(frozen=True)
class Cells:
    """The runs behind a table: `runs[task, method][seed]`, and what was asked for (`tasks`, `methods`, `seeds`)."""

    tasks: list[str]
    methods: list[str]
    seeds: list[int]
    runs: dict[tuple[str, str], dict[int, RunRecord]]

    @property
    def records(self) -> list[RunRecord]:
        """All runs, by task, method and seed."""
        return [self.runs[cell][seed] for cell in self.runs for seed in self.runs[cell]]

    def missing(self) -> dict[tuple[str, str], list[int]]:
        """The seeds that were asked for and have no run, by (task, method)."""
        gaps = {cell: [seed for seed in self.seeds if seed not in runs] for cell, runs in self.runs.items()}
        return {cell: seeds for cell, seeds in gaps.items() if seeds}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}" if prefix else key).items()}


def _settings(record: RunRecord) -> dict[str, Any]:
    config = {key: value for key, value in record.manifest["config"].items() if key not in _NOT_SETTINGS}
    return _flat(config) | {key: record.manifest[key] for key in ("scale", *_FLAGS)}


def _shared_settings(record: RunRecord) -> dict[str, Any]:
    config = record.manifest["config"]
    if absent := [name for name in _SHARED_SECTIONS if name not in config]:
        raise ValueError(f"{record.path}/manifest.json has no config section {', '.join(absent)}; run it again")
    shared = _flat({name: config[name] for name in _SHARED_SECTIONS})
    return {k: v for k, v in shared.items() if k not in _NOT_SHARED} | {"model_seed": record.manifest["model_seed"]}


def _differences(first: dict[str, Any], second: dict[str, Any]) -> str:
    absent = "(absent)"
    keys = sorted(k for k in first.keys() | second.keys() if first.get(k, absent) != second.get(k, absent))
    shown = [f"{key}: {first.get(key, absent)} / {second.get(key, absent)}" for key in keys[:8]]
    return "; ".join(shown + ([f"and {len(keys) - 8} more"] if len(keys) > 8 else []))


def _refuse_mix(first: RunRecord, second: RunRecord) -> None:
    """Raise if two runs of one method and task differ in their settings."""
    one, other = _settings(first), _settings(second)
    if one == other:
        return
    flags = [f"{flag} {one[key]} or {flag} {other[key]}" for key, flag in _FLAGS.items() if one[key] != other[key]]
    todo = f"narrow with {', or '.join(flags)}" if flags else "no flag tells them apart: move one away from --runs"
    raise ValueError(
        f"runs of task {first.manifest['task']}, method {first.manifest['method']} have different settings and are not "
        f"averaged: {first.path} / {second.path} differ in {_differences(one, other)}; {todo}"
    )


def check_fairness(records: Iterable[RunRecord]) -> None:
    """Raise ValueError unless all runs of each task share what the comparison of methods rests on (Section 4.1).

    That is the config sections ppo, models, task (but for its alpha and segmentation, chosen per method) and
    evaluation, and the seed of the SFT policy and the reward model.
    """
    first: dict[str, RunRecord] = {}
    for record in records:
        reference = first.setdefault(record.manifest["task"], record)
        one, other = _shared_settings(reference), _shared_settings(record)
        if one != other:
            raise ValueError(
                f"unfair comparison on task {record.manifest['task']}: {reference.path} / {record.path} differ in "
                f"{_differences(one, other)}; all methods of a task must share these: run one of them again, or narrow "
                "with --model-seed, --seeds or --methods"
            )


def narrow(records: Iterable[RunRecord], **wanted: Any) -> list[RunRecord]:
    """Keep the runs with the `wanted` alpha, estimator or segmentation (None: any).

    Strict for the methods that a setting is meant for (alpha: abc, scar; estimator and segmentation: scar). Another
    method keeps only its matching runs if it has any on that task, and all of its runs if it has none: uniform runs at
    alpha 1 stay when SCAR is narrowed to alpha 0.8.
    """
    kept = list(records)
    for key, value in wanted.items():
        if value is None:
            continue
        matching = {(r.manifest["task"], r.manifest["method"]) for r in kept if r.matches(**{key: value})}
        strict = READ_BY[key]
        kept = [
            r
            for r in kept
            if r.matches(**{key: value})
            or (r.manifest["method"] not in strict and (r.manifest["task"], r.manifest["method"]) not in matching)
        ]
    return kept


def select_cells(
    records: Iterable[RunRecord],
    *,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Cells:
    """Sort runs into (task, method, seed) cells; None means all that the records hold, for methods: all five.

    Raises ValueError if a cell holds two runs, if runs of one method and task differ in any setting but the seed, if
    scales are mixed, or if methods of a task are not comparable (`check_fairness`).
    """
    records = list(records)
    found = {record.manifest["task"] for record in records}
    tasks = list(tasks or sorted(found, key=lambda task: (TASKS.index(task) if task in TASKS else len(TASKS), task)))
    methods = list(methods or METHODS)
    seeds = sorted({record.manifest["seed"] for record in records} if seeds is None else set(seeds))
    records = [r for r in records if r.matches(task=tasks, method=methods, seed=seeds)]
    if not records:
        raise ValueError(f"no record fits tasks {tasks}, methods {methods}, seeds {seeds}")
    if len(scales := {record.manifest["scale"] for record in records}) > 1:
        raise ValueError(f"records of several scales ({', '.join(sorted(scales))}) do not share a table; choose one")
    runs: dict[tuple[str, str], dict[int, RunRecord]] = {(task, method): {} for task in tasks for method in methods}
    for record in sorted(records, key=lambda r: r.manifest["seed"]):
        cell = runs[record.manifest["task"], record.manifest["method"]]
        if cell:
            _refuse_mix(next(iter(cell.values())), record)
        if (twin := cell.setdefault(record.manifest["seed"], record)) is not record:
            raise ValueError(
                f"two records of one run (same task, method, seed and settings): {twin.path} / {record.path}; "
                "delete one of the two folders"
            )
    check_fairness(record for cell in runs.values() for record in cell.values())
    return Cells(tasks, methods, seeds, runs)


def device_kinds(records: Iterable[RunRecord]) -> str:
    """What the runs were timed on: "CPU", "GPU", "CPU and GPU", or "" for no runs."""
    kinds = {record.manifest["device"]["kind"] for record in records}
    return " and ".join(sorted({"cuda": "GPU"}.get(kind, kind.upper()) for kind in kinds))


def device_names(records: Iterable[RunRecord]) -> str:
    """What the runs were timed on, with the hardware's names: "CPU (...), GPU (...)"."""
    return ", ".join(sorted({f"{device_kinds([r])} ({r.manifest['device']['name']})" for r in records}))


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
        rows, initial, final = record.metrics, record.evaluation["initial"], record.evaluation["final"]
        if not rows or [row["update"] for row in rows] != list(range(1, len(rows) + 1)):
            raise ValueError(f"{record.path}/metrics.jsonl does not hold updates 1 to {len(rows)}; run it again")
        curve = np.array([row["reward/raw_mean"] for row in rows], dtype=np.float64)
        total = sum(row["time/total_s"] for row in rows)
        return RunNumbers(
            initial_reward=initial["reward_mean"],
            initial_bigrams=initial["distinct_bigrams_mean"],
            final_reward=final["reward_mean"],
            final_kl=final["kl_mean"],
            distinct_bigrams=final["distinct_bigrams_mean"],
            curve=curve,
            curve_area=float(curve.mean()),
            reward_queries=float(np.mean([row["credit/queries_mean"] for row in rows])),
            device_seconds=record.manifest["timing"]["device_seconds"],
            credit_share=sum(row["time/credit_s"] for row in rows) / total if total else 0.0,
        )
    except KeyError as error:
        raise ValueError(f"the record {record.path} has no {error}; run it again with this code") from error


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample std (ddof 1) over seeds; the std of one value is None, never 0, and so are both of none."""
    mean = float(np.mean(values)) if len(values) else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None
