"""One PPO update: epochs over shuffled minibatches, each one optimizer step of accumulated microbatches; the KL coefficient."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from scar.config import PPOConfig
from scar.interfaces import Learner
from scar.ppo.losses import explained_variance, policy_losses, value_losses
from scar.types import Advantages, Rollout, UpdateStats


class PPOUpdater:
    """Improves the policy of `learner` on one rollout at a time."""

    def __init__(self, learner: Learner, config: PPOConfig) -> None:
        self.learner = learner
        self._config = config
        self.optimizer_steps = 0

    def set_learning_rate(self, update: int) -> float:
        """Learning rate of `update` (1-based): constant, or linear from the full rate towards 0 over the run's updates."""
        rate = self._config.learning_rate
        if self._config.learning_rate_schedule == "linear":
            rate *= 1 - (update - 1) / self._config.updates
        self.learner.set_learning_rate(rate)
        return rate

    def update(self, rollout: Rollout, advantages: Advantages, *, generator: torch.Generator) -> UpdateStats:
        """Run all PPO epochs; returns means over the optimizer steps (token means within a step)."""
        if len(rollout.response_ids) != self._config.batch_size:
            raise ValueError(
                f"a rollout of {len(rollout.response_ids)} responses; ppo.batch_size={self._config.batch_size}"
            )
        config, totals, skipped = self._config, defaultdict[str, float](float), 0
        first_ratio_error = None
        for _ in range(config.ppo_epochs):
            order = torch.randperm(config.batch_size, generator=generator)
            for minibatch in order.split(config.minibatch_size):
                stats = self._step(rollout, advantages, minibatch.to(rollout.response_ids.device))
                ratio_error = stats.pop("ratio_error")
                first_ratio_error = ratio_error if first_ratio_error is None else first_ratio_error
                skipped += int(stats.pop("skipped"))
                for name, value in stats.items():
                    totals[name] += value
        steps = config.ppo_epochs * config.batch_size // config.minibatch_size
        return {name: total / steps for name, total in totals.items()} | {
            "skipped": float(skipped),
            "first_ratio_error": float(first_ratio_error or 0.0),
            "explained_var": explained_variance(rollout.values, advantages.returns, rollout.response_mask),
        }

    def _step(self, rollout: Rollout, advantages: Advantages, rows: Tensor) -> dict[str, float]:
        """One optimizer step on the episodes `rows`; sums over microbatches divided by the minibatch's token count, so
        that the split into microbatches changes nothing (the code bases of the paper weight each microbatch equally)."""
        tokens = rollout.response_mask[rows].sum()
        totals: dict[str, float] = defaultdict(float)
        for chunk in self.learner.share(rows).split(self._config.microbatch_size):
            loss, sums = self._losses(rollout, advantages, chunk)
            self.learner.backward(loss / tokens)
            for name, value in sums.items():
                totals[name] += value
        stats = {name: value / float(tokens) for name, value in self.learner.add_up(totals).items()}
        limit = self._config.max_mean_ratio
        guard_hit = limit is not None and not stats["ratio_mean"] <= limit  # so that nan is caught too
        # A policy far from its rollout would only be driven further away (docs/decisions.md#ratio-guard).
        norm = self.learner.step(skip=guard_hit)
        self.optimizer_steps += not guard_hit
        return stats | {"grad_norm": norm, "skipped": float(guard_hit)}

    def _losses(self, rollout: Rollout, advantages: Advantages, rows: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The summed loss of `rows` and summed statistics, over real tokens."""
        config, mask = self._config, rollout.response_mask[rows]
        new = self.learner.policy.evaluate(rollout.prompts.select(rows), rollout.response_ids[rows], mask)
        policy, policy_clipped = policy_losses(
            new.logprobs, rollout.logprobs[rows], advantages.advantages[rows], clip_range=config.clip_range
        )
        value, value_clipped = value_losses(
            new.values, rollout.values[rows], advantages.returns[rows], clip_range=config.value_clip_range
        )
        loss = (policy * mask).sum() + config.value_loss_coef * (value * mask).sum()
        with torch.no_grad():
            log_ratio = new.logprobs - rollout.logprobs[rows]
            statistics = {
                "policy_loss": policy,
                "value_loss": value,
                "approx_kl": 0.5 * log_ratio**2,
                "clipfrac": policy_clipped.float(),
                "vf_clipfrac": value_clipped.float(),
                "ratio_mean": log_ratio.exp(),
                "ratio_error": (log_ratio.exp() - 1).abs(),
                "entropy": new.entropy,
            }
            sums = {name: float((values * mask).sum()) for name, values in statistics.items()}
        return loss, sums


# The KL coefficient: fixed, or nudged towards a target (Ziegler et al. 2019, section 2.2; docs/decisions.md#ppo-defaults).


class KLController:
    """Holds `coef`. kind "adaptive": coef *= 1 + clip(KL / target - 1, -0.2, 0.2) episodes / horizon after each update."""

    def __init__(self, *, kind: str, coef: float, target: float, horizon: float) -> None:
        self.coef = coef
        self._adaptive = kind == "adaptive"
        self._target = target
        self._horizon = horizon

    def update(self, sequence_kl: float, *, episodes: int) -> None:
        """Take in the batch mean of the per-sequence KL sum (nats) of an update of `episodes` episodes."""
        if self._adaptive:
            error = min(max(sequence_kl / self._target - 1, -0.2), 0.2)
            self.coef *= 1 + error * episodes / self._horizon
