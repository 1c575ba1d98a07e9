"""Splits of a score over the tokens of a response, by every method of the agreement benchmark, and their reference.

A split is credit per token plus an offset. Credit of the game sums to v(all) - v(empty), prefix differences sum to
v(all) - r(x); what is missing to v(all) is the same for all units and says nothing of any of them, so it is spread evenly
over the units compared, for the reference as well (`shaping.method.empty=uniform` does the same).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scar.credit.estimators import Estimator, ExactEstimator, OwenEstimator, PermutationEstimator, SequentialEstimator
from scar.credit.game import BatchGame, TextGame
from scar.credit.methods import AttentionMethod, RedMethod, UniformMethod
from scar.interfaces import CoalitionScorer, CreditMethod, RewardModel
from scar.seeding import numpy_generator
from scar.types import CoalitionRows, Rollout, Scores, Units, UnitValues

PREFIX, IN_GAME = "prefix difference", "left to right in the game"
BLOCK = 16
"""The reference draws its permutations in independent blocks of so many: their spread gives its standard error."""
OWEN_BUDGET = 2048
"""As estimator=owen has it."""


@dataclass(frozen=True)
class Texts:
    """Responses, their scores, and the reward model that gave them: whole, by prefix and by coalition."""

    rollout: Rollout
    scores: Scores
    reward_model: RewardModel
    scorer: CoalitionScorer

    def game(self, units: Units) -> BatchGame:
        """The games that SCAR plays."""
        return TextGame(self.scorer, fill="space").batch(self.scores, units)


@dataclass(frozen=True)
class Split:
    """Credit f64[B,T] a token, and the offset f64[B] that is still to be spread; `queries` a response, on average."""

    per_token: np.ndarray
    offset: np.ndarray
    queries: float

    def of_units(self, units: Units) -> list[np.ndarray]:
        """f64[n] a response: the credit of its units' tokens and their even share of the offset."""
        sums = unit_sums(self.per_token, units)
        return [values + offset / max(len(values), 1) for values, offset in zip(sums, self.offset, strict=True)]


def unit_sums(per_token: np.ndarray, units: Units) -> list[np.ndarray]:
    """f64[n] a response: sums over the tokens of each unit."""
    index = units.unit_index.numpy()
    return [
        np.bincount(row[row >= 0], weights=values[row >= 0], minlength=count)
        for row, values, count in zip(index, per_token, units.count.tolist(), strict=True)
    ]


def _assigned(method: CreditMethod, texts: Texts) -> Split:
    """The credit of a method that needs no units."""
    credit = method.assign(texts.rollout, texts.scores, generator=np.random.default_rng(0))
    per_token = credit.per_token.double().cpu().numpy()
    return Split(per_token, np.zeros(len(per_token)), float(credit.reward_queries.float().mean()))


def prefix_as_trained(texts: Texts) -> Split:
    """Prefix differences as PPO gets them: r(x) on the first token."""
    return _assigned(RedMethod(reward_model=texts.reward_model), texts)


def prefix(texts: Texts) -> Split:
    """Prefix differences with r(x) taken off the first token and spread evenly."""
    split, inputs = prefix_as_trained(texts), texts.scores.inputs
    width = inputs.prompt_ids.shape[1]  # prompts are padded left: their last column is real
    heads = texts.reward_model.score_prefixes(inputs.prompt_ids, inputs.prompt_mask)
    alone = heads[:, width - 1].double().cpu().numpy()
    per_token = split.per_token.copy()
    per_token[:, 0] -= alone
    return Split(per_token, alone, split.queries)


def estimated(texts: Texts, units: Units, estimator: Estimator, *, stream: str) -> Split:
    """Unit values of an estimator at the last tokens of its units; one unit alone takes the score."""
    estimates = estimator.estimate(texts.game(units), numpy_generator(0, f"agreement {stream}"))
    per_token = np.zeros(texts.rollout.response_ids.shape)
    offset = np.zeros(len(per_token))
    for row, (estimate, ends) in enumerate(zip(estimates, units.end_step.tolist(), strict=True)):
        if estimate is None:
            per_token[row, ends[0]] = float(texts.scores.raw[row])
        else:
            per_token[row, ends[: len(estimate.values)]], offset[row] = estimate.values, estimate.empty
    return Split(
        per_token, offset, float(np.mean([0 if estimate is None else estimate.queries for estimate in estimates]))
    )


def prefix_before_blank(texts: Texts) -> Split:
    """Prefix differences of which every score is read at one blank put behind the prefix, so always at the same token.

    A causal model's score at token t also depends on which token t is; one blank takes that away and nothing else.
    """
    batch = prefix_rows(texts, blanks=1)
    per_token = np.zeros(texts.rollout.response_ids.shape)
    offset = np.zeros(len(per_token))
    for row, (v, raw) in enumerate(zip(texts.scorer.score(batch), texts.scores.raw.tolist(), strict=True)):
        per_token[row, : len(v) - 1] = np.diff(v)
        offset[row] = raw - (v[-1] - v[0])  # what is missing to v(all), which is read without a blank
    return Split(per_token, offset, float(np.mean([len(rows.ids) for rows in batch])))


def prefix_rows(texts: Texts, *, blanks: int) -> list[CoalitionRows]:
    """Of each response of T tokens, its T + 1 prefixes with so many blanks behind."""
    inputs, space = texts.scores.inputs, texts.scorer.space_id
    batch = []
    for prompt, real, ids, read in zip(inputs.prompt_ids, inputs.prompt_mask, inputs.ids, inputs.mask, strict=True):
        response = ids[read].cpu().numpy()
        count = len(response)
        kept = np.arange(count + blanks) < np.arange(count + 1)[:, None]
        rows = np.where(kept, np.append(response, [space] * blanks), space)
        batch.append(CoalitionRows(prompt[real].cpu().numpy(), rows, np.arange(count + 1) + blanks))
    return batch


def left_to_right(texts: Texts, units: Units) -> Split:
    """What each unit adds to those before it in the game itself (absent tokens blanked, not cut off).

    It is the one order of arrival in which a text is read, so it shows which part of the distance between prefix
    differences and Shapley values is due to the order and which to the end being cut off.
    """
    return estimated(texts, units, SequentialEstimator(), stream="sequential")


def all_splits(texts: Texts, spans: Units, tokens: Units, *, full_owen: bool) -> dict[str, Split]:
    """Every method that is compared."""
    uniform, abc = UniformMethod(), AttentionMethod(reward_model=texts.reward_model)
    splits = {
        PREFIX: prefix(texts),
        "prefix difference, r(x) on the first token": prefix_as_trained(texts),
        "prefix difference, read at a blank behind it": prefix_before_blank(texts),
        IN_GAME: left_to_right(texts, tokens),
        "uniform": _assigned(uniform, texts),
        "abc": _assigned(abc, texts),
        "scar span, owen": estimated(texts, spans, OwenEstimator(OWEN_BUDGET), stream="span owen"),
    }
    for count in (2, 4):
        estimator = PermutationEstimator(count)
        splits[f"scar token, {count} permutations"] = estimated(texts, tokens, estimator, stream=f"{count}")
    if full_owen:
        splits["scar token, owen"] = estimated(texts, tokens, OwenEstimator(OWEN_BUDGET), stream="token owen")
    return splits


@dataclass(frozen=True)
class Reference:
    """Shapley values of each response, f64[n] with v(empty) spread evenly (None: fewer than two units), how they were
    found, and the two halves of the permutations behind them (equal where exact)."""

    values: list[np.ndarray | None]
    halves: tuple[list[np.ndarray | None], list[np.ndarray | None]]
    method: str


def _with_empty(estimate: UnitValues | None) -> np.ndarray | None:
    return None if estimate is None else estimate.values + estimate.empty / len(estimate.values)


def exact_reference(game: BatchGame) -> Reference:
    """Exact Shapley values, for at most 12 units."""
    values = [_with_empty(estimate) for estimate in ExactEstimator(12).estimate(game, np.random.default_rng(0))]
    return Reference(values, (values, values), "exact")


def sampled_reference(game: BatchGame, permutations: int) -> Reference:
    """The mean of `permutations` antithetic permutations, in blocks; its standard error is in `method`."""
    blocks = max(permutations // BLOCK, 2)
    rng = numpy_generator(0, "agreement reference")
    drawn = [[_with_empty(o) for o in PermutationEstimator(BLOCK).estimate(game, rng)] for _ in range(blocks)]
    stacks = [None if repeats[0] is None else np.stack(repeats) for repeats in zip(*drawn, strict=True)]
    values = _means(stacks, slice(None))
    played = [stack for stack in stacks if stack is not None]
    error = np.concatenate([stack.std(0, ddof=1) / np.sqrt(blocks) for stack in played])
    size = np.abs(np.concatenate([value for value in values if value is not None])).mean()
    halves = (_means(stacks, slice(0, None, 2)), _means(stacks, slice(1, None, 2)))
    return Reference(values, halves, f"{blocks * BLOCK} permutations, s.e. {error.mean() / size:.1%}")


def _means(stacks: Sequence[np.ndarray | None], rows: slice) -> list[np.ndarray | None]:
    return [None if stack is None else stack[rows].mean(0) for stack in stacks]
