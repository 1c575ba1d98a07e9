"""The clipped losses against numbers worked by hand."""

from __future__ import annotations

import math

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


def test_policy_hand_numbers_tell_broken_variants_apart() -> None:
    plain, near = -ADVANTAGES * RATIOS, -ADVANTAGES * RATIOS.clamp(0.8, 1.2)
    assert not torch.allclose(torch.minimum(plain, near), POLICY_BY_HAND, atol=0.1)  # min for max: optimistic
    assert not torch.allclose(plain, POLICY_BY_HAND, atol=0.1)  # not clipped
    assert not torch.allclose(near, POLICY_BY_HAND, atol=0.1)  # always clipped
    inverse = RATIOS.reciprocal()  # old - new in place of new - old
    swapped = torch.maximum(-ADVANTAGES * inverse, -ADVANTAGES * inverse.clamp(0.8, 1.2))
    assert not torch.allclose(swapped, POLICY_BY_HAND, atol=0.1)


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


def test_value_hand_numbers_tell_broken_variants_apart() -> None:
    plain = (VALUES - RETURNS) ** 2
    around_returns = RETURNS + (VALUES - RETURNS).clamp(-0.2, 0.2)
    around_old = OLD + (VALUES - OLD).clamp(-0.2, 0.2)
    broken = {
        "clip around returns": 0.5 * torch.maximum(plain, (around_returns - RETURNS) ** 2),
        "min for max": 0.5 * torch.minimum(plain, (around_old - RETURNS) ** 2),
        "no half": torch.maximum(plain, (around_old - RETURNS) ** 2),
        "no clip": 0.5 * plain,
    }
    for name, losses in broken.items():
        assert not torch.allclose(losses, VALUE_BY_HAND, atol=0.1), name


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


def test_explained_variance_without_variation_is_zero() -> None:
    constant, mask = torch.full((1, 2), 3.0), torch.ones(1, 2, dtype=torch.bool)
    assert explained_variance(torch.tensor([[1.0, 2.0]]), constant, mask) == 0.0
    assert explained_variance(torch.tensor([[1.0]]), torch.tensor([[3.0]]), mask[:, :1]) == 0.0


def test_ratio_is_the_exponential_of_the_log_ratio() -> None:
    losses, _ = policy_losses(torch.tensor([[-1.0]]), torch.tensor([[-1.1]]), torch.tensor([[1.0]]), clip_range=0.2)
    assert float(losses) == pytest.approx(-math.exp(0.1))
