"""The seams of the house on one page: what a task, a model, a credit method or a tracker must be able to do.

Implementations do not inherit from these; `scar/commands/build.py` wires them together and mypy compares the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from scar.config import PPOConfig
from scar.types import CoalitionRows, Credit, PromptBatch, Rollout, Units


@dataclass(frozen=True)
class PolicyOutput:
    """What a policy says of given responses: `logprobs`, `entropy`, `values` f32[B,T] (nats, nats, reward units)."""

    logprobs: Tensor
    entropy: Tensor
    values: Tensor


@dataclass(frozen=True)
class PromptText:
    """One prompt as text, `before` + `body` + `after`, of which only `body` may be cut; `reward`: the prompt as the reward
    model reads it, None for the same tokens."""

    before: str
    body: str
    after: str
    reward: str | None = None


class Decoder(Protocol):
    """Generates one token at a time behind a batch of prompts."""

    def draw(self, noise: Tensor) -> Tensor:
        """i64[B]: the next token of every prompt, drawn by `noise` f32[B,V] of the exponential distribution."""
        ...

    def append(self, tokens: Tensor) -> None:
        """Append `tokens` i64[B]."""
        ...


class Policy(Protocol):
    """A language model seen as the distribution that it is sampled from."""

    eos_id: int
    pad_id: int
    vocabulary: int

    def decoder(self, prompts: PromptBatch, *, temperature: float | None = None) -> AbstractContextManager[Decoder]:
        """Start generating behind `prompts`, at the policy's own temperature (None) or another; the decoder is good inside
        the context."""
        ...

    def evaluate(self, prompts: PromptBatch, response_ids: Tensor, response_mask: Tensor) -> PolicyOutput:
        """Log-probabilities, entropies and values of given responses, zero off the mask."""
        ...


class RewardModel(Protocol):
    """Scores prompt + response sequences; i64[R,L] ids and b[R,L] mask, where a False column is not there at all."""

    space_id: int
    max_tokens: int

    def score(self, ids: Tensor, mask: Tensor) -> Tensor:
        """f32[R]: the score read at each row's last real token."""
        ...

    def score_prefixes(self, ids: Tensor, mask: Tensor) -> Tensor:
        """f32[R,L]: the score that would be read at each position (causal reward models only)."""
        ...

    def last_layer_attention(self, ids: Tensor, mask: Tensor) -> Tensor:
        """f32[R,L]: last-layer attention, mean over heads, of the position at which the score is read."""
        ...


class Task(Protocol):
    """A source of prompts; `source` says which data."""

    name: str

    def prompts(self, split: str) -> Sequence[PromptText]:
        """The prompts of "train", "validation" or "test"."""
        ...


class Parser(Protocol):
    """Finds the constituents of sentences."""

    name: str

    def load(self) -> None:
        """Load what `parse` needs; FileNotFoundError says how to get what is absent."""
        ...

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Any]:
        """An `nltk.Tree` over the words of each sentence, as many leaves as words; None where there is no parse."""
        ...


class Segmenter(Protocol):
    """Splits responses into units."""

    def load(self) -> None:
        """Load what `segment` needs; FileNotFoundError says how to get what is absent."""
        ...

    def segment(self, rollout: Rollout) -> Units:
        """Contiguous units that cover each response except its EOS."""
        ...


class CoalitionScorer(Protocol):
    """Scores the coalitions of a batch (a reward model seen from the game)."""

    space_id: int

    def score(self, batch: Sequence[CoalitionRows]) -> list[np.ndarray]:
        """f64[M] for the rows of each prompt: the score read at each row's last token."""
        ...


class CreditMethod(Protocol):
    """Splits each response's raw score over its tokens. What a method needs it names (scar/credit/methods.py): models and
    estimator among its constructor's parameters, `units` among those of `assign`."""

    name: str

    @property
    def assign(self) -> Callable[..., Credit]:
        """`assign(rollout, scores, *, generator)`, or `assign(rollout, scores, units, *, generator)` of a method that works
        on units: Credit whose rows sum to `scores.credited`."""
        ...


class Tracker(Protocol):
    """Receives the rows of a run."""

    def log(self, row: dict[str, Any]) -> None:
        """One update's metrics."""
        ...

    def resume(self, rows: Sequence[dict[str, Any]]) -> None:
        """The rows of a run that was stopped and goes on: they were logged before, to a tracker that is no more."""
        ...

    def finish(self, status: str) -> None:
        """Close: `status` is "finished", "stopped" (it can go on) or "failed"."""
        ...


# The seams between the stages and the machine: what an engine and the learner that it makes must be able to do.


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
