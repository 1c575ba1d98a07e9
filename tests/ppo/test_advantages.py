"""Generalised advantage estimation against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch

from scar.ppo.advantages import estimate_advantages, gae

# Three responses of 3, 2 and 1 tokens; 7 and 9 are padding that must not be read.
REWARDS = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 7.0], [4.0, 7.0, 7.0]])
VALUES = torch.tensor([[0.5, 1.0, 2.0], [0.5, 1.0, 9.0], [1.0, 9.0, 9.0]])
MASK = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])

# gamma = 1. delta_t = r_t + V_{t+1} - V_t with V = 0 after the last real token:
#   row 0: 1 + 1 - .5 = 1.5,  2 + 2 - 1 = 3,  3 + 0 - 2 = 1
#   row 1: 1 + 1 - .5 = 1.5,  2 + 0 - 1 = 1
#   row 2: 4 + 0 - 1 = 3
DELTAS = torch.tensor([[1.5, 3.0, 1.0], [1.5, 1.0, 0.0], [3.0, 0.0, 0.0]])
# lambda = .95: row 0: 1,  3 + .95 * 1 = 3.95,  1.5 + .95 * 3.95 = 5.2525;  row 1: 1,  1.5 + .95 = 2.45.
LAMBDA_95 = torch.tensor([[5.2525, 3.95, 1.0], [2.45, 1.0, 0.0], [3.0, 0.0, 0.0]])
# lambda = 1 is the sum of rewards to go minus the value: row 0: 6 - .5, 5 - 1, 3 - 2; row 1: 3 - .5, 2 - 1; row 2: 4 - 1.
LAMBDA_1 = torch.tensor([[5.5, 4.0, 1.0], [2.5, 1.0, 0.0], [3.0, 0.0, 0.0]])
BY_HAND = {0.0: DELTAS, 0.95: LAMBDA_95, 1.0: LAMBDA_1}


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
def test_gae_by_hand(gae_lambda: float) -> None:
    torch.testing.assert_close(gae(REWARDS, VALUES, MASK, gamma=1.0, gae_lambda=gae_lambda), BY_HAND[gae_lambda])


def test_gae_by_hand_with_discount() -> None:
    # gamma = lambda = .5: deltas 1 + .5 - .5 = 1, 2 + 1 - 1 = 2, 3 - 2 = 1; A = 1 + .25 * 2.25, 2 + .25 * 1, 1.
    found = gae(REWARDS[:1], VALUES[:1], MASK[:1], gamma=0.5, gae_lambda=0.5)
    torch.testing.assert_close(found, torch.tensor([[1.5625, 2.25, 1.0]]))


def test_padding_values_and_width_change_nothing() -> None:
    wide = [torch.nn.functional.pad(x, (0, 2), value=-55.0) for x in (REWARDS, VALUES)]
    found = gae(*wide, torch.nn.functional.pad(MASK, (0, 2)), gamma=1.0, gae_lambda=0.95)
    torch.testing.assert_close(found[:, :3], LAMBDA_95)
    assert torch.equal(found[:, 3:], torch.zeros(3, 2))


def test_returns_come_from_unwhitened_advantages() -> None:
    estimate = estimate_advantages(REWARDS, VALUES, MASK, gamma=1.0, gae_lambda=0.95)
    # LAMBDA_95 + VALUES on the mask: 5.2525 + .5, 3.95 + 1, 1 + 2; 2.45 + .5, 1 + 1; 3 + 1.
    returns = torch.tensor([[5.7525, 4.95, 3.0], [2.95, 2.0, 0.0], [4.0, 0.0, 0.0]])
    torch.testing.assert_close(estimate.returns, returns)
    # Returns of whitened advantages would be smaller: their row 2 is about 1 + .13.
    assert not torch.allclose((estimate.advantages + VALUES) * MASK, returns, atol=0.1)


def test_with_lambda_one_returns_are_sums_of_rewards_whatever_the_values() -> None:
    expected = torch.tensor([[6.0, 5.0, 3.0], [3.0, 2.0, 0.0], [4.0, 0.0, 0.0]])
    for values in (VALUES, VALUES * -3, torch.zeros_like(VALUES)):
        found = estimate_advantages(REWARDS, values, MASK, gamma=1.0, gae_lambda=1.0).returns
        torch.testing.assert_close(found, expected)


def test_advantages_are_whitened_over_the_whole_batch() -> None:
    # lambda = 1: advantages 5.5, 4, 1, 2.5, 1, 3. Sum 17, mean 17/6 = 2.83333; sum of squares
    # 30.25 + 16 + 1 + 6.25 + 1 + 9 = 63.5, variance 63.5/6 - 2.83333^2 = 2.55556, square root 1.598611.
    # (5.5 - 2.83333) / 1.598611 = 1.668115, and so on.
    found = estimate_advantages(REWARDS, VALUES, MASK, gamma=1.0, gae_lambda=1.0).advantages
    expected = torch.tensor([[1.668115, 0.729800, -1.146829], [-0.208514, -1.146829, 0.0], [0.104257, 0.0, 0.0]])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_one_lone_token_has_advantage_zero_and_its_reward_as_return() -> None:
    estimate = estimate_advantages(
        torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.tensor([[True]]), gamma=1.0, gae_lambda=0.95
    )
    assert torch.equal(estimate.advantages, torch.zeros(1, 1))
    assert torch.equal(estimate.returns, torch.tensor([[3.0]]))
