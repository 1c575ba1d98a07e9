"""Generalised advantage estimation (Schulman et al. 2016), whitened once over the whole rollout batch (paper note 20)."""

from __future__ import annotations

import torch
from torch import Tensor

from scar.ppo.masked import masked_whiten
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
