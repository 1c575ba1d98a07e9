"""Eqs. 5 and 6 by hand, and what holds for every alpha."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scar.credit.rewards import at_last_step, at_unit_ends, shape_rewards
from scar.types import Credit, Rollout, Scores
from tests.builders import make_rollout, make_scores

ALPHAS = [0.0, 0.3, 0.8, 1.0]


def credit_of(rows: list[list[float]]) -> Credit:
    return Credit(torch.tensor(rows), None, torch.zeros(len(rows), dtype=torch.int64), {})


def hand_case() -> tuple[Rollout, Scores, Credit]:
    """Raw score 3, penalty -1; credit 1 and 2 on two tokens, then padding."""
    rollout = make_rollout([2], response_padding=1, logprobs=[[-1.0, -2.0]], ref_logprobs=[[-1.5, -1.0]])
    return rollout, make_scores(rollout, [3.0], [2.0]), credit_of([[1.0, 2.0, 0.0]])


def test_equation_6_by_hand() -> None:
    rewards = shape_rewards(*hand_case(), kl_coef=0.1, alpha=0.8)
    # KL: -.1 * (-1 + 1.5) = -.05 and -.1 * (-2 + 1) = +.1. Credit: .8 * 1, .8 * 2.
    # Terminal: .2 * 3 + (2 - 3) = -.4 on the last real token.
    torch.testing.assert_close(rewards.kl, torch.tensor([[-0.05, 0.1, 0.0]]))
    torch.testing.assert_close(rewards.credit, torch.tensor([[0.8, 1.6, 0.0]]))
    torch.testing.assert_close(rewards.terminal, torch.tensor([[0.0, -0.4, 0.0]]))
    torch.testing.assert_close(rewards.total, torch.tensor([[0.75, 1.3, 0.0]]))


@pytest.mark.parametrize(("alpha", "sparse_weight", "terminal"), [(1.0, 1.0, 2.0), (0.0, 2.0, 5.0), (0.8, 0.0, -1.0)])
def test_another_weight_of_the_score_at_the_end_by_hand(alpha: float, sparse_weight: float, terminal: float) -> None:
    rewards = shape_rewards(*hand_case(), kl_coef=0.1, alpha=alpha, sparse_weight=sparse_weight)
    # The weight times 3, and the penalty (2 - 3) once; the dense part is that of alpha alone.
    torch.testing.assert_close(rewards.terminal, torch.tensor([[0.0, terminal, 0.0]]))
    torch.testing.assert_close(rewards.credit, alpha * torch.tensor([[1.0, 2.0, 0.0]]))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_penalty_lands_on_last_real_token_whatever_alpha(alpha: float) -> None:
    rollout, scores, credit = hand_case()
    free = dataclasses.replace(scores, final=scores.raw)
    with_penalty = shape_rewards(rollout, scores, credit, kl_coef=0.1, alpha=alpha).total
    without = shape_rewards(rollout, free, credit, kl_coef=0.1, alpha=alpha).total
    torch.testing.assert_close(with_penalty - without, torch.tensor([[0.0, -1.0, 0.0]]))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_terminal_residual_sits_on_eos_when_there_is_one(alpha: float) -> None:
    rollout = make_rollout([3, 2], finished=[True, False])
    credit = credit_of([[2.0, 2.0, 0.0], [1.0, 4.0, 0.0]])
    rewards = shape_rewards(rollout, make_scores(rollout, [4.0, 5.0]), credit, kl_coef=0.0, alpha=alpha)
    expected = torch.tensor([[0.0, 0.0, 4.0], [0.0, 5.0, 0.0]]) * (1 - alpha)
    torch.testing.assert_close(rewards.terminal, expected)


@given(
    alpha=st.floats(0, 1),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    kl_coef=st.floats(0, 2),
)
def test_rows_less_kl_sum_to_the_final_score(alpha: float, lengths: list[int], seed: int, kl_coef: float) -> None:
    draws = torch.Generator().manual_seed(seed)
    logprobs = [[float(x) for x in -torch.rand(length, generator=draws)] for length in lengths]
    rollout = make_rollout(lengths, logprobs=logprobs, response_padding=2)
    per_token = torch.randn(rollout.response_mask.shape, generator=draws) * rollout.response_mask
    raw = per_token.sum(1)
    scores = make_scores(rollout, raw.tolist(), (raw - torch.rand(len(lengths), generator=draws)).tolist())
    credit = Credit(per_token, None, torch.zeros(len(lengths), dtype=torch.int64), {})
    rewards = shape_rewards(rollout, scores, credit, kl_coef=kl_coef, alpha=alpha)
    torch.testing.assert_close((rewards.total - rewards.kl).sum(1), scores.final, atol=1e-5, rtol=1e-5)
    assert torch.equal(rewards.total * ~rollout.response_mask, torch.zeros_like(per_token))


def test_kl_is_zero_off_the_mask_even_for_stray_log_probabilities() -> None:
    rollout = make_rollout([1], response_padding=1)
    rollout.logprobs[0, 1] = -9.0
    rewards = shape_rewards(rollout, make_scores(rollout, [1.0]), credit_of([[1.0, 0.0]]), kl_coef=0.5, alpha=0.5)
    assert torch.equal(rewards.kl, torch.zeros(1, 2))


def test_at_last_step_by_hand() -> None:
    rollout = make_rollout([1, 3, 2], finished=[True, False, True])
    expected = torch.tensor([[7.0, 0.0, 0.0], [0.0, 0.0, 8.0], [0.0, 9.0, 0.0]])
    assert torch.equal(at_last_step(torch.tensor([7.0, 8.0, 9.0]), rollout), expected)


def test_at_unit_ends_by_hand() -> None:
    # Row 0: units end at steps 1 and 3. Row 1: one unit ending at step 0; the second column is no unit and holds a 50.
    values = torch.tensor([[1.5, -2.0], [4.0, 50.0]])
    found = at_unit_ends(values, torch.tensor([[1, 3], [0, -1]]), torch.tensor([2, 1]), steps=5)
    assert torch.equal(found, torch.tensor([[0.0, 1.5, 0.0, -2.0, 0.0], [4.0, 0.0, 0.0, 0.0, 0.0]]))


def test_at_unit_ends_without_any_unit() -> None:
    found = at_unit_ends(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64), torch.tensor([0, 0]), steps=3)
    assert torch.equal(found, torch.zeros(2, 3))
