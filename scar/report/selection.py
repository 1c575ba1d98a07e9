"""Which runs a report rests on, where they are, and whether they may be compared: selection, fairness, narrowing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scar.tracking.records import RunRecord, find_records, unfinished_runs

TASKS = ("imdb", "tldr", "hh")
METHODS = ("sparse", "uniform", "abc", "scar", "prefix")
READ_BY = {"alpha": ("abc", "scar"), "estimator": ("scar",), "segmentation": ("scar",), "device": METHODS}
"""The settings that tell runs of one method apart, and the methods that they are meant for (see `narrow`)."""

_SHARED = ("ppo", "models", "task", "data", "prompt", "generation", "scoring", "evaluation", "model_seed")
"""The settings that all methods of a task must share (Section 4.1)."""


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


def setting(record: RunRecord, key: str) -> Any:
    """A manifest value as the flags name it: a device by its kind, an estimator as `permutation(permutations=2)`."""
    value = record.manifest[key]
    if key == "device":
        return value["kind"]
    if key == "estimator" and isinstance(value, Mapping):
        return f"{value['name']}({', '.join(f'{k}={v}' for k, v in value.items() if k != 'name')})".removesuffix("()")
    return value


def settings(record: RunRecord) -> dict[str, Any]:
    """The settings of a run by flat names, without the seed and what does not change its numbers."""
    flat = _flat({key: value for key, value in record.manifest["settings"].items() if key not in ("seed", *READ_BY)})
    return flat | {key: setting(record, key) for key in ("scale", "model_seed", *READ_BY)}


def _shared_settings(record: RunRecord) -> dict[str, Any]:
    return _flat({name: record.manifest["settings"][name] for name in _SHARED})


def _differences(first: dict[str, Any], second: dict[str, Any]) -> str:
    absent = "(absent)"
    keys = sorted(k for k in first.keys() | second.keys() if first.get(k, absent) != second.get(k, absent))
    shown = [f"{key}: {first.get(key, absent)} / {second.get(key, absent)}" for key in keys[:8]]
    return "; ".join(shown + ([f"and {len(keys) - 8} more"] if len(keys) > 8 else []))


def _refuse_mix(first: RunRecord, second: RunRecord) -> None:
    """Raise if two runs of one method and task differ in their settings."""
    one, other = settings(first), settings(second)
    if one == other:
        return
    flags = [
        " or ".join(f"{key}={shlex.quote(str(side[key]))}" for side in (one, other))
        for key in ("model_seed", *READ_BY)
        if one[key] != other[key]
    ]
    todo = f"narrow with {', or '.join(flags)}" if flags else "no flag tells them apart: move one of the folders away"
    raise ValueError(
        f"runs of task {first.manifest['task']}, method {first.manifest['method']} have different settings and are not "
        f"averaged: {first.path} / {second.path} differ in {_differences(one, other)}; {todo}"
    )


def check_fairness(records: Iterable[RunRecord]) -> None:
    """Raise ValueError unless all runs of each task share what the comparison of methods rests on (Section 4.1).

    That is all settings but those of the credit method (scar/identity.py): PPO, models, data, prompts, sampling, scoring,
    evaluation.
    """
    first: dict[str, RunRecord] = {}
    for record in records:
        reference = first.setdefault(record.manifest["task"], record)
        one, other = _shared_settings(reference), _shared_settings(record)
        if one != other:
            raise ValueError(
                f"unfair comparison on task {record.manifest['task']}: {reference.path} / {record.path} differ in "
                f"{_differences(one, other)}; all methods of a task must share these: run one of them again, or narrow "
                "with model_seed=, seeds= or methods="
            )


def narrow(records: Iterable[RunRecord], **wanted: Any) -> list[RunRecord]:
    """Keep the runs with the `wanted` alpha, estimator, segmentation or device (None: any).

    An estimator is wanted by its name, or with its budget as `setting` writes it. Strict for the methods that a setting
    is meant for (`READ_BY`). Another method keeps only its matching runs if it has any on that task, and all of its
    runs if it has none: uniform runs at alpha 1 stay when SCAR is narrowed to alpha 0.8.
    """
    kept = list(records)
    for key, value in wanted.items():
        if value is None:
            continue
        fits = [r for r in kept if setting(r, key) == value or str(setting(r, key)).startswith(f"{value}(")]
        settled = {(r.manifest["task"], r.manifest["method"]) for r in fits}
        lenient = [r for r in kept if r.manifest["method"] not in READ_BY[key]]
        kept = [
            r for r in kept if r in fits or (r in lenient and (r.manifest["task"], r.manifest["method"]) not in settled)
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


def device_kind(record: RunRecord) -> str:
    """ "CPU" or "GPU": what the run's seconds were measured on. CPU time is never called GPU time."""
    kind = record.manifest["device"]["kind"]
    return "GPU" if kind == "cuda" else kind.upper()


def device_names(records: Iterable[RunRecord]) -> str:
    """What the runs were timed on, with the hardware's names: "CPU (...), GPU (...)"."""
    return ", ".join(sorted({f"{device_kind(r)} ({r.manifest['device']['name']})" for r in records}))


# What a report is asked for: which folders, which runs in them, and how they are read.


class NoRunError(ValueError):
    """Nothing has run that fits what was asked for."""


@dataclass(frozen=True)
class Sources:
    """Folders (`records`: Table 1's runs; `units`, `critic`: runs of other units and of another value function; `credit`,
    `judgements`) and the runs wanted of them: one `scale`, and where not None only these tasks, methods, seeds, ..."""

    scale: str
    records: Path = Path("runs")
    units: Path = Path("sweeps/units")
    critic: Path = Path("sweeps/ablation_value_net")
    credit: Path = Path("credit")
    judgements: Path = Path("judgements")
    tasks: Sequence[str] | None = None
    methods: Sequence[str] = METHODS
    seeds: Sequence[int] = (1, 2, 3, 4, 5)
    model_seed: int | None = None
    judge: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def runs(self, *folders: Path, **wanted: Any) -> list[RunRecord]:
        """The runs of `folders` (default: `records`); NoRunError if there is none, with how to make them."""
        asked = {"task": self.tasks, "method": list(self.methods), "seed": list(self.seeds)}
        asked |= {"model_seed": self.model_seed} | wanted
        asked = {"scale": self.scale} | {key: value for key, value in asked.items() if value is not None}
        roots = folders or (self.records,)
        found = narrow((r for root in roots for r in find_records(root, **asked)), **self.settings)
        if not found:
            shown = ", ".join(f"{k}={v}" for k, v in (asked | self.settings).items() if v is not None)
            where = " or ".join(str(root) for root in roots)
            raise NoRunError(f"no run in {where} has {shown}; make reproduce-table1 SCALE={self.scale} makes them")
        return found

    def cells(self) -> Cells:
        """Table 1's runs, sorted (`select_cells`)."""
        return select_cells(self.runs(), tasks=self.tasks, methods=self.methods, seeds=self.seeds)

    def of_task(self, task: str) -> Sources:
        """The same for one task, which must be among those asked for."""
        if self.tasks is not None and task not in self.tasks:
            raise NoRunError(f"this is of task {task}, which was left out: tasks={','.join(self.tasks)}")
        return replace(self, tasks=[task])

    def unfinished(self) -> list[Path]:
        """Runs of the scale that were stopped or are still being written."""
        return [path for path in unfinished_runs(self.records) if self.scale in path.parts]
