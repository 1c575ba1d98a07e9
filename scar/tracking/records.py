"""Run records on disk: the one schema, written atomically, read lazily. Tables and figures are functions of these.

A run folder holds `manifest.json` (what ran), `metrics.jsonl` (one row per update), `evaluation.json` (the policy before
and after) and `samples.jsonl` (evaluated texts). A run is written into `<folder>.partial` and renamed when it is
whole, so a folder without that suffix is always a finished run. No pickle; nothing is read out of folder names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from filelock import FileLock, Timeout

from scar.config import fingerprint
from scar.files import PARTIAL_SUFFIX, atomic_file, finish_folder
from scar.identity import name_now, old_name, old_needs, run_settings

SCHEMA_VERSION = 2
"""2: a run is named by `settings` (scar/identity.py). Version 1, named by its whole config, is read too."""
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
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")


def read_json(path: Path, *, advice: str | None = None) -> dict[str, Any]:
    """Read a JSON object; a ValueError names the file that cannot be read, and what to do: `advice`, or the folder to delete."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__} in place of an object")
        return value
    except (OSError, ValueError) as error:
        advice = advice or f"delete the folder {path.parent} and run it again"
        raise ValueError(f"{path} cannot be read ({error}); {advice}") from error


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
class Record:
    """A finished folder of one kind; its `manifest.json` says what it holds, and under `VERSION_KEY` in which version."""

    path: Path

    KIND: ClassVar[str]
    VERSION_KEY: ClassVar[str] = "schema_version"
    VERSION: ClassVar[int]
    ESSENTIAL: ClassVar[Sequence[str]] = ()
    AGAIN: ClassVar[str]
    """How a record of this kind is made again."""
    UNREADABLE: ClassVar[str | None] = None
    """What to do about a manifest that cannot be read, if not to delete its folder."""

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was computed, by what; ValueError names the folder if it holds no record of this kind that this code reads."""
        file = self.path / "manifest.json"
        manifest = read_json(file, advice=self.UNREADABLE or f"delete the folder {self.path} and {self.AGAIN}")
        if self.VERSION_KEY not in manifest:
            advice = self.UNREADABLE or "move that folder away"
            raise ValueError(f"{file} is not that of a {self.KIND} of this code; {advice}")
        manifest = self.upgraded(manifest)
        manifest |= {key: name_now(manifest[key]) for key in ("method", "baseline") if key in manifest}
        if manifest[self.VERSION_KEY] != self.VERSION:
            raise ValueError(
                f"{file} has {self.VERSION_KEY.replace('_', ' ')} {manifest[self.VERSION_KEY]}, this code reads {self.VERSION}; "
                f"{self.AGAIN} or use the commit {manifest.get('commit')}"
            )
        if absent := [key for key in self.ESSENTIAL if key not in manifest]:
            raise ValueError(f"{file} has no {', '.join(absent)}; delete that folder and {self.AGAIN}")
        return manifest

    def upgraded(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """The manifest of an earlier version as this one has it; another one as it is."""
        return manifest

    def matches(self, **wanted: Any) -> bool:
        """Whether the manifest has each wanted value (a collection means: any of these)."""
        for key, value in wanted.items():
            own = self.manifest[key]
            if own not in value if isinstance(value, (list, tuple, set)) else own != value:
                return False
        return True

    @classmethod
    def find(cls, root: Path, **wanted: Any) -> list[Self]:
        """All finished records of this kind under `root` whose manifest has the wanted values, in a stable order."""
        folders = [file.parent for file in sorted(root.rglob("manifest.json"))]
        finished = [cls(f) for f in folders if not any(name.endswith(PARTIAL_SUFFIX) for name in f.parts)]
        return [record for record in finished if record.matches(**wanted)]


class RunRecord(Record):
    """One finished run. `manifest` keys: schema_version, status, scale, task, method, segmentation, estimator, alpha,
    seed, model_seed, device {kind, name}, fingerprint, settings, config, commit, dirty, versions, models, started, finished,
    timing. `settings` are what decides the run's numbers, by name (scar/identity.py)."""

    KIND, VERSION, ESSENTIAL, AGAIN = "run", SCHEMA_VERSION, ESSENTIAL, "run it again"

    def upgraded(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Version 1 as version 2 has it: settings and fingerprint are read off the config that it holds."""
        if manifest["schema_version"] != 1:
            return manifest
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
        """One row per update; the keys are explained in docs/metrics.md."""
        return read_jsonl(self.path / "metrics.jsonl")

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """`protocol`, and `initial` and `final`: reward_mean, reward_std, kl_mean, length_mean, prompts."""
        return read_json(self.path / "evaluation.json")

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """Evaluated texts of the final policy (`evaluate_policy` in scar/ppo/evaluation.py says which keys)."""
        return read_jsonl(self.path / "samples.jsonl")

    @cached_property
    def test_rewards(self) -> tuple[int, list[float]]:
        """A hash of the evaluated prompts, equal within a process for the same prompts in the same order, and the final policy's
        raw reward on each; the samples themselves, which are large, are not kept."""
        rows = read_jsonl(self.path / "samples.jsonl")
        return hash(tuple(row["prompt"] for row in rows)), [row["reward"] for row in rows]


find_records = RunRecord.find


def unfinished_runs(root: Path) -> list[Path]:
    """Folders under `root` of runs that were stopped, or are being written; no table counts them."""
    return sorted(path for path in root.rglob(f"*{PARTIAL_SUFFIX}") if path.is_dir())


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


class RecordWriter:
    """Writes a record into `<folder>.partial`, and its rows, one by one, into the file `rows` there, behind the lines `kept`.
    `commit` renames it to `folder`, `discard` removes it, `close` leaves it there to be gone on with."""

    def __init__(self, folder: Path, *, rows: str, kept: Sequence[str]) -> None:
        self.folder, self.partial = folder, partial_folder(folder)
        self.partial.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.partial / rows) as shorter:
            shorter.write_text("".join(kept), encoding="utf-8")
        self._rows = open(self.partial / rows, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def append(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._rows.write(json.dumps(row, allow_nan=False) + "\n")

    def write(self, name: str, value: Any) -> None:
        """Write a .json file, or a .jsonl file from a list of rows."""
        (write_jsonl if name.endswith(".jsonl") else write_json)(self.partial / name, value)

    def remove(self, name: str) -> None:
        """Remove a folder that the finished record does not need."""
        shutil.rmtree(self.partial / name, ignore_errors=True)

    def finish(self) -> None:
        """Make the record a finished one, in place of one of the same name."""
        self._rows.close()
        finish_folder(self.partial, self.folder)

    def close(self) -> None:
        """Leave an unfinished record as it is."""
        with suppress(OSError):  # closing writes what is buffered, which fails again on a full disk
            self._rows.close()

    def discard(self) -> None:
        """Remove what was written of an unfinished record."""
        self.close()
        shutil.rmtree(self.partial, ignore_errors=True)


class RunWriter(RecordWriter):
    """Writes one run, its rows into metrics.jsonl; `done` says how many rows of an unfinished run count that goes on."""

    def __init__(self, folder: Path, *, done: int = 0) -> None:
        partial = partial_folder(folder)
        kept: list[str] = []
        if done:
            rows = partial / "metrics.jsonl"
            kept = rows.read_text(encoding="utf-8").splitlines(keepends=True)[:done]
            if len(kept) < done:
                raise ValueError(f"{rows} has {len(kept)} of {done} rows; delete {partial} and run again")
            shutil.rmtree(partial / "wandb", ignore_errors=True)  # the tracker is told those rows again
        else:
            shutil.rmtree(partial, ignore_errors=True)
        super().__init__(folder, rows="metrics.jsonl", kept=kept)

    def commit(self) -> RunRecord:
        """Make the run a finished one."""
        self.finish()
        return RunRecord(self.folder)


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Context in which no other process may compute the run of `folder`; BlockingIOError when one does. The system drops the
    lock, a file beside the folder, when its holder ends, however it ends."""
    path = folder.with_name(folder.name + ".lock")
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(
            f"another process is computing the run {folder}; wait for it, or stop it and run again"
        ) from error
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        with suppress(OSError):  # folders that hold a run by now stay
            path.unlink()
            for folder_made in made:
                folder_made.rmdir()
        lock.release()
