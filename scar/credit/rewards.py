"""Eqs. 2, 5 and 6: from a method's credit to the reward of each response token. Pure."""

from __future__ import annotations

import torch
from torch import Tensor

from scar.types import Credit, Rollout, Scores, ShapedRewards


def at_last_step(amount: Tensor, rollout: Rollout) -> Tensor:
    """f32[B,T] with `amount` f32[B] on each response's last real token (EOS when there is one), 0 elsewhere."""
    out = torch.zeros_like(rollout.logprobs)
    return out.scatter(1, rollout.last_step[:, None], amount[:, None])


def shape_rewards(
    rollout: Rollout,
    scores: Scores,
    credit: Credit,
    *,
    kl_coef: float,
    alpha: float,
    sparse_weight: float | None = None,
) -> ShapedRewards:
    """R_t(alpha) = -kl_coef (log pi - log pi_ref) + alpha credit_t + w 1[t = T] raw, w = 1 - alpha   (Eq. 6).

    `sparse_weight` is another w (None: 1 - alpha): the authors' code has alpha = w = 1 and so pays twice. A penalty lands
    on the last real token once, whatever alpha and w are, and so does all of a score that a rule replaced. With w = 1 - alpha
    rows of `total - kl` sum to `scores.final` (Eq. 7), because rows of `credit.per_token` sum to `scores.credited`.
    """
    weight = 1 - alpha if sparse_weight is None else sparse_weight
    kl = -kl_coef * (rollout.logprobs - rollout.ref_logprobs) * rollout.response_mask
    terminal = weight * scores.credited + (scores.final - scores.credited)
    return ShapedRewards(kl=kl, credit=alpha * credit.per_token, terminal=at_last_step(terminal, rollout))


def at_unit_ends(unit_values: Tensor, end_step: Tensor, count: Tensor, *, steps: int) -> Tensor:
    """Eq. 5: f32[B,T] with the value of unit i at step t_i and 0 elsewhere.

    Args: `unit_values` f32[B,N], `end_step` i64[B,N] (ignored from `count` i64[B] on), `steps` = T.
    """
    real = torch.arange(end_step.shape[1], device=count.device)[None] < count[:, None]
    out = torch.zeros(len(count), steps, dtype=unit_values.dtype, device=unit_values.device)
    return out.scatter_add(1, end_step.clamp(min=0), unit_values * real)
