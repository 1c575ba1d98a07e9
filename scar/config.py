"""Checked settings of generation, PPO and evaluation, and the fingerprint that names a run or a trained model.

Values come from `conf/`; each is explained there with its source. scar/commands/settings.py checks their types, this module their
bounds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


def require(condition: bool, got: str, allowed: str) -> None:
    """Raise ValueError saying what was got and what is allowed, unless `condition` holds."""
    if not condition:
        raise ValueError(f"{got}; allowed: {allowed}")


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)


@dataclass(frozen=True)
class GenerationConfig:
    """How responses are sampled: softmax(logits / temperature), EOS impossible before `min_new_tokens`.

    With `sample_length` each response gets its own limit L ~ U{min_new_tokens..max_new_tokens}, else all `max_new_tokens`.
    """

    temperature: float
    min_new_tokens: int
    max_new_tokens: int
    sample_length: bool

    def __post_init__(self) -> None:
        require(self.temperature > 0, f"task.generation.temperature={self.temperature}", "a number above 0")
        require(self.max_new_tokens >= 1, f"task.generation.max_new_tokens={self.max_new_tokens}", "1 or more")
        least = 1 if self.sample_length else 0
        require(
            least <= self.min_new_tokens <= self.max_new_tokens,
            f"task.generation.min_new_tokens={self.min_new_tokens}",
            f"{least} to task.generation.max_new_tokens={self.max_new_tokens}",
        )


@dataclass(frozen=True)
class ScoringConfig:
    """How responses are scored: whether the reward model reads a closing EOS, and the score that replaces that of a
    response without EOS (None: no such rule)."""

    reads_eos: bool
    missing_eos_score: float | None


@dataclass(frozen=True)
class PPOConfig:
    """One PPO configuration; batch sizes in episodes. `minibatch_size` episodes make one optimizer step, processed
    `microbatch_size` at a time (gradients add up exactly to those of the whole minibatch's token-weighted mean).
    `kl_scale` multiplies `kl_coef` and `kl_target`. `value_net`: a head on the policy's trunk ("shared"), or a model of its own
    that starts as the reward model."""

    updates: int
    batch_size: int
    minibatch_size: int
    microbatch_size: int
    ppo_epochs: int
    learning_rate: float
    learning_rate_schedule: Literal["constant", "linear"]
    adam_eps: float
    weight_decay: float
    kl_coef: float
    kl_control: Literal["adaptive", "fixed"]
    kl_target: float
    kl_horizon: float
    kl_scale: float
    gamma: float
    gae_lambda: float
    clip_range: float
    value_clip_range: float
    value_loss_coef: float
    value_net: Literal["shared", "separate"]
    max_grad_norm: float | None
    max_mean_ratio: float | None

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "minibatch_size", "microbatch_size", "ppo_epochs"):
            require(getattr(self, name) >= 1, f"ppo.{name}={getattr(self, name)}", "1 or more")
        self._check_divides("batch_size", "minibatch_size")
        self._check_divides("minibatch_size", "microbatch_size")
        for name in ("gamma", "gae_lambda"):
            require(0 <= getattr(self, name) <= 1, f"ppo.{name}={getattr(self, name)}", "a number from 0 to 1")
        for name in (
            "learning_rate",
            "clip_range",
            "value_clip_range",
            "kl_target",
            "kl_horizon",
            "kl_scale",
            "adam_eps",
        ):
            require(getattr(self, name) > 0, f"ppo.{name}={getattr(self, name)}", "a number above 0")
        for name in ("max_grad_norm", "max_mean_ratio"):
            value = getattr(self, name)
            require(value is None or value > 0, f"ppo.{name}={value}", "null (no limit) or a number above 0")
        for name in ("kl_coef", "value_loss_coef", "weight_decay"):
            require(getattr(self, name) >= 0, f"ppo.{name}={getattr(self, name)}", "0 or more")

    def _check_divides(self, name: str, divisor_name: str) -> None:
        size, divisor = getattr(self, name), getattr(self, divisor_name)
        if size % divisor:
            raise ValueError(
                f"ppo.{name}={size} is not divisible by ppo.{divisor_name}={divisor}; "
                f"set {divisor_name} to one of {_divisors(size)}"
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """How a policy is judged: `prompts` test prompts drawn with `seed` (the same for every run), `batch_size` at a time, with
    responses of the training's sampling `temperature` (None) or another."""

    prompts: int
    batch_size: int
    seed: int
    temperature: float | None

    def __post_init__(self) -> None:
        require(self.prompts >= 1, f"evaluation.prompts={self.prompts}", "1 or more")
        require(self.batch_size >= 1, f"evaluation.batch_size={self.batch_size}", "1 or more")
        got, allowed = f"evaluation.temperature={self.temperature}", "null (the training's) or a number above 0"
        require(self.temperature is None or self.temperature > 0, got, allowed)


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters on a frozen model (Hu et al. 2021): scale `alpha` / `rank`; no dropout (docs/decisions.md#dropout)."""

    rank: int
    alpha: int

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"models.policy.load.lora.rank={self.rank}", "1 or more")
        require(self.alpha > 0, f"models.policy.load.lora.alpha={self.alpha}", "1 or more")


@dataclass(frozen=True)
class LoadConfig:
    """How the policy is held: `weights` float32, bfloat16 or nf4 (4 bits, double quantisation), `compute` the type that its
    forward passes use, `lora` (a mapping, see LoraSettings) the adapters that are trained in place of the weights."""

    weights: Literal["float32", "bfloat16", "nf4"] = "float32"
    compute: Literal["float32", "bfloat16"] = "float32"
    lora: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        group = "models.policy.load"
        trained = self.weights == "float32" or self.lora is not None
        require(
            trained,
            f"{group}.weights={self.weights} with lora=null",
            "float32 weights are trained whole, others by lora",
        )
        wide = self.weights != "bfloat16" or self.compute == "bfloat16"
        require(wide, f"{group}.weights=bfloat16 with compute={self.compute}", "compute=bfloat16")
        self.adapters  # noqa: B018  raises for wrong settings

    @property
    def adapters(self) -> LoraSettings | None:
        """The settings of the adapters, if there are any."""
        if self.lora is None:
            return None
        unknown = set(self.lora) ^ {"rank", "alpha"}
        require(not unknown, f"models.policy.load.lora with {', '.join(sorted(unknown))}", "rank and alpha, or null")
        return LoraSettings(**self.lora)


@dataclass(frozen=True)
class MemoryConfig:
    """What is traded for memory: `gradient_checkpointing` computes activations twice, `offload` keeps reference policy and
    reward model on the host between the stages that need them."""

    gradient_checkpointing: bool
    offload: bool


def fingerprint(settings: Mapping[str, Any], *, length: int = 10) -> str:
    """A short name for `settings`: equal settings give equal names, on every machine."""
    text = json.dumps(_canonical(settings), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _canonical(value: Any) -> Any:
    """Whole floats as integers, everywhere inside: `alpha=1` and `alpha=1.0` are the same setting."""
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
