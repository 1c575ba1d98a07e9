"""The clipped losses of PPO, token by token; the caller takes the mean (docs/decisions.md#losses)."""

from __future__ import annotations

import torch
from torch import Tensor


def policy_losses(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float
) -> tuple[Tensor, Tensor]:
    """max(-A ratio, -A clip(ratio, 1-c, 1+c)) and whether the clipped term is the larger one. All [B,T].

    ratio = exp(logprobs - old_logprobs); the maximum of negated terms is Schulman et al. 2017, Eq. 7.
    """
    ratio = (logprobs - old_logprobs).exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(plain, clipped), clipped > plain


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, *, clip_range: float) -> tuple[Tensor, Tensor]:
    """0.5 max((V-R)^2, (clip(V, V_old +- c) - R)^2) and whether the clipped term is the larger one. All [B,T]."""
    near_old = old_values + (values - old_values).clamp(-clip_range, clip_range)
    plain = (values - returns) ** 2
    clipped = (near_old - returns) ** 2
    return 0.5 * torch.maximum(plain, clipped), clipped > plain


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over the mask; 0 when the returns do not vary."""
    returns, values = returns[mask], values[mask]
    variance = returns.var(unbiased=False)
    return float(1 - (returns - values).var(unbiased=False) / variance) if variance > 0 else 0.0
