"""Generalised advantage estimation (Schulman et al. 2016), whitened once over the whole rollout batch
(docs/decisions.md#advantages)."""

from __future__ import annotations

import torch
from torch import Tensor

from scar.types import Advantages


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float) -> Tensor:
    """A_t = delta_t + gamma lambda A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t, with V = 0 after the last real token.

    Args: `rewards`, `values` f32[B,T], `mask` b[B,T] (a prefix of each row). Returns f32[B,T], zero off the mask.
    """
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(running)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        running = (delta + gamma * gae_lambda * running) * mask[:, t]
        advantages[:, t] = running
        next_value = values[:, t]
    return advantages


def estimate_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> Advantages:
    """Whitened advantages, and returns = unwhitened advantages + values. All f32[B,T], zero off the mask."""
    raw = gae(rewards, values, mask, gamma=gamma, gae_lambda=gae_lambda)
    return Advantages(advantages=masked_whiten(raw, mask), returns=(raw + values) * mask)


# Statistics over the True positions of a mask.


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `x` where `mask` is True, over all dimensions. Raises ValueError for an empty mask."""
    count = mask.sum()
    if count == 0:
        raise ValueError("the mask is empty: there is no token to take a mean over")
    return (x * mask).sum() / count


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Biased (population) variance of `x` where `mask` is True (docs/decisions.md#advantages)."""
    return masked_mean((x - masked_mean(x, mask)) ** 2, mask)


def masked_whiten(x: Tensor, mask: Tensor, *, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the True positions, 0 elsewhere; one lone value becomes 0."""
    return (x - masked_mean(x, mask)) * (masked_var(x, mask) + eps).rsqrt() * mask
