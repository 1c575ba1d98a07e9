"""Run records out of W&B: from offline files (`wandb-offline:PATH`) and from a project (`wandb:ENTITY/PROJECT`).

A record that comes back equals the one that was written when the run ended. Every record says in `imported.json` which
W&B run it is of, so an import that was interrupted goes on where it stopped, and a second one reads what is new.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from scar.tracking.bars import progress_bar
from scar.tracking.records import SCHEMA_VERSION, RunRecord, RunWriter, record_folder
from scar.tracking.wandb_runs import offline_runs, project_runs, rows_of_history

ORIGIN_FILE = "imported.json"
UNFINISHED, FOREIGN = "not finished", "without a record that this version of the code reads"


class StoredRun(Protocol):
    """A run that W&B keeps (`OfflineRun`, `ProjectRun`)."""

    name: str
    not_whole: str

    def version(self) -> str | None:
        """Changes when the run's record does; None if the run has no record of ours."""
        ...

    @property
    def finished(self) -> bool:
        """Whether it ended well."""
        ...

    def record(self) -> str:
        """The text of the run's record file."""
        ...

    def history(self) -> list[dict[str, Any]]:
        """The rows as W&B has them."""
        ...


def records_from_offline(path: Path, into: Path) -> list[Path]:
    """Import a .wandb file or all W&B runs below a folder; the folders of their records under `into`.

    ValueError names a run whose files are damaged.
    """
    return _import_all(offline_runs(path), into, title=str(path))


def records_from_project(project: str, into: Path, *, api: Any = None) -> list[Path]:
    """Import all runs of ENTITY/PROJECT; the folders of their records under `into`. `api`: a `wandb.Api`.

    ConnectionError without account, network or such a project; ValueError names a run that W&B does not give as a whole.
    """
    return _import_all(project_runs(project, api), into, title=f"W&B {project}")


def _import_all(runs: Sequence[StoredRun], into: Path, *, title: str) -> list[Path]:
    known = _known(into)
    folders: list[Path] = []
    left_out: Counter[str] = Counter()
    with progress_bar() as progress:
        for run in progress.track(runs, task_id=progress.add_task("import", total=len(runs), rate="", note=title)):
            found = known.get((run.name, run.version())) or _import_one(run, into)
            if isinstance(found, Path):
                folders.append(found)
            else:
                left_out[found] += 1
        if left_out:
            shown = ", ".join(f"{count} {why}" for why, count in sorted(left_out.items()))
            progress.say(f"{title}: left out of {len(runs)} runs: {shown}")
    return list(dict.fromkeys(folders))  # runs of the same settings share a record


def _known(into: Path) -> dict[tuple[str, str | None], Path]:
    """The folder of each W&B run and version that was imported before."""
    origins = {file.parent: json.loads(file.read_text(encoding="utf-8")) for file in into.rglob(ORIGIN_FILE)}
    return {(origin["run"], origin["version"]): folder for folder, origin in origins.items()}


def _import_one(run: StoredRun, into: Path) -> Path | str:
    """Write the record of one run; its folder, or why it is left out."""
    if run.version() is None:
        return FOREIGN if run.finished else UNFINISHED
    record = _read_record(run)
    manifest = record.get("manifest", {})
    if manifest.get("schema_version") not in (1, SCHEMA_VERSION):  # the records say how a 1 is read
        return FOREIGN
    folder = record_folder(into, manifest)
    if not folder.resolve().is_relative_to(into.resolve()):
        raise ValueError(f"{run.name} names a folder outside of {into} in its manifest ({folder}); delete that run")
    if folder.exists() and RunRecord(folder).manifest["finished"] >= manifest["finished"]:
        return folder  # this very run, or one of the same settings that ended later
    if not run.finished:
        return UNFINISHED
    rows = rows_of_history(run.history(), record["integers"])
    if len(rows) != record["rows"]:
        raise ValueError(f"{run.name}: {len(rows)} of {record['rows']} rows came back; {run.not_whole}")
    _write(folder, rows, record, {"run": run.name, "version": run.version()})
    return folder


def _read_record(run: StoredRun) -> dict[str, Any]:
    try:
        return json.loads(run.record())
    except json.JSONDecodeError as error:
        raise ValueError(f"{run.name}: its record is not JSON ({error}); {run.not_whole}") from error


def _write(folder: Path, rows: list[dict[str, Any]], record: dict[str, Any], origin: dict[str, Any]) -> None:
    writer = RunWriter(folder)
    try:
        for row in rows:
            writer.append(row)
        writer.write("evaluation.json", record["evaluation"])
        writer.write("samples.jsonl", record["samples"])
        writer.write(ORIGIN_FILE, origin)
        writer.write("manifest.json", record["manifest"])
    except BaseException:  # Ctrl-C leaves nothing half-written either
        writer.discard()
        raise
    writer.commit()
