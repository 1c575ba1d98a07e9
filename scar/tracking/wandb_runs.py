"""Runs as W&B keeps them: sending one, and reading it back from a project (`wandb:ENTITY/PROJECT`). All of W&B is here.

A run's rows go into W&B's history, where W&B draws them. Its whole record goes beside them as one file of the W&B run. It is no
artifact: an offline run keeps only the path of an artifact's copy outside of the run's folder, so a run that is moved loses it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from scar.tracking.records import SCHEMA_VERSION, RunRecord, RunWriter, record_folder, write_json
from scar.tracking.trackers import progress_bar

RECORD_FILE = "scar_record.json"


class WandbTracker:
    """The same rows under the same names in W&B. `mode` "offline" writes under the run's folder and needs no account."""

    def __init__(
        self, *, mode: Literal["offline", "online"], project: str, folder: Path, name: str, config: dict[str, Any]
    ) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self._folder = folder
        settings = wandb.Settings(console="off", init_timeout=30, x_disable_stats=True, disable_git=True)
        try:
            self._run = wandb.init(
                mode=mode,
                project=project,
                dir=str(folder),
                name=name,
                config=config,
                settings=settings,
            )
        except (wandb.errors.UsageError, wandb.errors.CommError) as error:
            raise ConnectionError(
                f"W&B cannot start in mode {mode} ({str(error).splitlines()[0]}); run `wandb login`, or use tracker.mode=offline"
            ) from error

    def log(self, row: dict[str, Any]) -> None:
        """Log the row at its update."""
        self._run.log(row, step=row["update"])

    def resume(self, rows: Sequence[dict[str, Any]]) -> None:
        """Log them again: this W&B run is to be whole, and the one of the run that was stopped stays as it ended."""
        for row in rows:
            self.log(row)

    def finish(self, status: str) -> None:
        """Send the rest of a finished run's record, and close the W&B run; any error of that is a ConnectionError."""
        exit_code = 1
        try:
            try:
                if status == "finished":
                    self._send_record(RunRecord(self._folder))
                    exit_code = 0
            finally:
                self._run.finish(exit_code=exit_code)
        except Exception as error:  # W&B raises many kinds: of its own, of the network's, plain ones
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConnectionError(f"W&B did not get the end of the run ({reason})") from error

    def _send_record(self, record: RunRecord) -> None:
        """The file, and the evaluation's numbers (`final/reward_mean`, ...) for the table of the project's page."""
        contents = record_contents(record)
        for when in ("initial", "final"):
            self._run.summary.update({f"{when}/{key}": value for key, value in record.evaluation[when].items()})
        # Into W&B's own folder: of files elsewhere it keeps absolute links, which break when the run is committed.
        path = Path(self._run.dir) / RECORD_FILE
        write_json(path, contents)
        self._run.save(str(path), base_path=self._run.dir, policy="now")


def record_contents(record: RunRecord) -> dict[str, Any]:
    """What the record file holds."""
    return {name: getattr(record, name) for name in ("manifest", "evaluation", "samples", "metrics")}


class ProjectRun:
    """A run on a W&B server (`wandb.apis.public.Run`); `name` is ENTITY/PROJECT/ID."""

    def __init__(self, run: Any) -> None:
        self.name = "/".join(run.path)
        self._run = run

    @cached_property
    def _file(self) -> Any:
        """The run's record file; None if it has none, of which W&B speaks as of an empty file."""
        with reading(self.name):
            return next((file for file in self._run.files(names=[RECORD_FILE]) if file.size > 0), None)

    def version(self) -> str | None:
        """Changes when the run's record does; None if the run has no record of this code."""
        return None if self._file is None else f"{self._file.size} {self._file.md5}"

    @property
    def finished(self) -> bool:
        """Whether it ended well."""
        return self._run.state == "finished"

    def record(self) -> dict[str, Any]:
        """What `record_contents` gave. ValueError if W&B does not give it whole."""
        with tempfile.TemporaryDirectory() as folder, reading(self.name):
            self._file.download(root=folder, replace=True).close()
            text = (Path(folder) / RECORD_FILE).read_text(encoding="utf-8")
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.name}: its record is not JSON ({error}); {NOT_WHOLE}") from error

    def history(self, rows: int, integers: Iterable[str]) -> list[dict[str, Any]]:
        """The rows of a run whose record is without: it sent them in its history alone, where W&B adds keys of its own and
        keeps 2.0 as 2; `integers` are the keys of whole numbers. ValueError if there are not `rows` of them."""
        with reading(self.name):
            items = list(self._run.scan_history(use_cache=False))  # a cache may be older than the run's last rows
        if len(items) != rows:
            raise ValueError(f"{self.name}: {len(items)} of {rows} rows came back; {NOT_WHOLE}")
        kinds = dict.fromkeys(integers, int)
        return [
            {k: kinds.get(k, float)(v) for k, v in item.items() if not k.startswith("_") and v is not None}
            for item in items
        ]


def project_runs(project: str, api: Any = None) -> list[ProjectRun]:
    """All runs of ENTITY/PROJECT, oldest first; `api`: a `wandb.Api`."""
    with reading(project):
        return [ProjectRun(run) for run in (_connect() if api is None else api).runs(project, order="+created_at")]


def _connect() -> Any:
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb.Api()


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Inside, any error is one of W&B, which raises many kinds: of its own, of the network's, plain ones."""
    try:
        yield
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConnectionError(
            f"W&B does not give {what} ({reason}); look at the name and the network, or run `wandb login`"
        ) from error


# Run records out of W&B.
#
# A record that comes back equals the one that was written when the run ended. Every record says in `imported.json` which
# W&B run it is of, so an import that was interrupted goes on where it stopped, and a second one reads what is new.


ORIGIN_FILE = "imported.json"
UNFINISHED, FOREIGN = "not finished", "without a record that this version of the code reads"
NOT_WHOLE = "W&B may still be working on it: try again in a few minutes; if that does not help, delete the run there"


def records_from_project(project: str, into: Path, *, api: Any = None) -> list[Path]:
    """Import all runs of ENTITY/PROJECT; the folders of their records under `into`. `api`: a `wandb.Api`.

    ConnectionError without account, network or such a project; ValueError names a run that W&B does not give as a whole.
    """
    runs, title = project_runs(project, api), f"W&B {project}"
    known = _known(into)
    folders: list[Path] = []
    left_out: Counter[str] = Counter()
    with progress_bar() as progress:
        for run in progress.track(runs, task_id=progress.add_task("import", total=len(runs), rate="", note=title)):
            result = known.get((run.name, run.version())) or _import_run(run, into)
            if isinstance(result, Path):
                folders.append(result)
            else:
                left_out[result] += 1
        if left_out:
            shown = ", ".join(f"{count} {why}" for why, count in sorted(left_out.items()))
            progress.say(f"{title}: left out of {len(runs)} runs: {shown}")
    return list(dict.fromkeys(folders))  # runs of the same settings share a record


def _known(into: Path) -> dict[tuple[str, str | None], Path]:
    """The folder of each W&B run and version that was imported before."""
    origins = {file.parent: json.loads(file.read_text(encoding="utf-8")) for file in into.rglob(ORIGIN_FILE)}
    return {(origin["run"], origin["version"]): folder for folder, origin in origins.items()}


def _import_run(run: ProjectRun, into: Path) -> Path | str:
    """Write the record of one run; its folder, or why it is left out."""
    if run.version() is None:
        return FOREIGN if run.finished else UNFINISHED
    record = run.record()
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
    rows = record["metrics"] if "metrics" in record else run.history(record["rows"], record["integers"])
    writer = RunWriter(folder)
    try:
        for row in rows:
            writer.append(row)
        writer.write("evaluation.json", record["evaluation"])
        writer.write("samples.jsonl", record["samples"])
        writer.write(ORIGIN_FILE, {"run": run.name, "version": run.version()})
        writer.write("manifest.json", manifest)
    except BaseException:  # Ctrl-C leaves nothing half-written either
        writer.discard()
        raise
    writer.commit()
    return folder


# Where run records come from: a folder, or W&B, whose runs are imported into a folder first.


def open_records(source: str, *, cache: Path) -> Path:
    """The folder with the records of `source`: a folder itself, or one under `cache` into which W&B's runs are imported.

    ValueError for any other source or for damaged runs, ConnectionError if W&B does not answer.
    """
    kind, colon, where = source.partition(":")
    if not colon or Path(source).exists():
        return Path(source)
    if kind == "wandb-offline":
        raise ValueError(
            f"records={source}; the record of an offline W&B run lies in the run's folder: give the folder with the runs "
            "(records=runs)"
        )
    entity, slash, project = where.partition("/")
    if kind != "wandb" or not (entity and slash and project) or "/" in project:
        raise ValueError(f"records={source}; allowed: a folder or wandb:ENTITY/PROJECT")
    records_from_project(where, cache / entity / project)
    return cache / entity / project
