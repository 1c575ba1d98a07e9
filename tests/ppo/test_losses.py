"""The clipped losses against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch

from scar.ppo.losses import explained_variance, policy_losses, value_losses

# Clip range .2. Columns: ratio 1.5, .5, 1.1 with advantage +2, then the same with advantage -2.
RATIOS = torch.tensor([[1.5, 0.5, 1.1, 1.5, 0.5, 1.1]])
ADVANTAGES = torch.tensor([[2.0, 2.0, 2.0, -2.0, -2.0, -2.0]])
# -A ratio:            -3.0  -1.0  -2.2   3.0   1.0   2.2
# -A clip(ratio):      -2.4  -1.6  -2.2   2.4   1.6   2.2
POLICY_BY_HAND = torch.tensor([[-2.4, -1.0, -2.2, 3.0, 1.6, 2.2]])
POLICY_CLIPPED = torch.tensor([[True, False, False, False, True, False]])


def test_policy_loss_by_hand_for_both_signs() -> None:
    old = torch.full_like(RATIOS, -1.25)
    losses, clipped = policy_losses(old + RATIOS.log(), old, ADVANTAGES, clip_range=0.2)
    torch.testing.assert_close(losses, POLICY_BY_HAND)
    assert torch.equal(clipped, POLICY_CLIPPED)


def test_only_clipped_tokens_lose_their_gradient() -> None:
    logprobs = RATIOS.log().requires_grad_()
    policy_losses(logprobs, torch.zeros_like(RATIOS), ADVANTAGES, clip_range=0.2)[0].sum().backward()
    # d(-A ratio)/d logprob = -A ratio where the plain term is the larger one (or both are equal), else 0.
    torch.testing.assert_close(logprobs.grad, torch.tensor([[0.0, -1.0, -2.2, 3.0, 0.0, 2.2]]))


# Clip range .2. V, V_old, R:       (2, 1, 3)     (2, 1, 0)     (0, 1, -1)    (1.1, 1, 3)
# (V - R)^2:                         1             4             1             3.61
# clipped V is V_old +- .2:          1.2           1.2           0.8           1.1
# (clipped V - R)^2:                 3.24          1.44          3.24          3.61
# half the larger one:               1.62          2             1.62          1.805
VALUES, OLD, RETURNS = (
    torch.tensor([[2.0, 2.0, 0.0, 1.1]]),
    torch.tensor([[1.0, 1.0, 1.0, 1.0]]),
    torch.tensor([[3.0, 0.0, -1.0, 3.0]]),
)
VALUE_BY_HAND = torch.tensor([[1.62, 2.0, 1.62, 1.805]])


def test_value_loss_by_hand() -> None:
    losses, clipped = value_losses(VALUES, OLD, RETURNS, clip_range=0.2)
    torch.testing.assert_close(losses, VALUE_BY_HAND)
    assert torch.equal(clipped[:, :3], torch.tensor([[True, False, True]]))


def test_explained_variance_by_hand() -> None:
    # Returns 1, 2, 3, 4: variance 1.25. Values 1, 1, 3, 3: residuals 0, 1, 0, 1, variance .25. 1 - .25/1.25 = .8.
    returns = torch.tensor([[1.0, 2.0, 50.0], [3.0, 4.0, -50.0]])
    values = torch.tensor([[1.0, 1.0, 9.0], [3.0, 3.0, 9.0]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    assert explained_variance(values, returns, mask) == pytest.approx(0.8)
    # Mean squared residual in place of their variance: 1 - .5/1.25 = .6. Padding counted in: something else again.
    squared = 1 - float(((returns - values)[mask] ** 2).mean() / returns[mask].var(unbiased=False))
    assert squared == pytest.approx(0.6)


def test_explained_variance_of_constant_values_is_zero_and_of_a_shift_is_one() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3, dtype=torch.bool)
    assert explained_variance(torch.full((1, 3), 2.0), returns, mask) == pytest.approx(0.0)
    assert explained_variance(returns + 5, returns, mask) == pytest.approx(1.0)
