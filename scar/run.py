"""The life of one run: its name, its trackers, and the record it leaves. What is wired to what is in scar/build.py."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from scar.build import Run, build_task, check_settings, local_models, setup_process, source_name
from scar.config import PPOConfig, fingerprint
from scar.construct import construct, plain
from scar.recipes.store import RECIPE, StartProgress
from scar.tracking.provenance import code_state, device_description, versions
from scar.tracking.records import SCHEMA_VERSION, RunWriter, record_folder
from scar.tracking.trackers import BarTracker, JsonlTracker, ProgressFile, TrackerGroup

NOT_IDENTITY = ("paths", "tracker", "force", "hydra", "memory")
"""Config keys that do not change what a run computes, so they are no part of its fingerprint."""


NEWER = ("folder", "revision", "comparisons_path", "comparisons_revision")
"""Settings of data sources that came after the first logged runs."""


def task_identity(cfg: DictConfig) -> dict[str, Any]:
    """What of the task decides a record's numbers: all but alpha, which counts where a method reads it. Settings that a run
    on a package's data does not read and that came later are left out, so that earlier runs keep their names."""
    task = plain(cfg.task)
    del task["alpha"]
    if source_name(cfg) == "package":
        del task["data_dir"]
        for source in (task["sources"], task["sources"]["hub"]):
            for key in set(source) & set(NEWER):
                del source[key]
    return task


def run_identity(cfg: DictConfig, device: torch.device) -> dict[str, Any]:
    """Everything that decides a run's numbers. Settings of units and estimator count only for methods that use them."""
    identity = {k: v for k, v in plain(cfg).items() if k not in NOT_IDENTITY}
    identity["device"] = device.type
    identity["recipe"] = RECIPE  # a changed training recipe makes other models, so other runs
    identity["task"] = task_identity(cfg)
    identity["models"].pop("gold", None)  # judges finished runs
    if "estimator" not in cfg.shaping.needs:
        identity |= {"estimator": None, "segmentation": None, "parser": None, "coalitions": None}
    return identity


def run_folder(cfg: DictConfig, identity: dict[str, Any]) -> Path:
    """The folder of this run's record; nothing is ever read back out of its name."""
    names = {"scale": cfg.scale, "task": cfg.task.name, "method": cfg.shaping.name}
    return record_folder(Path(cfg.paths.runs), names | {"seed": cfg.seed, "fingerprint": fingerprint(identity)})


def train_run(cfg: DictConfig) -> Path:
    """Train and evaluate one run unless its record exists; returns the record's folder."""
    device = setup_process(cfg)
    ppo = check_settings(cfg)
    identity = run_identity(cfg, device)
    folder = run_folder(cfg, identity)
    progress = _progress_tracker(cfg, ppo, folder)
    if folder.exists() and not cfg.force:
        progress.finish("skipped")
        return folder
    trackers = TrackerGroup([progress])
    status, writer = "failed", None
    try:
        try:
            run = Run(cfg, ppo, device, trackers)
            writer = RunWriter(folder)
            trackers.add(JsonlTracker(writer))
            trackers.add(construct(cfg.tracker, folder=writer.partial, name=folder.name, config=identity))
            _write_results(run, writer, cfg, identity, device)
            status = "finished"
        finally:
            trackers.finish(status)
    except BaseException:  # Ctrl-C and a tracker that cannot close leave nothing half-written either
        if writer is not None:
            writer.discard()
        raise
    writer.commit()
    return folder


def _progress_tracker(cfg: DictConfig, ppo: PPOConfig, folder: Path) -> Any:
    """A bar for a single run; in a sweep a file that the sweep's one display reads."""
    name = f"{cfg.task.name}/{cfg.shaping.name}/{cfg.seed}"
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return ProgressFile(
            Path(HydraConfig.get().runtime.output_dir) / "progress.json", name=name, updates=ppo.updates
        )
    return BarTracker(name=name, updates=ppo.updates, folder=folder)


def _write_results(
    run: Run, writer: RunWriter, cfg: DictConfig, identity: dict[str, Any], device: torch.device
) -> None:
    """Evaluate the SFT policy, train, evaluate again, and write everything but the rows."""
    started, clock = datetime.now(UTC), time.monotonic()
    initial, _ = run.evaluate()
    run.trainer.train()
    final, samples = run.evaluate()
    protocol = plain(cfg.evaluation) | {"split": "test", "generation": plain(cfg.task.generation)}
    writer.write("evaluation.json", {"protocol": protocol, "initial": initial, "final": final})
    writer.write("samples.jsonl", samples)
    uses_units = "estimator" in cfg.shaping.needs
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "status": "finished",
        "scale": cfg.scale,
        "task": cfg.task.name,
        "method": cfg.shaping.name,
        "segmentation": cfg.segmentation.name if uses_units else None,
        "estimator": plain(cfg.estimator) if uses_units else None,
        "coalitions": run.coalitions.as_dict() if run.coalitions else None,
        "alpha": cfg.shaping.alpha,
        "seed": cfg.seed,
        "model_seed": cfg.model_seed,
        "device": device_description(device),
        "fingerprint": fingerprint(identity),
        "config": identity,
        **code_state(),
        "versions": versions(),
        "models": run.describe_models(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "timing": {
            "total_seconds": time.monotonic() - clock,
            "device_seconds": run.meter.total_seconds,
            "peak_memory_bytes": run.meter.peak_memory_bytes(),
        },
    }
    writer.write("manifest.json", manifest)


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
