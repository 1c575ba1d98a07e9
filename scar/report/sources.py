"""What a report is asked for: which folders, which runs in them, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scar.report.selection import METHODS, Cells, narrow, select_cells
from scar.tracking.records import RunRecord, find_records, unfinished_runs


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
