"""Judgement records on disk: which of two runs' responses a judge preferred, item by item.

A folder holds `manifest.json` (judge, runs, order) and `verdicts.jsonl` (one row per item, from the point of view of
`method`: win, tie, loss, unparsed). Written whole or not at all, like run records.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from scar.files import atomic_folder
from scar.tracking.records import Record, read_jsonl, write_json, write_jsonl

SCHEMA_VERSION = 1
VERDICTS = ("win", "tie", "loss", "unparsed")
ESSENTIAL = ("scale", "task", "judge", "label", "method", "baseline", "seed", "model_seed", "settings", "runs")


class JudgementRecord(Record):
    """One judging of one pair of runs. `manifest` keys: schema_version, judge, label, settings, method, baseline, seed, runs,
    items, order_seed, both_orders."""

    KIND, VERSION, ESSENTIAL, AGAIN = "judgement", SCHEMA_VERSION, ESSENTIAL, "judge again"

    @cached_property
    def verdicts(self) -> list[dict[str, Any]]:
        """One row per item; ValueError names the folder if a row has no verdict or rows are missing."""
        rows = read_jsonl(self.path / "verdicts.jsonl")
        if len(rows) != self.manifest["items"] or any(row.get("verdict") not in VERDICTS for row in rows):
            raise ValueError(
                f"{self.path}/verdicts.jsonl does not hold {self.manifest['items']} verdicts; delete that folder and judge again"
            )
        return rows


find_judgements = JudgementRecord.find


def write_judgement(folder: Path, manifest: dict[str, Any], verdicts: Sequence[dict[str, Any]]) -> JudgementRecord:
    """Write a finished judging; `folder` exists whole afterwards or not at all."""
    with atomic_folder(folder) as partial:
        write_jsonl(partial / "verdicts.jsonl", verdicts)
        write_json(partial / "manifest.json", {"schema_version": SCHEMA_VERSION} | manifest)
    return JudgementRecord(folder)
