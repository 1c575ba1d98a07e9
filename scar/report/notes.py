"""What a reader must know of a task beside its numbers: which preferences its reward model learned, and what a task's rule
for responses without EOS does to the score."""

from __future__ import annotations

from typing import Any

from scar.report.selection import Cells
from scar.report.summary import mean_std
from scar.tracking.records import RunRecord


def task_notes(cells: Cells, task: str, names: dict[str, str]) -> list[str]:
    """Sentences for the block of `task`; `names` are the methods' names as shown."""
    runs = {method: list(cells.runs[task, method].values()) for method in cells.methods}
    records = [record for found in runs.values() for record in found]
    if not records:
        return []
    return _preferences(records[0]) + _rule(runs, names)


def _preferences(record: RunRecord) -> list[str]:
    """How the reward model's preferences came about, and how it does on held-out pairs beside length alone."""
    report = record.manifest["models"]["reward"].get("report", {})
    if "preferences" not in report:
        return []
    low, high = report["accuracy_interval"]
    length = report["accuracy_by_length"]
    kind = report["preferences"]
    origin = f"{kind} preferences, not on people's" if kind == "constructed" else f"{kind} preferences"
    blanked = report.get("accuracy_half_blanked")  # only models that are trained on blanked texts are tested on them
    sentence = (
        f"Rewards are those of a model trained on {origin}: it is right on "
        f"{report['accuracy']:.2f} of held-out pairs (95 % interval {low:.2f} to {high:.2f}"
        f"{'' if blanked is None else f'; with half of both texts blanked {blanked:.2f}'}); the longer text is the better one "
        f"in {length['longer']:.2f}, the shorter in {length['shorter']:.2f} of them"
    )
    if "ranked_accuracy" in report:
        low, high = report["ranked_accuracy_interval"]
        sentence += (
            f"; on {report['ranked_pairs']} held-out machine-ranked pairs it is right on {report['ranked_accuracy']:.2f} "
            f"({low:.2f} to {high:.2f})"
        )
    return [sentence + "."]


def _rule(runs: dict[str, list[RunRecord]], names: dict[str, str]) -> list[str]:
    """Mean test score after the rule, and the share of responses that end with EOS, where the task has a rule."""
    first = next(record for found in runs.values() for record in found)
    value = first.manifest["settings"]["scoring"].get("missing_eos_score")
    if value is None:
        return []
    parts = []
    for method, found in runs.items():
        if found:
            final: list[dict[str, Any]] = [record.evaluation["final"] for record in found]
            score, _ = mean_std([one["score_mean"] for one in final])
            share, _ = mean_std([one["eos_frac"] for one in final])
            parts.append(f"{names[method]} {score:z.2f} ({share:.0%})")
    return [
        f"The rewards above are raw scores. In training a response without EOS scores {value:g}; test scores after that rule, "
        f"and the share that ends with EOS: {', '.join(parts)}."
    ]
