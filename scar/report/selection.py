"""Which runs a report rests on, where they are, and whether they may be compared: selection, fairness, narrowing."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from scar.report.frames import curves_frame, estimator_text, evaluation_noise, runs_frame
from scar.report.style import PAPER_METHODS, TASK_NAMES, in_order, look_of, tasks_in_order
from scar.tracking.records import RunRecord, find_records, unfinished_runs

FLAGS = ("alpha", "estimator", "segmentation", "device")
"""Settings of conf/tools/report.yaml that choose runs (`narrow`)."""
FOLDERS = ("units", "critic", "released", "credit", "judgements")
"""Settings of conf/tools/report.yaml that are folders, beside `records` and `results`."""
_SHARED = ("ppo", "models", "task", "data", "prompt", "generation", "scoring", "evaluation", "model_seed")
"""The settings that all methods of a task must share (Section 4.1)."""


@dataclass(frozen=True)
class Cells:
    """The runs behind a table, sorted by task, method and seed, and what was asked for (`tasks`, `methods`, `seeds`).

    `left_out` says of each run of other settings, which the table does not take, where it is and how it differs.
    """

    tasks: list[str]
    methods: list[str]
    seeds: list[int]
    records: list[RunRecord]
    left_out: list[str] = field(default_factory=list)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per run (`runs_frame`)."""
        return runs_frame(self.records)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row per run and update (`curves_frame`)."""
        return curves_frame(self.records)

    def of(self, task: str, method: str) -> dict[int, RunRecord]:
        """The runs of one cell by seed."""
        return {r.manifest["seed"]: r for r in self.records if r.matches(task=task, method=method)}

    def numbers(self, task: str, method: str, name: str) -> dict[int, float]:
        """One column of `runs` for every seed of a cell."""
        if not self.records:
            return {}
        cell = self.runs[(self.runs["task"] == task) & (self.runs["method"] == method)]
        return dict(zip(cell["seed"], cell[name], strict=True))

    def noise(self, task: str, method: str, other: str | None = None) -> float | None:
        """`evaluation_noise` of a cell, or of its difference from another."""
        return evaluation_noise(self.of(task, method), self.of(task, other) if other else None)

    def missing(self) -> dict[tuple[str, str], list[int]]:
        """The seeds that were asked for and have no run, by (task, method)."""
        cells = {(task, method): self.of(task, method) for task in self.tasks for method in self.methods}
        gaps = {cell: [seed for seed in self.seeds if seed not in runs] for cell, runs in cells.items()}
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
    return estimator_text(value) if key == "estimator" else value


def settings(record: RunRecord) -> dict[str, Any]:
    """The settings of a run by flat names, without the seed and what does not change its numbers."""
    flat = _flat({key: value for key, value in record.manifest["settings"].items() if key not in ("seed", *FLAGS)})
    return flat | {key: setting(record, key) for key in ("scale", "model_seed", *FLAGS)}


def _shared_settings(record: RunRecord, but: Sequence[str]) -> dict[str, Any]:
    flat = _flat({name: record.manifest["settings"][name] for name in _SHARED})
    return {key: value for key, value in flat.items() if key not in but}


def _differences(first: dict[str, Any], second: dict[str, Any]) -> str:
    absent = "(absent)"
    keys = sorted(k for k in first.keys() | second.keys() if first.get(k, absent) != second.get(k, absent))
    shown = [f"{key}: {first.get(key, absent)} / {second.get(key, absent)}" for key in keys[:8]]
    return "; ".join(shown + ([f"and {len(keys) - 8} more"] if len(keys) > 8 else []))


def own_runs(records: Iterable[RunRecord], experiment: str) -> tuple[list[RunRecord], list[str]]:
    """Of the runs of each task and method those of one choice of settings, and of each other run a text that says where it is
    and how it differs.

    Chosen are the settings with which `experiment` was run (a run says so in its manifest), else those with the most seeds.
    Raises ValueError where that leaves a choice: two settings are neither averaged nor preferred.
    """
    cells: dict[tuple[str, str], dict[str, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        cells[record.manifest["task"], record.manifest["method"]][str(settings(record))].append(record)
    own, left_out = [], []
    for groups in cells.values():
        first, *others = sorted(groups.values(), key=lambda group: _claim(group, experiment), reverse=True)
        if others and _claim(others[0], experiment) == _claim(first, experiment):
            _refuse_mix(first[0], others[0][0])
        own += first
        for record in (record for group in others for record in group):
            left_out.append(f"{record.path} ({_differences(settings(record), settings(first[0]))})")
    return own, left_out


def _claim(runs: Sequence[RunRecord], experiment: str) -> tuple[bool, int]:
    """How good a claim runs of one setting have to be those of `experiment`: made for it, then how many seeds."""
    made_for_it = any(record.manifest.get("experiment") == experiment for record in runs)
    return made_for_it, len({record.manifest["seed"] for record in runs})


def _refuse_mix(first: RunRecord, second: RunRecord) -> None:
    """Raise because two runs of one method and task differ in their settings."""
    sides = settings(first), settings(second)
    flags = [
        " or ".join(f"{key}={shlex.quote(str(side[key]))}" for side in sides)
        for key in ("model_seed", *FLAGS)
        if sides[0][key] != sides[1][key]
    ]
    todo = f"narrow with {', or '.join(flags)}" if flags else "no flag tells them apart: move one of the folders away"
    raise ValueError(
        f"runs of task {first.manifest['task']}, method {first.manifest['method']} have different settings and are not "
        f"averaged: {first.path} / {second.path} differ in {_differences(*sides)}; {todo}"
    )


def check_fairness(records: Iterable[RunRecord], *, but: Sequence[str] = ()) -> None:
    """Raise ValueError unless all runs of each task share what the comparison of methods rests on (Section 4.1).

    That is all settings but those of the credit method (scar/identity.py): PPO, models, data, prompts, sampling, scoring,
    evaluation. `but` names those in which runs may differ all the same, as "ppo.kl_scale".
    """
    first: dict[str, RunRecord] = {}
    for record in records:
        reference = first.setdefault(record.manifest["task"], record)
        sides = _shared_settings(reference, but), _shared_settings(record, but)
        if sides[0] != sides[1]:
            raise ValueError(
                f"unfair comparison on task {record.manifest['task']}: {reference.path} / {record.path} differ in "
                f"{_differences(*sides)}; all methods of a task must share these: run one of them again, or narrow "
                "with model_seed=, seeds= or methods="
            )


def check_scale(records: Iterable[RunRecord]) -> None:
    """Raise ValueError if runs are of several scales."""
    if len(scales := {record.manifest["scale"] for record in records}) > 1:
        raise ValueError(f"records of several scales ({', '.join(sorted(scales))}) do not share a table; choose one")


def narrow(records: Iterable[RunRecord], **wanted: Any) -> list[RunRecord]:
    """Keep the runs with the `wanted` alpha, estimator, segmentation or device (None: any).

    An estimator is wanted by its name, or with its budget as `setting` writes it. A method that has no such setting (no units;
    an alpha that is part of what it is) keeps its matching runs if it has any on that task, and all of its runs if it has
    none: uniform runs at alpha 1 stay when SCAR is narrowed to alpha 0.8.
    """
    kept = list(records)
    for key, value in wanted.items():
        if value is None:
            continue
        fits = [r for r in kept if setting(r, key) == value or str(setting(r, key)).startswith(f"{value}(")]
        settled = {(r.manifest["task"], r.manifest["method"]) for r in fits}
        kept = [
            r
            for r in kept
            if r in fits or (not _has(r, key) and (r.manifest["task"], r.manifest["method"]) not in settled)
        ]
    return kept


def _has(record: RunRecord, key: str) -> bool:
    """Whether a flag of reports is a choice for the method of a run."""
    if key == "alpha":
        return not look_of(record.manifest["method"]).fixed_alpha
    return key == "device" or record.manifest[key] is not None


def select_cells(
    records: Iterable[RunRecord],
    *,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    experiment: str = "table1",
) -> Cells:
    """Sort runs into (task, method, seed) cells; None means all that the records hold, for methods the paper's too.

    Runs of other settings than those of `experiment` are left out and named (`own_runs`). Raises ValueError if that leaves a
    choice, if a cell holds two runs of a seed, if scales are mixed, or if methods of a task are not comparable
    (`check_fairness`).
    """
    records = list(records)
    tasks = list(tasks or tasks_in_order(record.manifest["task"] for record in records))
    methods = list(methods or in_order([*PAPER_METHODS, *(record.manifest["method"] for record in records)]))
    seeds = sorted({record.manifest["seed"] for record in records} if seeds is None else set(seeds))
    records = [r for r in records if r.matches(task=tasks, method=methods, seed=seeds)]
    if not records:
        raise ValueError(f"no record fits tasks {tasks}, methods {methods}, seeds {seeds}")
    check_scale(records)
    records, left_out = own_runs(records, experiment)
    order = {(task, method): n for n, (task, method) in enumerate((t, m) for t in tasks for m in methods)}
    records.sort(key=lambda r: (order[r.manifest["task"], r.manifest["method"]], r.manifest["seed"]))
    first: dict[tuple[str, str, int], RunRecord] = {}
    for record in records:
        twin = first.setdefault((record.manifest["task"], record.manifest["method"], record.manifest["seed"]), record)
        if twin is not record:
            raise ValueError(
                f"two records of one run (same task, method, seed and settings): {twin.path} / {record.path}; "
                "delete one of the two folders"
            )
    check_fairness(records)
    return Cells(tasks, methods, seeds, records, left_out)


# What a report is asked for: which folders, which runs in them, and how they are read.


class NoRunError(ValueError):
    """Nothing has run that fits what was asked for."""


@dataclass(frozen=True)
class Sources:
    """Folders (`records`: Table 1's runs; `units`, `critic`, `released`: runs of other units, of another value function, of
    what the authors released; `credit`, `judgements`) and the runs wanted of them: one `scale`, and where not None only these
    tasks, methods, seeds, ..."""

    scale: str
    records: Path = Path("runs")
    units: Path = Path("sweeps/units")
    critic: Path = Path("sweeps/ablation_value_net")
    released: Path = Path("sweeps/released")
    credit: Path = Path("credit")
    judgements: Path = Path("judgements")
    tasks: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    seeds: Sequence[int] = (1, 2, 3, 4, 5)
    model_seed: int | None = None
    judge: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def runs(self, *folders: Path, **wanted: Any) -> list[RunRecord]:
        """The runs of `folders` (default: `records`); NoRunError if there is none, with how to make them."""
        filters: dict[str, Any] = {"task": self.tasks, "method": self.methods, "seed": list(self.seeds)}
        filters |= {"model_seed": self.model_seed} | wanted
        filters = {"scale": self.scale} | {key: value for key, value in filters.items() if value is not None}
        roots = folders or (self.records,)
        records = narrow((r for root in roots for r in find_records(root, **filters)), **self.settings)
        if not records:
            shown = ", ".join(f"{k}={v}" for k, v in (filters | self.settings).items() if v is not None)
            where = " or ".join(str(root) for root in roots)
            raise NoRunError(f"no run in {where} has {shown}; make reproduce-table1 SCALE={self.scale} makes them")
        return records

    def cells(self) -> Cells:
        """Table 1's runs, sorted (`select_cells`)."""
        return select_cells(self.runs(), tasks=self.tasks, methods=self.methods, seeds=self.seeds)

    def no_cells(self) -> Cells:
        """What was asked for, without any run."""
        return Cells(list(self.tasks or TASK_NAMES), list(self.methods or PAPER_METHODS), list(self.seeds), [])

    def of_task(self, task: str) -> Sources:
        """The same for one task, which must be among those asked for."""
        if self.tasks is not None and task not in self.tasks:
            raise NoRunError(f"this is of task {task}, which was left out: tasks=[{','.join(self.tasks)}]")
        return replace(self, tasks=[task])

    def unfinished(self) -> list[Path]:
        """Runs of the scale that were stopped or are still being written."""
        return [path for path in unfinished_runs(self.records) if self.scale in path.parts]
