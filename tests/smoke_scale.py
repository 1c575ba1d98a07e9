"""Runs at scale=smoke in this process: the real config, data, models and loop, seconds each, in a temporary folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from scar.commands import build
from scar.commands import models as models_command
from scar.commands.settings import prepared
from scar.commands.train import train_run
from scar.tracking.records import RunRecord

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = REPOSITORY / "conf"


def composed(*overrides: str) -> DictConfig:
    """The config of a command line with these overrides."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return prepared(compose("config", overrides=list(overrides)))


def silent_progress(title: str) -> Callable[[int, int, dict[str, float]], None]:
    return lambda done, total, losses: None


class Runs(dict[str, RunRecord]):
    """Finished runs by name, each computed when it is first asked for."""

    def __init__(self, run: Callable[[str], RunRecord]) -> None:
        self._run = run

    def __missing__(self, name: str) -> RunRecord:
        return self.setdefault(name, self._run(name))


class SmokeScale:
    """Trains the smoke models into `cache` unless they are there, and runs experiments on them in `folder`.

    Texts are read and cleaned once for all runs; the runs share nothing else.
    """

    def __init__(
        self,
        folder: Path,
        *,
        task: str = "imdb",
        models: tuple[str, ...] = ("policy", "reward"),
        cache: Path | None = None,
    ) -> None:
        self.task = task
        self.cache = cache or folder / "cache"
        self.runs = folder / "runs"
        self._tasks: dict[str, Any] = {}
        self._build_task = build.build_task
        with self._shared_texts():
            self.reports = {
                kind: models_command.prepare_model(self.config(), kind, start_progress=silent_progress)
                for kind in models
            }

    def config(self, *overrides: str, runs: Path | None = None) -> DictConfig:
        """scale=smoke on the CPU without W&B; `overrides` come last."""
        paths = (f"paths.cache={self.cache}", f"paths.runs={runs or self.runs}")
        return composed("scale=smoke", f"task={self.task}", "device=cpu", "tracker=jsonl", *paths, *overrides)

    def run(self, *overrides: str, runs: Path | None = None) -> RunRecord:
        """Train one run; its record."""
        with self._shared_texts():
            return RunRecord(train_run(self.config(*overrides, runs=runs)))

    @contextmanager
    def _shared_texts(self) -> Iterator[None]:
        with (
            mock.patch.object(build, "build_task", self._task),
            mock.patch.object(models_command, "build_task", self._task),
        ):
            yield

    def _task(self, cfg: DictConfig) -> Any:
        key = json.dumps(OmegaConf.to_container(cfg.task, resolve=True))
        if key not in self._tasks:
            self._tasks[key] = self._build_task(cfg)
        return self._tasks[key]
