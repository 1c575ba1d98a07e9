"""Statistics over the True positions of a mask."""

from __future__ import annotations

from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `x` where `mask` is True, over all dimensions. Raises ValueError for an empty mask."""
    count = mask.sum()
    if count == 0:
        raise ValueError("the mask is empty: there is no token to take a mean over")
    return (x * mask).sum() / count


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Biased (population) variance of `x` where `mask` is True (paper note 20)."""
    return masked_mean((x - masked_mean(x, mask)) ** 2, mask)


def masked_whiten(x: Tensor, mask: Tensor, *, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the True positions, 0 elsewhere; one lone value becomes 0."""
    return (x - masked_mean(x, mask)) * (masked_var(x, mask) + eps).rsqrt() * mask
