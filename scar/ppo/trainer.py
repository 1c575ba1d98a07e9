"""The PPO loop: prompts -> rollout -> scores -> units -> credit -> shaped rewards -> advantages -> update -> log."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from scar.config import PPOConfig
from scar.credit.rewards import shape_rewards
from scar.interfaces import CreditMethod, Engine, Segmenter, Tracker
from scar.models.precision import HostParking
from scar.ppo.advantages import estimate_advantages
from scar.ppo.rollout import ResponseScoring, Sampler
from scar.ppo.updater import KLController, PPOUpdater
from scar.seeding import generator, numpy_generator
from scar.tasks.prompts import PromptBatches
from scar.tracking.metering import Meter
from scar.types import Credit, Rollout, Scores, ShapedRewards, Units, UpdateStats

logger = logging.getLogger(__name__)


@dataclass
class Trainer:
    """Everything one run needs, wired by scar/commands/build.py. `alpha` is the dense share of Eq. 6, `sparse_weight` what
    weighs the score at the end (None: 1 - alpha); `segmenter` is None for methods without units."""

    config: PPOConfig
    seed: int
    alpha: float
    sparse_weight: float | None
    device: torch.device
    prompts: PromptBatches
    sampler: Sampler
    scoring: ResponseScoring
    segmenter: Segmenter | None
    method: CreditMethod
    updater: PPOUpdater
    kl_controller: KLController
    tracker: Tracker
    meter: Meter
    engine: Engine
    placement: HostParking

    def train(self, after_update: Callable[[int], None] | None = None, *, done: int = 0) -> None:
        """Run all updates after the first `done`, each followed by `after_update` of its number; FloatingPointError when a metric
        is no longer finite."""
        for update in range(done + 1, self.config.updates + 1):
            row = self.run_update(update)
            broken = [name for name, value in row.items() if not math.isfinite(value)]
            if broken:
                raise FloatingPointError(
                    f"{', '.join(broken)} not finite in update {update}: training has diverged; lower ppo.learning_rate"
                )
            if row["kl/seq_sum_mean"] < -1:
                logger.warning(
                    "update %d: KL %.1f < -1: sampling and log-probabilities disagree", update, row["kl/seq_sum_mean"]
                )
            self.tracker.log(row)
            if after_update is not None:
                after_update(update)

    def state(self) -> dict[str, float]:
        """The numbers that the next update depends on, beside the learner's. Prompts, sampling, minibatches and estimators
        draw from streams that are named by the update (scar/seeding.py), so they have no state of their own.
        `device_seconds` is the mean of all processes."""
        spent = self.engine.merge({}, {"device_seconds": self.meter.total_seconds})["device_seconds"]
        return {
            "kl_coef": self.kl_controller.coef,
            "optimizer_steps": self.updater.optimizer_steps,
            "device_seconds": spent / self.engine.processes,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.kl_controller.coef = state["kl_coef"]
        self.updater.optimizer_steps = state["optimizer_steps"]
        self.meter.total_seconds = state["device_seconds"]

    def run_update(self, update: int) -> dict[str, Any]:
        """One batch in one direction; returns the row to log."""
        config = self.config
        prompts = self.prompts.batch(update - 1)
        with self._stage("rollout"):
            rollout = self.sampler.sample(prompts, generator=self._stream("sampling", update))
        scores, units = self._score_and_segment(rollout)
        with self._stage("credit"):
            options = {} if units is None else {"units": units}
            credit = self.method.assign(
                rollout, scores, **options, generator=numpy_generator(self.seed, "credit", update)
            )
        kl_coef = self.kl_controller.coef
        with self._stage("update"):
            rewards = shape_rewards(
                rollout, scores, credit, kl_coef=kl_coef, alpha=self.alpha, sparse_weight=self.sparse_weight
            )
            advantages = estimate_advantages(
                rewards.total, rollout.values, rollout.response_mask, gamma=config.gamma, gae_lambda=config.gae_lambda
            )
            learning_rate = self.updater.set_learning_rate(update)
            shuffle = generator(self.seed, "minibatches", update)
            stats = self.updater.update(rollout, advantages, generator=shuffle)
        row = summarize(rollout, scores, credit, rewards, stats)
        self.kl_controller.update(row["kl/seq_sum_mean"], episodes=config.batch_size)
        counters = {
            "update": update,
            "episodes": update * config.batch_size,
            "optimizer_steps": self.updater.optimizer_steps,
        }
        return self.engine.merge(counters | row | {"kl/coef": kl_coef, "lr": learning_rate}, self._costs())

    def _score_and_segment(self, rollout: Rollout) -> tuple[Scores, Units | None]:
        """Scores and, where the method needs them, units. On a GPU the parser works on the CPU beside the scoring, and
        "segment" meters what is left to wait for; on a CPU they would only take time from each other."""
        if self.segmenter is not None and self.device.type == "cuda":
            with ThreadPoolExecutor(max_workers=1) as pool:
                pending = pool.submit(self.segmenter.segment, rollout)
                with self._stage("score"):
                    scores = self.scoring.score(rollout)
                with self._stage("segment"):
                    return scores, pending.result()
        with self._stage("score"):
            scores = self.scoring.score(rollout)
        with self._stage("segment"):
            return scores, self.segmenter.segment(rollout) if self.segmenter is not None else None

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Meters a stage, and has its models on the device."""
        with self.meter.stage(name), self.placement.during(name):
            yield

    def _stream(self, purpose: str, update: int) -> torch.Generator:
        return generator(self.seed, purpose, update, device=self.device)

    def _costs(self) -> dict[str, float]:
        stages = self.meter.take_stages()
        hours = "gpu_hours" if self.device.type == "cuda" else "cpu_hours"
        return {f"time/{name}_s": seconds for name, seconds in stages.items()} | {
            "time/total_s": sum(stages.values()),
            "device_seconds": self.meter.total_seconds,
            hours: self.meter.total_seconds / 3600,
            "memory/peak_bytes": self.meter.peak_memory_bytes(),
        }


def summarize(
    rollout: Rollout, scores: Scores, credit: Credit, rewards: ShapedRewards, stats: UpdateStats
) -> dict[str, float]:
    """The metrics of one update, by the names of docs/metrics.md. `reward/raw_mean` is the raw score, whatever the method."""
    kl = (rollout.logprobs - rollout.ref_logprobs).sum(1)
    sequence_kl = float(kl.mean())
    lengths = rollout.response_mask.sum(1).float()
    return {
        "reward/raw_mean": float(scores.raw.mean()),
        "reward/raw_std": float(scores.raw.std(unbiased=False)),
        "reward/score_mean": float(scores.final.mean()),
        "reward/shaped_sum_mean": float(rewards.total.sum(1).mean()),
        "kl/seq_sum_mean": sequence_kl,
        "kl/sqrt": math.sqrt(max(sequence_kl, 0.0)),
        "objective/non_score": float(rewards.kl.sum(1).mean()),
        "len/mean": float(lengths.mean()),
        "eos_frac": float(rollout.finished.float().mean()),
        "credit/queries_mean": float(credit.reward_queries.float().mean()),
        **credit.diagnostics,
        **{f"ppo/{name}": value for name, value in stats.items()},
    }
