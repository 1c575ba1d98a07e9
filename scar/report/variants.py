"""Kinds of credit that a figure compares: a method, and for SCAR its units; their runs, and what they may be compared in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scar.report.selection import check_fairness, device_names, narrow, select_cells
from scar.report.style import NOT_IN_PAPER_DASHES, UNIT_DASHES, method_colour
from scar.report.tables import comparability, method_name
from scar.tracking.records import RunRecord


@dataclass(frozen=True)
class Variant:
    """A method, and for SCAR its units ("token", "span" or "sentence")."""

    method: str
    units: str | None = None

    @property
    def name(self) -> str:
        """As shown: "SCAR, span units"."""
        return method_name(self.method) + (f", {self.units} units" if self.units else "")

    @property
    def line(self) -> dict[str, Any]:
        """Colour, dashes and width of its line."""
        dashes = UNIT_DASHES[self.units] if self.units else "-"
        if method_name(self.method).endswith("(not in the paper)"):
            dashes = (0, NOT_IN_PAPER_DASHES)
        width = 1.5 if self.method == "scar" else 1.1
        return {"color": method_colour(self.method, ()), "linestyle": dashes, "linewidth": width, "label": self.name}


@dataclass(frozen=True)
class Variants:
    """The runs of one task by variant and seed, `seeds` as asked for, `missing` variants that have no run at all."""

    task: str
    seeds: list[int]
    runs: dict[Variant, dict[int, RunRecord]]

    @property
    def missing(self) -> list[str]:
        """Names of the variants without any run."""
        return [variant.name for variant, runs in self.runs.items() if not runs]

    @property
    def records(self) -> list[RunRecord]:
        """All runs."""
        return [record for runs in self.runs.values() for record in runs.values()]

    def count(self, variant: Variant) -> str:
        """How many seeds a variant has: "n=5", "n=3/5"."""
        have = len(self.runs[variant])
        return f"n={have}" if have == len(self.seeds) else f"n={have}/{len(self.seeds)}"

    def caption(self) -> str:
        """Scale, seeds and devices, and what the numbers may be compared with."""
        scale = self.records[0].manifest["scale"]
        note = "" if scale == "paper" else f"; {comparability(scale)}"
        seeds = ", ".join(map(str, self.seeds))
        return f"scale {scale}, seed{'s' if len(self.seeds) > 1 else ''} {seeds}, {device_names(self.records)}{note}"


def select_variants(
    records: Iterable[RunRecord], task: str, variants: Sequence[Variant], *, seeds: Sequence[int]
) -> Variants:
    """The runs of each variant on `task`.

    Raises ValueError where none has a run, where runs of one variant differ in more than the seed, or where the variants
    do not share what a comparison rests on (`check_fairness`).
    """
    records = [record for record in records if record.matches(task=task, seed=list(seeds))]
    found: dict[Variant, dict[int, RunRecord]] = {}
    for variant in variants:
        own = narrow([r for r in records if r.matches(method=variant.method)], segmentation=variant.units)
        runs = select_cells(own, methods=[variant.method]).runs if own else {}
        found[variant] = runs.get((task, variant.method), {})
    chosen = Variants(task, sorted(seeds), found)
    if not chosen.records:
        raise ValueError(f"no run of task {task} with seed {', '.join(map(str, seeds))} among the records")
    if len(scales := {record.manifest["scale"] for record in chosen.records}) > 1:
        raise ValueError(f"records of several scales ({', '.join(sorted(scales))}) do not share a figure; choose one")
    check_fairness(chosen.records)
    return chosen
