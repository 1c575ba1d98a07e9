"""Masked statistics against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scar.ppo.advantages import masked_mean, masked_var, masked_whiten

# Real values 1, 3, 5 (two rows); 99 and -7 are padding. Mean 3, squared deviations 4, 0, 4: biased variance 8/3.
X = torch.tensor([[1.0, 3.0], [5.0, 99.0], [-7.0, 99.0]])
MASK = torch.tensor([[True, True], [True, False], [False, False]])


def test_mean_is_over_real_tokens_of_all_rows() -> None:
    assert float(masked_mean(X, MASK)) == pytest.approx(3.0)
    mean_of_row_means = (2.0 + 5.0) / 2  # weights a lone token like a long row
    assert mean_of_row_means != pytest.approx(3.0)


def test_variance_is_biased() -> None:
    assert float(masked_var(X, MASK)) == pytest.approx(8 / 3)


def test_whitening_uses_the_biased_variance() -> None:
    # (1 - 3) / sqrt(8/3) = -1.2247449, 0 and +1.2247449.
    expected = torch.tensor([[-1.2247449, 0.0], [1.2247449, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(masked_whiten(X, MASK), expected)

    def unbiased(x: Tensor, mask: Tensor) -> Tensor:
        real = x[mask]
        return (x - real.mean()) * (real.var(unbiased=True) + 1e-8).rsqrt() * mask

    # Unbiased variance 8/2 = 4 would give -1, 0, 1.
    assert not torch.allclose(unbiased(X, MASK), expected, atol=0.1)


def test_epsilon_is_added_to_the_variance() -> None:
    # Values 0 and 2e-4: mean 1e-4, variance 1e-8; 1e-4 / sqrt(1e-8 + 1e-8) = 0.70710678.
    x, mask = torch.tensor([[0.0, 2e-4]]), torch.tensor([[True, True]])
    expected = torch.tensor([[-0.70710678, 0.70710678]])
    torch.testing.assert_close(masked_whiten(x, mask), expected)
    # Epsilon beside the square root would give 1e-4 / (1e-4 + 1e-8) = 0.9999.
    outside = (x - x.mean()) / (x.var(unbiased=False).sqrt() + 1e-8)
    assert not torch.allclose(outside, expected, atol=0.1)


def test_a_lone_token_becomes_zero() -> None:
    x, mask = torch.tensor([[4.2, 8.0]]), torch.tensor([[True, False]])
    assert torch.equal(masked_whiten(x, mask), torch.zeros(1, 2))


def test_padding_values_change_nothing() -> None:
    other = torch.where(MASK, X, torch.tensor(-1234.5))
    assert torch.equal(masked_whiten(X, MASK), masked_whiten(other, MASK))


def test_an_empty_mask_is_an_error() -> None:
    with pytest.raises(ValueError, match="mask is empty"):
        masked_mean(X, torch.zeros_like(MASK))
