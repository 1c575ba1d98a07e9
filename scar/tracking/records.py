"""Run records on disk: the one schema, written atomically, read lazily. Tables and figures are functions of these.

A run folder holds `manifest.json` (what ran), `metrics.jsonl` (a row an update), `evaluation.json` (the policy before
and after) and `samples.jsonl` (evaluated texts). A run is written into `<folder>.partial` and renamed when it is
whole, so a folder without that suffix is always a finished run. No pickle; nothing is read out of folder names.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scar.config import fingerprint
from scar.identity import old_name, old_needs, run_settings

SCHEMA_VERSION = 2
"""2: a run is named by `settings` (scar/identity.py). Version 1, named by its whole config, is read too."""
PARTIAL_SUFFIX = ".partial"
ESSENTIAL = (
    "scale",
    "task",
    "method",
    "seed",
    "model_seed",
    "alpha",
    "device",
    "fingerprint",
    "commit",
    "settings",
    "timing",
)
"""What every manifest says; a folder without is no run of this code."""


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON so that `path` holds either the old text or the whole new one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a ValueError names the file that cannot be read, and the folder to delete."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__} in place of an object")
        return value
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); delete the folder {path.parent} and run it again"
        ) from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line; a ValueError names the file and line that is broken."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); delete that run folder and run it again") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}, is not JSON ({error}); delete that run folder and run it again"
            ) from error
    return rows


@dataclass(frozen=True)
class RunRecord:
    """One finished run. `manifest` keys: schema_version, status, scale, task, method, segmentation, estimator, alpha,
    seed, model_seed, device {kind, name}, fingerprint, settings, config, commit, dirty, versions, models, started, finished,
    timing. `settings` are what decides the run's numbers, by name (scar/identity.py)."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What ran: configuration, code, machine, models, times."""
        manifest = read_json(self.path / "manifest.json")
        if "schema_version" not in manifest:
            raise ValueError(f"{self.path}/manifest.json is not that of a run of this code; move that folder away")
        if manifest["schema_version"] == 1:
            manifest = self._of_version_1(manifest)
        if manifest["schema_version"] != SCHEMA_VERSION:
            raise ValueError(
                f"{self.path}/manifest.json has schema version {manifest.get('schema_version')}, this code reads "
                f"{SCHEMA_VERSION}; run it again or use the commit {manifest.get('commit')}"
            )
        if absent := [key for key in ESSENTIAL if key not in manifest]:
            raise ValueError(
                f"{self.path}/manifest.json has no {', '.join(absent)}; delete that folder and run it again"
            )
        return manifest

    def _of_version_1(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """The manifest as version 2 has it: settings and fingerprint are read off the config that it holds."""
        try:
            config = manifest["config"]
            settings = run_settings(config, old_name, old_needs(config))
            estimator = settings["estimator"]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{self.path}/manifest.json is of schema version 1 and lacks what names a run ({error}); run it again or use "
                f"the commit {manifest.get('commit')}"
            ) from error
        named = {"settings": settings, "fingerprint": fingerprint(settings), "estimator": estimator}
        return manifest | named | {"schema_version": SCHEMA_VERSION}

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """One row an update; the keys are explained in docs/metrics.md."""
        return read_jsonl(self.path / "metrics.jsonl")

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """`protocol`, and `initial` and `final`: reward_mean, reward_std, kl_mean, length_mean, prompts."""
        return read_json(self.path / "evaluation.json")

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """Evaluated texts of the final policy (`evaluate_policy` in scar/ppo/evaluation.py says which keys)."""
        return read_jsonl(self.path / "samples.jsonl")

    def matches(self, **wanted: Any) -> bool:
        """Whether the manifest has each wanted value (a collection means: any of these)."""
        for key, value in wanted.items():
            have = self.manifest[key]
            if have not in value if isinstance(value, (list, tuple, set)) else have != value:
                return False
        return True


def find_records(root: Path, **wanted: Any) -> list[RunRecord]:
    """All finished runs under `root` whose manifest has the wanted values, in a stable order."""
    return [record for record in _iter_records(root) if record.matches(**wanted)]


def unfinished_runs(root: Path) -> list[Path]:
    """Folders under `root` of runs that were stopped, or are being written; no table counts them."""
    return sorted(path for path in root.rglob(f"*{PARTIAL_SUFFIX}") if path.is_dir())


def _iter_records(root: Path) -> Iterator[RunRecord]:
    for manifest in sorted(root.rglob("manifest.json")):
        if not any(part.endswith(PARTIAL_SUFFIX) for part in manifest.parent.parts):
            yield RunRecord(manifest.parent)


def record_folder(root: Path, manifest: Mapping[str, Any]) -> Path:
    """Where under `root` the run of a manifest lies: `<scale>/<task>/<method>/seed<k>-<fingerprint>`."""
    name = f"seed{manifest['seed']}-{manifest['fingerprint']}"
    return root / manifest["scale"] / manifest["task"] / manifest["method"] / name


def old_records(folder: Path) -> Iterator[RunRecord]:
    """Finished runs of schema version 1 beside `folder` with the same seed: they bear names of their time."""
    for manifest in sorted(folder.parent.glob(f"{folder.name.partition('-')[0]}-*/manifest.json")):
        if not manifest.parent.name.endswith(PARTIAL_SUFFIX) and read_json(manifest).get("schema_version") == 1:
            yield RunRecord(manifest.parent)


def partial_folder(folder: Path) -> Path:
    """Where the run of `folder` is while it is not finished."""
    return folder.with_name(folder.name + PARTIAL_SUFFIX)


class NoWriter:
    """The writer of a process that is not the main one: one record is enough."""

    def __init__(self, folder: Path, *, done: int = 0) -> None:
        self.folder, self.partial = folder, partial_folder(folder)

    def append(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def write(self, name: str, value: Any) -> None:
        """Nothing."""

    def remove(self, name: str) -> None:
        """Nothing."""

    def commit(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def discard(self) -> None:
        """Nothing."""


class RunWriter:
    """Writes one run into `<folder>.partial`; `commit` renames it to `folder`, `discard` removes it, `close` leaves it there
    to be gone on with: then `done` says how many of its rows count."""

    def __init__(self, folder: Path, *, done: int = 0) -> None:
        self.folder = folder
        self.partial = partial_folder(folder)
        rows = self.partial / "metrics.jsonl"
        if done:
            kept = rows.read_text(encoding="utf-8").splitlines(keepends=True)[:done]
            if len(kept) < done:
                raise ValueError(f"{rows} has {len(kept)} of {done} rows; delete {self.partial} and run again")
            shutil.rmtree(self.partial / "wandb", ignore_errors=True)  # the tracker is told those rows again
        else:
            kept = []
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
        shorter = rows.with_name(rows.name + ".tmp")
        shorter.write_text("".join(kept), encoding="utf-8")
        os.replace(shorter, rows)
        self._rows = open(rows, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def append(self, row: dict[str, Any]) -> None:
        """Append one update's row to metrics.jsonl."""
        self._rows.write(json.dumps(row, allow_nan=False) + "\n")

    def write(self, name: str, value: Any) -> None:
        """Write a .json file, or a .jsonl file from a list of rows."""
        if name.endswith(".jsonl"):
            write_jsonl(self.partial / name, value)
        else:
            write_json(self.partial / name, value)

    def remove(self, name: str) -> None:
        """Remove a folder that the finished run does not need."""
        shutil.rmtree(self.partial / name, ignore_errors=True)

    def commit(self) -> RunRecord:
        """Make the run a finished one."""
        self._rows.close()
        if self.folder.exists():
            shutil.rmtree(self.folder)
        os.replace(self.partial, self.folder)
        return RunRecord(self.folder)

    def close(self) -> None:
        """Leave an unfinished run as it is."""
        with suppress(OSError):  # closing writes what is buffered, which fails again on a full disk
            self._rows.close()

    def discard(self) -> None:
        """Remove what was written of an unfinished run."""
        self.close()
        shutil.rmtree(self.partial, ignore_errors=True)


# One process at a time computes a run: a lock beside its folder, which the system drops when its holder ends, however it ends.


try:
    import fcntl
except ImportError:  # a system without POSIX locks: runs are not guarded there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Context in which no other process may compute the run of `folder`; BlockingIOError when one does."""
    path = folder.with_name(folder.name + ".lock")
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise BlockingIOError(
                    f"another process is computing the run {folder}; wait for it, or stop it and run again"
                ) from error
            except OSError:
                pass  # a file system without locks
        try:
            yield
        finally:
            with suppress(OSError):  # folders that hold a run by now stay
                os.unlink(path)
                for folder_made in made:
                    folder_made.rmdir()
