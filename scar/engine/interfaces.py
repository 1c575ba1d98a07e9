"""The seams between the stages and the machine: what an engine and the learner that it makes must be able to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from scar.config import PPOConfig
from scar.interfaces import CoalitionScorer, Policy, RewardModel


class Learner(Protocol):
    """A policy with its optimizer, in one process or sharded over several. What every process does is the whole's: rows are
    given for all, and each takes its share of them."""

    policy: Policy

    def share(self, rows: Tensor) -> Tensor:
        """The rows i64[R] of a minibatch that this process computes; as many on every process."""
        ...

    def add_up(self, sums: dict[str, float]) -> dict[str, float]:
        """Sums over the rows of all processes."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of this process's part of the loss; the loss is the sum over the processes."""
        ...

    def set_learning_rate(self, rate: float) -> None:
        """Of the steps to come."""
        ...

    def step(self, *, skip: bool) -> float:
        """Clip and take one optimizer step, or with `skip` only forget the gradients; their norm before clipping. ValueError
        at the first step taken if a trained parameter has no gradient."""
        ...

    def held_bytes(self) -> dict[str, int]:
        """Bytes that this process keeps between updates: "weights" of the policy, and "optimizer" (Adam's means, and float32
        copies of what is trained)."""
        ...

    def save(self, folder: Path) -> None:
        """Write what is trained and the optimizer's state, as safetensors; every process its part."""
        ...

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; ValueError when it does not fit."""
        ...


class Engine(Protocol):
    """Where models compute: this process alone, or several that share the rows of every batch (scar/engine)."""

    processes: int
    is_main: bool

    def learner(self, policy: Any, config: PPOConfig) -> Learner:
        """The policy and value function to be trained, with their optimizer."""
        ...

    def sampled(self, policy: Any) -> Policy:
        """A policy for sampling and log-probabilities without gradients; each process computes a share of the rows."""
        ...

    def frozen(self, policy: Any) -> Policy:
        """A reference policy, likewise."""
        ...

    def reward_model(self, model: Any) -> RewardModel:
        """A reward model, likewise."""
        ...

    def scorer(self, scorer: CoalitionScorer, model: Any) -> CoalitionScorer:
        """Coalitions scored with the reward model `model`, likewise."""
        ...

    def settle(self) -> None:
        """Put all models where they stay; from then on they are used through what was made here."""
        ...

    def merge(self, row: dict[str, Any], costs: dict[str, float]) -> dict[str, Any]:
        """`row`, which must be the same on every process, and the costs of all: memory is the largest, times are summed."""
        ...

    def agreed(self, value: Any) -> Any:
        """The main process's value."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds on one process at least."""
        ...

    def describe(self) -> dict[str, Any]:
        """For manifests and checkpoints: name, processes and settings."""
        ...
