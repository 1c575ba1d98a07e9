"""One run from its config to its record: its name, its trackers, where it goes on, what its record says of it."""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from scar.commands.build import Run, build_engine, check_settings, credit_needs, setup_process
from scar.commands.targets import construct, located, plain
from scar.config import PPOConfig, fingerprint
from scar.identity import first_name, run_settings
from scar.interfaces import Engine
from scar.supervised.store import RECIPE
from scar.tracking.checkpoint import FOLDER as CHECKPOINTS
from scar.tracking.checkpoint import Checkpoint, CheckpointKeeper, find_checkpoint
from scar.tracking.provenance import code_digest, code_state, device_description, versions
from scar.tracking.records import (
    SCHEMA_VERSION,
    RunWriter,
    old_records,
    only_here,
    partial_folder,
    read_jsonl,
    record_folder,
)
from scar.tracking.trackers import BarTracker, JsonlTracker, ProgressFile, TrackerGroup

NOT_RECORDED = ("paths", "tracker", "force", "hydra", "memory", "engine", "checkpoint")
"""Config keys that say where and how a run is computed; its record says so elsewhere, where it matters."""


def class_name(target: str) -> str:
    """The `name` of the class at a `_target_`."""
    return located(target).name


def run_config(cfg: DictConfig, device: torch.device) -> dict[str, Any]:
    """The resolved config as a record keeps it."""
    config = {key: value for key, value in plain(cfg).items() if key not in NOT_RECORDED}
    return config | {"device": device.type, "recipe": RECIPE}


def run_identity(cfg: DictConfig, device: torch.device) -> dict[str, Any]:
    """What decides the run's numbers, by name (scar/identity.py)."""
    return run_settings(run_config(cfg, device), class_name, credit_needs(cfg))


def run_folder(cfg: DictConfig, identity: dict[str, Any]) -> Path:
    """The folder of this run's record: that of a finished run with this identity, whatever it is called, else where it would
    lie."""
    names = {"scale": cfg.scale, "task": cfg.task.name, "method": cfg.shaping.name, "seed": cfg.seed}
    root, run_fingerprint = Path(cfg.paths.runs), fingerprint(identity)
    folder = record_folder(root, names | {"fingerprint": run_fingerprint})
    before = record_folder(root, names | {"fingerprint": run_fingerprint, "method": first_name(cfg.shaping.name)})
    for place in (folder, before):
        if place.exists():
            return place
    old = (record for place in dict.fromkeys((folder, before)) for record in old_records(place))
    return next((record.path for record in old if record.manifest["fingerprint"] == run_fingerprint), folder)


def experiment_name() -> str | None:
    """The file of conf/experiment that this command was started with; None for a run whose settings were typed."""
    return HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None


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
            if engine.is_main:  # one record is enough
                writer = RunWriter(folder, done=checkpoint.update if checkpoint else 0)
                trackers.add(JsonlTracker(writer))
                if cfg.tracker._target_ is not None:
                    trackers.add(construct(cfg.tracker, folder=writer.partial, name=folder.name, config=config))
                if checkpoint:
                    rows = read_jsonl(writer.partial / "metrics.jsonl")
                    progress.resume(rows)
                    trackers.resume(rows)
            files = RunLife(run, cfg, identity, config, device, checkpoint).files(partial_folder(folder))
            if writer is not None:
                for name, value in files.items():
                    writer.write(name, value)
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
            if writer is not None:
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


# The life of a run: evaluation, training with checkpoints, evaluation, and what its record says of them.


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunLife:
    """One run, from its start or from a checkpoint to its end. `identity`: what names it, `config`: what its record keeps of
    the config (scar/commands/train.py)."""

    def __init__(
        self,
        run: Run,
        cfg: DictConfig,
        identity: dict[str, Any],
        config: dict[str, Any],
        device: torch.device,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._run, self._cfg, self._identity, self._device = run, cfg, identity, device
        self._config = config
        self._checkpoint = checkpoint
        before: dict[str, Any] = checkpoint.state if checkpoint else {"started": _now(), "seconds": 0.0, "stops": []}
        self._started, self._seconds_before = before["started"], before["seconds"]
        self._stops: list[int] = before["stops"] + ([checkpoint.update] if checkpoint else [])
        self._initial: dict[str, Any] = before.get("initial", {})
        self._clock = time.monotonic()
        self._code = {"digest": code_digest(), "commit": code_state()["commit"]}  # as it is loaded, not as it will be

    def files(self, partial: Path) -> dict[str, Any]:
        """Evaluate the SFT policy, train with checkpoints below `partial`, and evaluate again: the files of the run's record
        but for its rows, the manifest last."""
        run, cfg, trainer = self._run, self._cfg, self._run.trainer
        keeper = CheckpointKeeper(
            partial,
            every=cfg.checkpoint.updates,
            last=trainer.config.updates,
            engine=trainer.engine,
            learner=run.learner,
            state=trainer.state,
            facts=self._facts,
        )
        if self._checkpoint is None:
            self._initial, _ = run.evaluate()
        else:
            keeper.restore(self._checkpoint)
            trainer.load_state(self._checkpoint.state["trainer"])
        with keeper.watching():
            trainer.train(keeper.after_update, done=self._checkpoint.update if self._checkpoint else 0)
        final, samples = run.evaluate()
        protocol = plain(cfg.evaluation) | {"split": "test", "generation": plain(cfg.task.generation)}
        evaluation = {"protocol": protocol, "initial": self._initial, "final": final}
        return {"evaluation.json": evaluation, "samples.jsonl": samples, "manifest.json": self._manifest()}

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._clock

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint says of the run beside its state."""
        return {
            "code": self._code,
            "fingerprint": fingerprint(self._identity),
            "started": self._started,
            "seconds": self._seconds(),
            "stops": self._stops,
            "initial": self._initial,
        }

    def _manifest(self) -> dict[str, Any]:
        run, cfg, engine = self._run, self._cfg, self._run.trainer.engine
        costs = {"device_seconds": run.meter.total_seconds, "memory/peak_bytes": run.meter.peak_memory_bytes()}
        spent = engine.merge({}, costs)
        return {
            "schema_version": SCHEMA_VERSION,
            "status": "finished",
            "scale": cfg.scale,
            "task": cfg.task.name,
            "method": cfg.shaping.name,
            "segmentation": self._identity["units"] and self._identity["units"]["name"],
            "estimator": self._identity["estimator"],
            "coalitions": run.coalitions.as_dict() if run.coalitions else None,
            "alpha": cfg.shaping.alpha,
            "seed": cfg.seed,
            "model_seed": cfg.model_seed,
            "device": device_description(self._device),
            "engine": engine.describe(),
            "experiment": experiment_name(),
            "fingerprint": fingerprint(self._identity),
            "settings": self._identity,
            "config": self._config,
            **code_state(),
            "versions": versions(),
            "models": run.describe_models(),
            "started": self._started,
            "finished": _now(),
            "resumed_after": self._stops,
            "timing": {
                "total_seconds": self._seconds(),
                "device_seconds": spent["device_seconds"],
                "peak_memory_bytes": spent["memory/peak_bytes"],
            },
        }
