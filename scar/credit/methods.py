"""The credit methods: how each splits a response's raw score over its tokens. Every row of credit sums to the score, but for
what SCAR leaves out on request (docs/decisions.md#empty-coalition, docs/decisions.md#one-unit).

Sparse, uniform, ABC and SCAR are the paper's (docs/decisions.md#alpha-of-other-methods, docs/decisions.md#last-token,
docs/decisions.md#attention-credit); RED (Li et al. 2024, arXiv 2411.08302) is a cheap baseline for causal reward models.
EOS carries no dense credit but in uniform (an equal share, as in ABC's code) and, where the reward model reads it, in RED.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from scar.credit.estimators import Estimator
from scar.credit.game import Fill, TextGame
from scar.credit.rewards import at_last_step, at_unit_ends
from scar.credit.texts import UnitTexts
from scar.interfaces import CoalitionScorer, CreditMethod, RewardModel
from scar.segmentation.units import merge_empty_units
from scar.types import Credit, RewardInputs, Rollout, Scores, Units, UnitValues

Empty = Literal["uniform", "zero", "terminal", "drop"]
OneUnit = Literal["score", "none"]
CONSTRUCTED_WITH = ("reward_model", "scorer", "estimator", "texts")
"""What a method's constructor may ask for: the reward model, a scorer of coalitions, an estimator of unit values, the texts of
units."""


def needs(method: Callable[..., CreditMethod]) -> tuple[str, ...]:
    """What a class of credit methods asks for, read off its signatures: those of `CONSTRUCTED_WITH` that its constructor
    takes, and "units" where its `assign` takes them. ValueError for a class that says so in the old way, or has no `assign`."""
    name = getattr(method, "__name__", method)
    if not hasattr(method, "assign"):
        raise ValueError(f"{name} is no credit method; allowed: a class with assign(rollout, scores, *, generator)")
    if hasattr(method, "needs_units"):
        raise ValueError(
            f"{name}.needs_units is no longer read; leave it out, and give `assign` the parameter `units` if it uses units"
        )
    made_with, units = inspect.signature(method).parameters, "units" in inspect.signature(method.assign).parameters
    return (*(parameter for parameter in CONSTRUCTED_WITH if parameter in made_with), *(["units"] if units else []))


def credit_without_units(per_token: Tensor, scores: Scores, *, queries: int) -> Credit:
    """Credit of a method without units, f32[B, T], after checking that rows sum to the score (`check_efficiency`); `queries`:
    reward-model evaluations per response beyond the one that scores it."""
    check_efficiency(per_token, scores)
    counts = torch.full((len(per_token),), queries, dtype=torch.int64)
    return Credit(per_token=per_token, unit_values=None, reward_queries=counts, diagnostics={})


def check_efficiency(per_token: Tensor, scores: Scores, *, left_out: Tensor | None = None) -> float:
    """Largest |sum of a row + left_out - score| / (1 + |score|); RuntimeError above 1e-4 (it is never repaired).

    Args: `per_token` f32[B,T]; `left_out` f32[B], the part of each score that credit does not pay by design, None for none.
    """
    credited = scores.credited
    paid = per_token.sum(1) if left_out is None else per_token.sum(1) + left_out
    error = ((paid - credited).abs() / (1 + credited.abs())).max()
    if not error <= 1e-4:  # also true for nan
        raise RuntimeError(
            f"credit does not sum to the reward-model score (relative error {float(error):.3g}, allowed 1e-4): "
            "the shaped reward would change the task; this is a bug in the credit method or a reward model that "
            "gives nan or infinity"
        )
    return float(error)


class SparseMethod:
    """All of the score on the last token (Eq. 2)."""

    name = "sparse"

    def assign(self, rollout: Rollout, scores: Scores, *, generator: np.random.Generator) -> Credit:
        """One-hot credit."""
        return credit_without_units(at_last_step(scores.credited, rollout), scores, queries=0)


class UniformMethod:
    """The same share for every response token, EOS included (as in ABC's code)."""

    name = "uniform"

    def assign(self, rollout: Rollout, scores: Scores, *, generator: np.random.Generator) -> Credit:
        """score / length on every real token."""
        mask = rollout.response_mask
        return credit_without_units((scores.credited / mask.sum(1))[:, None] * mask, scores, queries=0)


class AttentionMethod:
    """ABC (Chan et al. 2024): the score in proportion to the reward model's last-layer attention, mean over heads.

    Row: the position at which the score is read. Columns: response tokens without EOS, normalised to sum 1; a row that
    sums to 0 becomes uniform (docs/decisions.md#attention-credit). Where the reward model has other tokens, the weight of
    each is spread over the policy's tokens by the characters that they share (docs/decisions.md#two-tokenizers).
    """

    name = "abc"

    def __init__(self, *, reward_model: RewardModel) -> None:
        self._reward_model = reward_model

    def assign(self, rollout: Rollout, scores: Scores, *, generator: np.random.Generator) -> Credit:
        """score * attention share; one extra forward pass of the reward model."""
        inputs, columns = scores.inputs, rollout.content_mask
        attention = self._reward_model.last_layer_attention(inputs.sequence_ids(), inputs.sequence_mask())
        weights = inputs.of_response(attention)
        if inputs.overlap is not None:
            weights = torch.bmm(((inputs.step >= 0) * weights)[:, None], inputs.overlap).squeeze(1)
        weights = weights * columns
        empty = (weights.sum(1) <= 0)[:, None]
        # A response that is only EOS has no column at all: then the one real token takes everything.
        fallback = torch.where(columns.any(1, keepdim=True), columns, rollout.response_mask)
        weights = torch.where(empty, fallback.float(), weights)
        return credit_without_units(
            scores.credited[:, None] * weights / weights.sum(1, keepdim=True), scores, queries=1
        )


class RedMethod:
    """RED (Li et al. 2024, arXiv 2411.08302), which is not in the paper: each token gets r(x, y_1..t) - r(x, y_1..t-1), read off
    one forward pass of a causal reward model.

    The first token's difference is taken to 0, so r(x) itself lands there (v(empty) = 0) and rows telescope to the
    score. A final EOS that the reward model reads belongs to the last difference and is credited where it is read.
    """

    name = "red"

    def __init__(self, *, reward_model: RewardModel) -> None:
        self._reward_model = reward_model

    def assign(self, rollout: Rollout, scores: Scores, *, generator: np.random.Generator) -> Credit:
        """Differences of prefix scores; one extra forward pass of the reward model."""
        inputs = scores.inputs
        read = inputs.mask
        prefix = self._reward_model.score_prefixes(inputs.sequence_ids(), inputs.sequence_mask())
        prefix = inputs.of_response(prefix)
        before = torch.nn.functional.pad(prefix[:, :-1], (1, 0))
        differences = torch.where(read, prefix - before, 0.0)
        per_token = torch.zeros_like(rollout.logprobs).scatter_add(1, inputs.end_step, differences)
        # A response of which nothing is read is scored on the prompt alone: all of that goes to its last token.
        per_token = torch.where(read.any(1, keepdim=True), per_token, at_last_step(scores.credited, rollout))
        return credit_without_units(per_token.masked_fill(scores.replaced[:, None], 0.0), scores, queries=1)


class ScarMethod:
    """SCAR: Shapley or Owen values of the units, each at its unit's last token (Eqs. 3-5).

    `empty` says what becomes of v(empty), which the paper sets to 0 though it is measured
    (docs/decisions.md#empty-coalition): "uniform" adds v(empty)/N to each unit (the Shapley answer to v(empty) = 0), "zero"
    puts 0 into the estimator itself, "terminal" gives it to the last token, "drop" pays it to nobody: credit sums to
    r - v(empty) (as released).

    `one_unit` says what a response of at most one unit gets (docs/decisions.md#one-unit): "score" is Eq. 5's, the whole score
    at the unit's end (for EOS alone: on it), "none" is no dense reward (as released).

    `fill` says how absent units look (`TextGame`); `texts` are read for "collapse" and "dots", and by estimators that look at
    the texts of units.
    """

    name = "scar"

    def __init__(
        self,
        *,
        scorer: CoalitionScorer,
        estimator: Estimator,
        fill: Fill,
        empty: Empty,
        one_unit: OneUnit = "score",
        texts: UnitTexts | None = None,
    ) -> None:
        for key, value, allowed in (("empty", empty, Empty), ("one_unit", one_unit, OneUnit)):
            if value not in get_args(allowed):
                raise ValueError(f"shaping.method.{key}={value}; allowed: {', '.join(get_args(allowed))}")
        self._game = TextGame(scorer, fill=fill, texts=texts)
        self._estimator = estimator
        self._empty = empty
        self._one_unit = one_unit

    def assign(self, rollout: Rollout, scores: Scores, units: Units, *, generator: np.random.Generator) -> Credit:
        """Unit values of every response; `generator` feeds estimators that sample."""
        units = readable_units(units, scores.inputs)
        estimates = self._estimator.estimate(self._game.batch(scores, units, rollout), generator)
        unit_values = torch.zeros(units.end_step.shape, dtype=torch.float64)
        at_end = torch.zeros(len(estimates))
        left_out = torch.zeros(len(estimates))
        for row, (count, estimate) in enumerate(zip(units.count.tolist(), estimates, strict=True)):
            if estimate is not None:
                unit_values[row, :count] = torch.from_numpy(self._with_empty(estimate))
                at_end[row] = estimate.empty if self._empty == "terminal" else 0.0
                left_out[row] = estimate.empty if self._empty == "drop" else 0.0
            elif self._one_unit == "none":  # credited is 0 where a rule replaced the score, whatever the count
                left_out[row] = float(scores.credited[row])
            elif count == 1:
                unit_values[row, 0] = float(scores.credited[row])
            else:  # no player (nothing but EOS), or a score that a rule replaced
                at_end[row] = float(scores.credited[row])
        device = rollout.response_ids.device
        placed = at_unit_ends(unit_values, units.end_step, units.count, steps=rollout.response_ids.shape[1])
        per_token = placed.float().to(device) + at_last_step(at_end.to(device), rollout)
        error = check_efficiency(per_token, scores, left_out=left_out.to(device))
        diagnostics = {"scar/efficiency_err_max": error} | _diagnose(units, unit_values, estimates) | units.diagnostics
        queries = torch.tensor([0 if estimate is None else estimate.queries for estimate in estimates])
        return Credit(per_token, unit_values.float(), queries, diagnostics)

    def _with_empty(self, estimated: UnitValues) -> np.ndarray:
        """Unit values f64[n] with v(empty) treated as `empty` says."""
        if self._empty == "zero":
            return estimated.values + estimated.empty * estimated.empty_share
        count = len(estimated.values)
        return estimated.values + estimated.empty / count if self._empty == "uniform" else estimated.values


def readable_units(units: Units, inputs: RewardInputs) -> Units:
    """Units of which the reward model reads something: a token of its own may span several units
    (docs/decisions.md#two-tokenizers)."""
    if inputs.overlap is None:
        return units
    occupied = torch.zeros(units.end_step.shape, dtype=torch.bool)
    rows, columns = (inputs.step.cpu() >= 0).nonzero(as_tuple=True)
    unit = units.unit_index[rows, inputs.step.cpu()[rows, columns]]
    occupied[rows[unit >= 0], unit[unit >= 0]] = True
    return merge_empty_units(units, occupied)


def _diagnose(units: Units, unit_values: torch.Tensor, estimates: Sequence[UnitValues | None]) -> dict[str, float]:
    """What to log of a batch of unit values."""
    played = [estimate for estimate in estimates if estimate is not None]

    def share(hierarchy: str) -> float:
        return sum(estimate.hierarchy == hierarchy for estimate in played) / len(estimates)

    return {
        "scar/n_units_mean": float(units.count.float().mean()),
        "scar/one_unit_frac": float((units.count <= 1).float().mean()),
        "scar/n_units_max": float(units.count.max()),
        "scar/evals_mean": sum(estimate.queries for estimate in played) / len(estimates),
        "scar/v_empty_mean": float(np.mean([estimate.empty for estimate in played])) if played else 0.0,
        "scar/exact_frac": share("exact"),
        "scar/neg_credit_frac": float((unit_values < 0).sum() / max(int(units.count.sum()), 1)),
        "scar/rebalanced_frac": share("rebalanced"),
        "scar/coarsened_frac": share("coarsened"),
        "scar/truncated_frac": share("truncated"),
    }
