"""A response without EOS on a task that replaces its score: that number at its last token, whatever the method."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from scar.config import ScoringConfig
from scar.credit.estimators import ExactEstimator, OwenEstimator, PermutationEstimator
from scar.credit.methods import AttentionMethod, RedMethod, ScarMethod, SparseMethod, UniformMethod, needs
from scar.credit.rewards import shape_rewards
from scar.credit.shap_oracle import ShapEstimator
from scar.interfaces import CreditMethod
from scar.models.reading import as_sampled
from scar.ppo.rollout import ResponseScoring
from scar.ppo.trainer import summarize
from scar.segmentation.hierarchies import balanced_hierarchy
from scar.segmentation.units import token_units
from scar.types import Credit, Rollout, Scores, ShapedRewards
from tests.builders import FakeRewardModel, hand_units, make_rollout, rollout_of, uneven

ESTIMATORS: dict[str, Any] = {
    "exact": ExactEstimator(max_units=12),
    "owen": OwenEstimator(max_coalitions=1024),
    "permutation": PermutationEstimator(permutations=2),
    "shap": ShapEstimator(max_evals=1024, batch_size=10),
}
METHODS = [
    "sparse",
    "uniform",
    "abc",
    "red",
    "scar exact uniform",
    "scar owen terminal",
    "scar permutation uniform",
    "scar shap terminal",
]
ALPHAS = [0.0, 0.5, 1.0]
KL_COEF = 0.25
CONTENTS = [[10, 11, 12, 13], [14, 15, 16, 17, 18], [19, 20], [21], []]
PROMPTS = [[500, 501, 502], [510], [520, 521], [530], [540, 541]]
FINISHED = [True, False, True, False, True]
LAST = [4, 4, 2, 0, 0]


def method_of(name: str, model: FakeRewardModel) -> CreditMethod:
    plain: dict[str, CreditMethod] = {
        "sparse": SparseMethod(),
        "uniform": UniformMethod(),
        "abc": AttentionMethod(reward_model=model),
        "red": RedMethod(reward_model=model),
    }
    if name in plain:
        return plain[name]
    _, estimator, empty = name.split()
    return ScarMethod(scorer=model.scorer, estimator=ESTIMATORS[estimator], fill="space", empty=empty)


def batch_of(rows: list[int]) -> Rollout:
    """These rows of CONTENTS with log-probabilities of their own."""
    lengths = [len(CONTENTS[row]) + FINISHED[row] for row in rows]
    return rollout_of(
        [CONTENTS[row] for row in rows],
        [FINISHED[row] for row in rows],
        prompts=[PROMPTS[row] for row in rows],
        logprobs=[[-0.125 * (row + 1) * (t + 1) for t in range(n)] for row, n in zip(rows, lengths, strict=True)],
        ref_logprobs=[[-0.5] * n for n in lengths],
    )


def scores_of(model: FakeRewardModel, rollout: Rollout, *, rule: float | None = -1.0, reads_eos: bool = True) -> Scores:
    reader = SimpleNamespace(read=lambda sampled: as_sampled(sampled, reads_eos=reads_eos))
    return ResponseScoring(model, reader, ScoringConfig(reads_eos, rule)).score(rollout)


def credit_of(name: str, model: FakeRewardModel, rollout: Rollout, scores: Scores) -> Credit:
    content = rollout.content_mask
    units = token_units(content, [balanced_hierarchy(n) for n in content.sum(1).tolist()])
    method = method_of(name, model)
    given = {"units": units} if "units" in needs(type(method)) else {}
    return method.assign(rollout, scores, **given, generator=np.random.default_rng(0))


def shaped(
    name: str, rollout: Rollout, *, alpha: float, rule: float | None = -1.0, reads_eos: bool = True
) -> tuple[Scores, Credit, ShapedRewards]:
    model = FakeRewardModel(uneven)
    scores = scores_of(model, rollout, rule=rule, reads_eos=reads_eos)
    credit = credit_of(name, model, rollout, scores)
    return scores, credit, shape_rewards(rollout, scores, credit, kl_coef=KL_COEF, alpha=alpha)


@pytest.mark.parametrize("reads_eos", [True, False])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", METHODS)
def test_a_response_without_eos_gets_minus_one_at_its_last_token_and_nothing_else(
    name: str, alpha: float, reads_eos: bool
) -> None:
    rollout = batch_of([0, 1, 2, 3, 4])
    _, credit, rewards = shaped(name, rollout, alpha=alpha, reads_eos=reads_eos)
    for row in (1, 3):
        expected = torch.zeros(5)
        expected[LAST[row]] = -1.0
        assert torch.equal((rewards.credit + rewards.terminal)[row], expected)
        assert torch.equal(credit.per_token[row], torch.zeros(5))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", METHODS)
def test_kl_of_a_response_without_eos_stays_by_hand(name: str, alpha: float) -> None:
    rollout = batch_of([1, 3])
    _, _, rewards = shaped(name, rollout, alpha=alpha)
    # -.25 (log pi - log pi_ref), log pi = -.25 (t + 1) in row 1 and -.5 in row 3, log pi_ref = -.5.
    kl = torch.tensor([[-0.0625, 0.0, 0.0625, 0.125, 0.1875], [0.0, 0.0, 0.0, 0.0, 0.0]])
    terminal = torch.tensor([[0.0, 0.0, 0.0, 0.0, -1.0], [-1.0, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(rewards.total, kl + terminal, rtol=0, atol=1e-7)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", [name for name in METHODS if "permutation" not in name])
def test_finished_responses_get_what_they_get_without_unfinished_ones_beside_them(name: str, alpha: float) -> None:
    _, credit, mixed = shaped(name, batch_of([0, 1, 2, 3, 4]), alpha=alpha)
    _, alone, pure = shaped(name, batch_of([0, 2, 4]), alpha=alpha)
    torch.testing.assert_close(mixed.total[[0, 2, 4]], pure.total, rtol=1e-6, atol=1e-6)
    assert credit.reward_queries[[0, 2, 4]].tolist() == alone.reward_queries.tolist()
    assert pure.credit.abs().max() > 0.1 or alpha == 0  # there was something to compare


@pytest.mark.parametrize("name", [name for name in METHODS if name.startswith("scar")])
def test_no_coalition_of_a_replaced_response_is_scored(name: str) -> None:
    model = FakeRewardModel(uneven)
    rollout = batch_of([0, 1, 2, 3, 4])
    credit = credit_of(name, model, rollout, scores_of(model, rollout))
    prompts_asked = {ids[0] for ids in model.scorer.rows}
    assert prompts_asked == {500, 520}  # rows 0 and 2; row 4 has no player
    assert (credit.reward_queries > 0).tolist() == [True, False, True, False, False]
    model.scorer.batches.clear()
    unfinished = batch_of([1, 3])
    assert torch.equal(credit_of(name, model, unfinished, scores_of(model, unfinished)).per_token, torch.zeros(2, 5))
    assert model.scorer.rows == []


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", METHODS)
def test_the_raw_score_of_a_replaced_response_changes_no_reward(name: str, alpha: float) -> None:
    model = FakeRewardModel(uneven)
    rollout = batch_of([0, 1, 2, 3, 4])
    scores = scores_of(model, rollout)
    wild = dataclasses.replace(scores, raw=torch.where(scores.replaced, torch.tensor(1e30), scores.raw))
    totals = [
        shape_rewards(rollout, s, credit_of(name, model, rollout, s), kl_coef=KL_COEF, alpha=alpha).total
        for s in (scores, wild)
    ]
    assert torch.equal(*totals)


def test_raw_and_final_means_are_logged_apart() -> None:
    rollout = batch_of([0, 1, 2, 3, 4])
    scores, credit, rewards = shaped("scar owen terminal", rollout, alpha=1.0)
    row = summarize(rollout, scores, credit, rewards, {})
    raw = [uneven(prompt + ids + [0] * done) for prompt, ids, done in zip(PROMPTS, CONTENTS, FINISHED, strict=True)]
    final = [score if done else -1.0 for score, done in zip(raw, FINISHED, strict=True)]
    assert row["reward/raw_mean"] == pytest.approx(np.mean(raw), abs=1e-5)
    assert row["reward/score_mean"] == pytest.approx(np.mean(final), abs=1e-5)
    assert row["reward/shaped_sum_mean"] - row["objective/non_score"] == pytest.approx(np.mean(final), abs=1e-5)
    assert row["eos_frac"] == pytest.approx(0.6)


def test_a_penalty_that_is_added_stays_apart_from_one_that_replaces() -> None:
    # Raw 4, final 3 (a penalty of 1) and raw 4, final -1 by the rule; alpha .5, credit at the first of two tokens.
    rollout = make_rollout([2, 2])
    inputs = as_sampled(rollout, reads_eos=True)
    scores = Scores(torch.tensor([4.0, 4.0]), torch.tensor([3.0, -1.0]), torch.tensor([False, True]), inputs)
    per_token = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    credit = Credit(per_token, None, torch.zeros(2, dtype=torch.int64), {})
    rewards = shape_rewards(rollout, scores, credit, kl_coef=0.2, alpha=0.5)
    # First: .5 * 4, then .5 * 4 - 1. Second: nothing, then -1.
    assert torch.equal(rewards.credit + rewards.terminal, torch.tensor([[2.0, 1.0], [0.0, -1.0]]))


def test_a_replaced_response_of_one_unit_gets_nothing_for_it() -> None:
    model = FakeRewardModel(uneven)
    rollout = make_rollout([3, 4], finished=[False, True])
    units = hand_units([[3], [3]], 4, [balanced_hierarchy(1)] * 2)
    scores = scores_of(model, rollout)
    credit = method_of("scar exact uniform", model).assign(rollout, scores, units, generator=np.random.default_rng(0))
    assert torch.equal(credit.per_token[0], torch.zeros(4))
    torch.testing.assert_close(credit.per_token[1], torch.tensor([0.0, 0.0, float(scores.raw[1]), 0.0]))
