"""The life of a run: evaluation, training with checkpoints, evaluation, and what its record says of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import torch
from omegaconf import DictConfig

from scar.build import Run
from scar.config import fingerprint
from scar.construct import plain
from scar.tracking.checkpoint import Checkpoint, CheckpointKeeper
from scar.tracking.provenance import code_digest, code_state, device_description, versions
from scar.tracking.records import SCHEMA_VERSION, NoWriter, RunWriter


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunLife:
    """One run, from its start or from a checkpoint to its end. `identity`: what names it, `config`: what its record keeps of
    the config (scar/run.py)."""

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

    def write(self, writer: RunWriter | NoWriter) -> None:
        """Evaluate the SFT policy, train, evaluate again, and write everything but the rows."""
        run, cfg, trainer = self._run, self._cfg, self._run.trainer
        keeper = CheckpointKeeper(
            writer.partial,
            every=cfg.checkpoint.updates,
            last=trainer.config.updates,
            engine=trainer.engine,
            learner=run.learner,
            trainer=trainer,
            facts=self._facts,
        )
        if self._checkpoint is None:
            self._initial, _ = run.evaluate()
        else:
            keeper.restore(self._checkpoint)
        with keeper.watching():
            trainer.train(keeper, done=self._checkpoint.update if self._checkpoint else 0)
        final, samples = run.evaluate()
        protocol = plain(cfg.evaluation) | {"split": "test", "generation": plain(cfg.task.generation)}
        writer.write("evaluation.json", {"protocol": protocol, "initial": self._initial, "final": final})
        writer.write("samples.jsonl", samples)
        writer.write("manifest.json", self._manifest())

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
            "segmentation": cfg.segmentation.name if self._identity["units"] else None,
            "estimator": self._identity["estimator"],
            "coalitions": run.coalitions.as_dict() if run.coalitions else None,
            "alpha": cfg.shaping.alpha,
            "seed": cfg.seed,
            "model_seed": cfg.model_seed,
            "device": device_description(self._device),
            "engine": engine.describe(),
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
