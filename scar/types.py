"""The data types that flow through one PPO update, in the order in which they are made.

Every type is a frozen dataclass that checks shapes and dtypes when it is built, so that an error shows where it was
made and not three stages later. Masks are True on real tokens, everywhere. Shapes: B batch, P prompt tokens,
T response tokens, N units, R response tokens of the reward model. This module holds data only; no stage of the
computation lives here. The types of the coalition games come last.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


def _check(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int | None, ...]) -> None:
    """Raise if `tensor` is not of `dtype` and `shape` (None: any size)."""
    if tensor.dtype != dtype:
        raise TypeError(f"{name} has dtype {tensor.dtype}; it must be {dtype}")
    if tensor.dim() != len(shape) or any(
        allowed is not None and got != allowed for got, allowed in zip(tensor.shape, shape, strict=True)
    ):
        expected = "x".join("*" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {expected}")


@dataclass(frozen=True)
class PromptBatch:
    """Left-padded prompts: `prompt_ids` i64[B,P], `prompt_mask` b[B,P], the decoded `texts`; `reward_texts`: the prompts
    as the reward model reads them, None where it reads the same tokens."""

    prompt_ids: Tensor
    prompt_mask: Tensor
    texts: list[str]
    reward_texts: list[str] | None = None

    def __post_init__(self) -> None:
        _check("prompt_ids", self.prompt_ids, torch.int64, (None, None))
        _check("prompt_mask", self.prompt_mask, torch.bool, tuple(self.prompt_ids.shape))
        if len(self.texts) != len(self.prompt_ids):
            raise ValueError(f"{len(self.texts)} prompt texts for {len(self.prompt_ids)} prompts")
        if self.reward_texts is not None and len(self.reward_texts) != len(self.texts):
            raise ValueError(f"{len(self.reward_texts)} prompts for the reward model, {len(self.texts)} for the policy")
        if not bool(self.prompt_mask[:, -1].all()):
            raise ValueError("prompts must be padded on the left: the last column of prompt_mask must be True")

    def select(self, rows: Tensor) -> PromptBatch:
        """The prompts `rows` i64[R], as wide as before."""
        indices = rows.tolist()
        reward_texts = None if self.reward_texts is None else [self.reward_texts[i] for i in indices]
        return PromptBatch(
            self.prompt_ids[rows], self.prompt_mask[rows], [self.texts[i] for i in indices], reward_texts
        )


@dataclass(frozen=True)
class Rollout:
    """Sampled responses and what the policy thought of them when it sampled.

    `response_ids` i64[B,T] right-padded; `response_mask` b[B,T] with the EOS token included; `logprobs`,
    `ref_logprobs`, `values` f32[B,T], zero off the mask; `finished` b[B]: the response ends with EOS.
    Log-probabilities are those of the sampling distribution (temperature and EOS suppression included), in nats.
    """

    prompts: PromptBatch
    response_ids: Tensor
    response_mask: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    finished: Tensor
    texts: list[str]

    def __post_init__(self) -> None:
        batch = len(self.prompts.prompt_ids)
        _check("response_ids", self.response_ids, torch.int64, (batch, None))
        shape = tuple(self.response_ids.shape)
        _check("response_mask", self.response_mask, torch.bool, shape)
        for name in ("logprobs", "ref_logprobs", "values"):
            _check(name, getattr(self, name), torch.float32, shape)
        _check("finished", self.finished, torch.bool, (batch,))
        if not bool(self.response_mask[:, 0].all()):
            raise ValueError("every response needs at least one token: the first column of response_mask must be True")
        if bool((self.response_mask[:, 1:] & ~self.response_mask[:, :-1]).any()):
            raise ValueError("responses must be padded on the right: response_mask may not have a hole")
        if len(self.texts) != batch:
            raise ValueError(f"{len(self.texts)} response texts for {batch} responses")

    @property
    def last_step(self) -> Tensor:
        """i64[B]: the index of the last real response token."""
        return self.response_mask.sum(1) - 1

    @property
    def content_mask(self) -> Tensor:
        """b[B,T]: the response tokens without a closing EOS (EOS is never a player and never carries credit)."""
        mask = self.response_mask.clone()
        rows = torch.arange(len(mask), device=mask.device)
        mask[rows, self.last_step] &= ~self.finished
        return mask

    def sequence_ids(self) -> Tensor:
        """i64[B,P+T]: prompt and response side by side (left padding, then right padding)."""
        return torch.cat([self.prompts.prompt_ids, self.response_ids], 1)

    def sequence_mask(self, response_mask: Tensor) -> Tensor:
        """b[B,P+T]: the prompt's mask beside `response_mask` b[B,T]."""
        return torch.cat([self.prompts.prompt_mask, response_mask], 1)


@dataclass(frozen=True)
class RewardInputs:
    """What the reward model reads of a batch: prompts padded left, responses padded right, in its own tokens.

    `prompt_ids` i64[B,Q], `prompt_mask` b[B,Q], `ids` i64[B,R], `mask` b[B,R] (empty rows are allowed: then the prompt
    alone is read). `step` i64[B,R]: the response step (policy token) that a token stands for, -1 for EOS and padding;
    `end_step` i64[B,R]: the step by which its text is complete. `overlap` f32[B,R,T]: how its text is shared out over
    the policy's tokens (rows sum to 1), None when both models have the same tokens.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    ids: Tensor
    mask: Tensor
    step: Tensor
    end_step: Tensor
    overlap: Tensor | None = None

    def __post_init__(self) -> None:
        _check("prompt_ids", self.prompt_ids, torch.int64, (None, None))
        _check("prompt_mask", self.prompt_mask, torch.bool, tuple(self.prompt_ids.shape))
        _check("ids", self.ids, torch.int64, (len(self.prompt_ids), None))
        shape = tuple(self.ids.shape)
        _check("mask", self.mask, torch.bool, shape)
        for name in ("step", "end_step"):
            _check(name, getattr(self, name), torch.int64, shape)
        if self.overlap is not None:
            _check("overlap", self.overlap, torch.float32, (*shape, None))

    def sequence_ids(self) -> Tensor:
        """i64[B,Q+R]: prompt and response side by side."""
        return torch.cat([self.prompt_ids, self.ids], 1)

    def sequence_mask(self) -> Tensor:
        """b[B,Q+R]: the mask of `sequence_ids`."""
        return torch.cat([self.prompt_mask, self.mask], 1)

    def of_response(self, values: Tensor) -> Tensor:
        """[B,R]: the response's columns of `values` [B,Q+R]."""
        return values[:, self.prompt_ids.shape[1] :]


@dataclass(frozen=True)
class Scores:
    """`raw` f32[B] = r_phi(x, y) as the reward model gave it; `final` f32[B] after the task's rules; `replaced` b[B]:
    a rule put its own number in place of the score (a response without EOS); `inputs`: what the reward model read."""

    raw: Tensor
    final: Tensor
    replaced: Tensor
    inputs: RewardInputs

    def __post_init__(self) -> None:
        _check("raw", self.raw, torch.float32, (None,))
        _check("final", self.final, torch.float32, tuple(self.raw.shape))
        _check("replaced", self.replaced, torch.bool, tuple(self.raw.shape))
        if len(self.inputs.ids) != len(self.raw):
            raise ValueError(f"{len(self.inputs.ids)} responses were read for {len(self.raw)} scores")

    @property
    def credited(self) -> Tensor:
        """f32[B]: what credit explains: the raw score, 0 where a rule replaced it (docs/decisions.md#missing-eos)."""
        return self.raw.masked_fill(self.replaced, 0.0)


@dataclass(frozen=True)
class Units:
    """Players of the game: contiguous token ranges of each response.

    `unit_index` i64[B,T], -1 where a token is no player (padding, EOS); `count` i64[B]; `end_step` i64[B,N] = t_i, the
    0-based step at which unit i is complete (-1 beyond `count`); `hierarchies`: per response int64[n-1,2], row k joins
    two earlier nodes into node n+k, leaves are 0..n-1, the last row is the root (empty for n < 2). `diagnostics`: named
    scalars of the batch to log, of how the units were made.
    """

    unit_index: Tensor
    count: Tensor
    end_step: Tensor
    hierarchies: list[np.ndarray]
    diagnostics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("unit_index", self.unit_index, torch.int64, (None, None))
        _check("count", self.count, torch.int64, (len(self.unit_index),))
        _check("end_step", self.end_step, torch.int64, (len(self.unit_index), None))
        for hierarchy, count in zip(self.hierarchies, self.count.tolist(), strict=True):
            if hierarchy.shape != (max(count - 1, 0), 2):
                raise ValueError(f"hierarchy of {count} units has shape {hierarchy.shape}; it must be {count - 1}x2")


@dataclass(frozen=True)
class Credit:
    """A method's split of the raw score: `per_token` f32[B,T], rows sum to `Scores.credited`, less what SCAR leaves out on
    request (`empty`, `one_unit`); `unit_values` f32[B,N] or None; `reward_queries` i64[B]: extra reward-model evaluations spent
    on each response; `diagnostics`: named scalars to log."""

    per_token: Tensor
    unit_values: Tensor | None
    reward_queries: Tensor
    diagnostics: dict[str, float]

    def __post_init__(self) -> None:
        _check("per_token", self.per_token, torch.float32, (None, None))
        if self.unit_values is not None:
            _check("unit_values", self.unit_values, torch.float32, (len(self.per_token), None))
        _check("reward_queries", self.reward_queries, torch.int64, (len(self.per_token),))


@dataclass(frozen=True)
class ShapedRewards:
    """The parts of Eq. 6, each f32[B,T]: `kl`, `credit` (alpha applied), `terminal` (the sparse share of raw, plus penalties)."""

    kl: Tensor
    credit: Tensor
    terminal: Tensor

    def __post_init__(self) -> None:
        _check("kl", self.kl, torch.float32, (None, None))
        for name in ("credit", "terminal"):
            _check(name, getattr(self, name), torch.float32, tuple(self.kl.shape))

    @property
    def total(self) -> Tensor:
        """f32[B,T]: the reward that PPO sees at each response token."""
        return self.kl + self.credit + self.terminal


@dataclass(frozen=True)
class Advantages:
    """`advantages` f32[B,T] (whitened) and `returns` f32[B,T] (from unwhitened advantages), zero off the mask."""

    advantages: Tensor
    returns: Tensor

    def __post_init__(self) -> None:
        _check("advantages", self.advantages, torch.float32, (None, None))
        _check("returns", self.returns, torch.float32, tuple(self.advantages.shape))


UpdateStats = dict[str, float]
"""Named scalars of one PPO update: losses, clip fractions, approximate KL, entropy, gradient norm, skipped steps."""


# The data types of the coalition games: which coalitions to score, their texts, and their values.
#
# Frozen and checked like those above, but NumPy: plans are small and float64. M coalitions, n units.


@dataclass(frozen=True)
class CoalitionPlan:
    """Which coalitions to evaluate and how to combine them: unit values = weights @ v.

    `coalitions` b[M,n] (NumPy), row 0 the empty one and row 1 the grand one; `weights` f64[n,M].
    """

    coalitions: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        if self.coalitions.dtype != np.bool_ or self.coalitions.ndim != 2:
            raise TypeError(f"coalitions must be a Boolean matrix, got {self.coalitions.dtype} {self.coalitions.shape}")
        if self.weights.shape != self.coalitions.shape[::-1] or self.weights.dtype != np.float64:
            raise ValueError(f"weights {self.weights.shape} do not fit coalitions {self.coalitions.shape}")


@dataclass(frozen=True)
class CoalitionRows:
    """Token rows to score behind one prompt (NumPy): `prompt_ids` i64[P], `ids` i64[M,T], of which row m has
    `lengths` i64[M] tokens (0: the prompt alone is scored)."""

    prompt_ids: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray

    def __post_init__(self) -> None:
        for name in ("prompt_ids", "ids", "lengths"):
            if getattr(self, name).dtype != np.int64:
                raise TypeError(f"{name} has dtype {getattr(self, name).dtype}; it must be int64")
        if self.prompt_ids.ndim != 1 or len(self.prompt_ids) == 0:
            raise ValueError(f"prompt_ids has shape {self.prompt_ids.shape}; it must be one row of at least one token")
        if self.ids.ndim != 2 or self.lengths.shape != self.ids.shape[:1]:
            raise ValueError(f"lengths {self.lengths.shape} do not fit ids {self.ids.shape}")
        if len(self.lengths) and not 0 <= self.lengths.min() <= self.lengths.max() <= self.ids.shape[1]:
            raise ValueError(f"lengths must lie between 0 and {self.ids.shape[1]}")


@dataclass(frozen=True)
class UnitValues:
    """What an estimator says of one response: `values` f64[n], which sum to v(all) - v(empty); `empty` = v(empty);
    `empty_share` f64[n], sum 1: what each unit would get of v(empty) if that were 0; `queries`: coalitions evaluated;
    `hierarchy`: "given"; "exact" where the values are exact Shapley values, which need none; "rebalanced" or "coarsened" where
    the given one was over the estimator's budget, "truncated" where its values were cut off."""

    values: np.ndarray
    empty: float
    empty_share: np.ndarray
    queries: int
    hierarchy: str = "given"
