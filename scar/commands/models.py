"""Making the models that runs start from: training them unless they are cached, and what is said of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from scar.commands.build import build_task, local_models, setup_process
from scar.commands.cli import _losses, one_line_errors, training_bar
from scar.printing import say
from scar.supervised.store import StartProgress
from scar.supervised.training import ProgressCallback
from scar.tracking.trackers import ProgressFile

KINDS = ("base", "policy", "reward", "gold")
"""What can be made: the models that runs start from, each before those that rest on it, and the one that judges runs."""


SETTINGS = {"model": Literal["base", "policy", "reward", "gold"] | None}
"""What conf/models.yaml adds to the settings of a run."""


def prepare_model(cfg: DictConfig, kind: str, *, start_progress: StartProgress) -> dict[str, Any] | None:
    """Train the model `kind` ("base", "policy", "reward" or "gold") and those that it rests on, unless they are cached;
    returns its report with its `folder` and `cached`, None if the task has no such model of its own, or takes it from the hub."""
    device = setup_process(cfg)
    if cfg.models.source == "hub":
        return None
    models = local_models(cfg, build_task(cfg), device, gold=kind == "gold")
    if kind == "gold":
        kind = "reward"
    if kind not in models.kinds:
        return None
    cached = models.has(kind)
    if not cached:
        models.train(kind, start_progress)
    return models.report(kind) | {"folder": str(models.folder(kind)), "cached": cached}


def make_model(cfg: DictConfig, kind: str | None) -> None:
    """Make the model `kind`, or (None) all that runs start from, with a bar and a line on the quality of each; in a sweep,
    which makes one, the sweep's display shows both."""
    with one_line_errors():
        if kind is None or HydraConfig.get().mode != RunMode.MULTIRUN:
            kinds = KINDS[:-1] if kind is None else (kind,)
            reports = {name: prepare_model(cfg, name, start_progress=training_bar) for name in kinds}
            where = f"task={cfg.task.name} at scale={cfg.scale} (models.source={cfg.models.source})"
            nothing = f"{where} has no {kind or 'local'} model of its own: there is nothing to train here"
            made = [line for name, report in reports.items() if report for line in report_lines(name, report)]
            say("".join(line + "\n" for line in made or [nothing]))
            return
        name = f"{cfg.task.name}/{kind}"
        file = ProgressFile(Path(HydraConfig.get().runtime.output_dir) / "progress.json", name=name, updates=1)
        status, lines = "failed", None
        try:
            report = prepare_model(cfg, kind, start_progress=lambda title: _into(file))
            status = "skipped" if report is None or report["cached"] else "finished"
            lines = None if report is None else "\n".join(report_lines(name, report))
        finally:
            file.finish(status, result=lines)


def _into(file: ProgressFile) -> ProgressCallback:
    """A training's progress, at most twice per second, into the file that the sweep's display reads."""
    last = [0.0]

    def advance(done: int, total: int, losses: dict[str, float]) -> None:
        if done == total or time.monotonic() - last[0] > 0.5:
            last[0] = time.monotonic()
            file.advance(done, _losses(losses), updates=total)

    return advance


def report_lines(title: str, report: dict[str, Any]) -> list[str]:
    """A model's quality report: one line of numbers, and the text samples of a model just trained."""
    numbers = [
        f"{key} {value:.5g}" for key, value in report.items() if isinstance(value, (int, float)) and key != "cached"
    ]
    state = "cached" if report["cached"] else "trained"
    samples = [] if report["cached"] else report.get("samples", [])
    return [f"{title} model ({state}, {report['folder']}): {', '.join(numbers)}", *(f"  {text!r}" for text in samples)]
