"""One run from its config to its record: its name, its trackers, where it goes on. What is wired to what is in scar/build.py."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_object
from omegaconf import DictConfig

from scar.build import Run, build_engine, build_task, check_settings, local_models, setup_process
from scar.config import PPOConfig, fingerprint
from scar.construct import construct, plain
from scar.identity import run_settings
from scar.interfaces import Engine
from scar.runlife import RunLife
from scar.supervised.store import RECIPE, StartProgress
from scar.tracking.checkpoint import FOLDER as CHECKPOINTS
from scar.tracking.checkpoint import Checkpoint, find_checkpoint
from scar.tracking.provenance import code_digest
from scar.tracking.records import NoWriter, RunWriter, old_records, only_here, partial_folder, read_jsonl, record_folder
from scar.tracking.trackers import BarTracker, JsonlTracker, ProgressFile, TrackerGroup

NOT_RECORDED = ("paths", "tracker", "force", "hydra", "memory", "engine", "checkpoint")
"""Config keys that say where and how a run is computed; its record says so elsewhere, where it matters."""


def class_name(target: str) -> str:
    """The `name` of the class at a `_target_`."""
    return get_object(target).name


def run_config(cfg: DictConfig, device: torch.device) -> dict[str, Any]:
    """The resolved config as a record keeps it."""
    config = {key: value for key, value in plain(cfg).items() if key not in NOT_RECORDED}
    return config | {"device": device.type, "recipe": RECIPE}


def run_identity(cfg: DictConfig, device: torch.device) -> dict[str, Any]:
    """What decides the run's numbers, by name (scar/identity.py)."""
    return run_settings(run_config(cfg, device), class_name)


def run_folder(cfg: DictConfig, identity: dict[str, Any]) -> Path:
    """The folder of this run's record: that of a finished run with this identity, whatever it is called, else where it would
    lie."""
    names = {"scale": cfg.scale, "task": cfg.task.name, "method": cfg.shaping.name, "seed": cfg.seed}
    root, named = Path(cfg.paths.runs), fingerprint(identity)
    folder = record_folder(root, names | {"fingerprint": named})
    if folder.exists():
        return folder
    return next((record.path for record in old_records(folder) if record.manifest["fingerprint"] == named), folder)


def train_run(cfg: DictConfig) -> Path:
    """Train and evaluate one run unless its record exists; returns the record's folder. A run that was stopped goes on from
    its last checkpoint."""
    device = setup_process(cfg)
    ppo, engine = check_settings(cfg), build_engine(cfg)
    identity = run_identity(cfg, device)
    folder = run_folder(cfg, identity)
    with only_here(folder) if engine.is_main else nullcontext():
        return _train_here(cfg, ppo, device, engine, identity, folder)


def _train_here(
    cfg: DictConfig, ppo: PPOConfig, device: torch.device, engine: Engine, identity: dict[str, Any], folder: Path
) -> Path:
    progress = TrackerGroup([_progress_tracker(cfg, ppo, folder)] if engine.is_main else [])
    if engine.agreed(folder.exists()) and not cfg.force:
        progress.finish("skipped")
        return folder
    status, writer = "failed", None
    trackers = TrackerGroup([])  # these have files in the run's folder
    try:
        try:
            checkpoint = engine.agreed(_where_it_stopped(folder) if engine.is_main else None)
            run = Run(cfg, ppo, device, TrackerGroup([progress, trackers]), engine)
            config = run_config(cfg, device)
            writer = (RunWriter if engine.is_main else NoWriter)(folder, done=checkpoint.update if checkpoint else 0)
            trackers.add(JsonlTracker(writer))
            if engine.is_main:
                trackers.add(construct(cfg.tracker, folder=writer.partial, name=folder.name, config=config))
            if checkpoint and engine.is_main:
                rows = read_jsonl(writer.partial / "metrics.jsonl")
                progress.resume(rows)
                trackers.resume(rows)
            RunLife(run, cfg, identity, config, device, checkpoint).write(writer)
        except BaseException:  # Ctrl-C leaves nothing half-written either
            status = "stopped" if find_checkpoint(partial_folder(folder)) else "failed"
            try:
                trackers.finish(status)
            finally:
                if writer is not None:
                    (writer.close if status == "stopped" else writer.discard)()
            raise
        try:
            _close(trackers, folder)
        finally:  # whatever became of that: nothing undoes a run that is finished
            writer.remove(CHECKPOINTS)
            writer.commit()
            status = "finished"
            engine.agreed(None)  # no process ends before the record is there
    finally:
        progress.finish(status)
    return folder


def _close(trackers: TrackerGroup, folder: Path) -> None:
    """Close what has files in the folder of a finished run, before it gets its name; an error says that the run is kept."""
    try:
        trackers.finish("finished")
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConnectionError(f"{reason}; the run is finished and its record is kept: {folder}") from error


def _where_it_stopped(folder: Path) -> Checkpoint | None:
    """The checkpoint of the run of `folder`, if it has one; ValueError when other code made it."""
    checkpoint = find_checkpoint(partial_folder(folder))
    if checkpoint is not None and checkpoint.state["code"]["digest"] != code_digest():
        raise ValueError(
            f"{checkpoint.folder} was made by other code (commit {checkpoint.state['code']['commit']}), and a record is of one "
            f"code: check that out to go on, or delete {checkpoint.folder.parents[1]} to start again"
        )
    return checkpoint


def _progress_tracker(cfg: DictConfig, ppo: PPOConfig, folder: Path) -> Any:
    """A bar for a single run; in a sweep a file that the sweep's one display reads."""
    name = f"{cfg.task.name}/{cfg.shaping.name}/{cfg.seed}"
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return ProgressFile(
            Path(HydraConfig.get().runtime.output_dir) / "progress.json", name=name, updates=ppo.updates
        )
    return BarTracker(name=name, updates=ppo.updates, folder=folder)


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
