"""Judgement records on disk: which of two runs' responses a judge preferred, item by item.

A folder holds `manifest.json` (judge, runs, order) and `verdicts.jsonl` (a row an item, from the point of view of
`method`: win, tie, loss, unparsed). Written whole or not at all, like run records.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scar.tracking.records import PARTIAL_SUFFIX, read_json, read_jsonl, write_json, write_jsonl

SCHEMA_VERSION = 1
VERDICTS = ("win", "tie", "loss", "unparsed")
ESSENTIAL = ("scale", "task", "judge", "label", "method", "baseline", "seed", "model_seed", "settings", "runs")


@dataclass(frozen=True)
class JudgementRecord:
    """One judging of one pair of runs."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Judge, label, settings, method, baseline, seed, runs, items; ValueError names the folder if it is no such record."""
        manifest = read_json(self.path / "manifest.json")
        absent = [key for key in ESSENTIAL if key not in manifest]
        if absent or manifest.get("schema_version") != SCHEMA_VERSION:
            what = f"lacks {', '.join(absent)}" if absent else f"has schema version {manifest.get('schema_version')}"
            raise ValueError(f"{self.path}/manifest.json {what}; delete that folder and judge again")
        return manifest

    @cached_property
    def verdicts(self) -> list[dict[str, Any]]:
        """One row an item; ValueError names the folder if a row has no verdict or rows are missing."""
        rows = read_jsonl(self.path / "verdicts.jsonl")
        if len(rows) != self.manifest["items"] or any(row.get("verdict") not in VERDICTS for row in rows):
            raise ValueError(
                f"{self.path}/verdicts.jsonl does not hold {self.manifest['items']} verdicts; delete that folder and judge again"
            )
        return rows


def find_judgements(root: Path, **wanted: Any) -> list[JudgementRecord]:
    """All finished judgings under `root` whose manifest has the wanted values (a list: any of these), in a stable order."""
    found = []
    for file in sorted(root.rglob("manifest.json")):
        if not any(part.endswith(PARTIAL_SUFFIX) for part in file.parent.parts):
            record = JudgementRecord(file.parent)
            values = {key: value if isinstance(value, list) else [value] for key, value in wanted.items()}
            if all(record.manifest[key] in allowed for key, allowed in values.items()):
                found.append(record)
    return found


def write_judgement(folder: Path, manifest: dict[str, Any], verdicts: Sequence[dict[str, Any]]) -> JudgementRecord:
    """Write a finished judging; `folder` exists whole afterwards or not at all."""
    partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write_jsonl(partial / "verdicts.jsonl", verdicts)
        write_json(partial / "manifest.json", {"schema_version": SCHEMA_VERSION} | manifest)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return JudgementRecord(folder)
