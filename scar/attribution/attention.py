"""Attention that also returns the log of its normaliser, so that two key sets can be attended apart and merged exactly."""

from __future__ import annotations

import torch
from torch import Tensor

_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
"""PyTorch's own CPU kernel; no public function returns the normaliser. It is private, so its absence is provided for,
and the scorer that uses it is compared with the generic one before it is trusted."""
BLOCK_SCORES = 2**22
"""Without that kernel, so many attention scores (16 MiB) are held at once."""


def attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """softmax(scale q k^T + mask) v and the log-sum-exp of the scores.

    Args: q [B,H,Q,D], k and v [B,H,K,D], additive `mask` broadcastable to [B,H,Q,K] and of 2 or 4 dimensions.
    Returns: [B,H,Q,D] and f32[B,H,Q].
    """
    if q.device.type == "cpu" and _FLASH is not None:
        out, normaliser = _FLASH(q, k, v, 0.0, False, attn_mask=mask, scale=scale)
        return out, normaliser
    block = max(1, BLOCK_SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
    parts = [
        _attend_block(part, k, v, scale=scale, mask=_of_queries(mask, start, block))
        for start, part in zip(range(0, q.shape[2], block), q.split(block, 2), strict=True)
    ]
    return torch.cat([out for out, _ in parts], 2), torch.cat([normaliser for _, normaliser in parts], 2)


def _of_queries(mask: Tensor | None, start: int, block: int) -> Tensor | None:
    return mask if mask is None or mask.shape[-2] == 1 else mask[..., start : start + block, :]


def _attend_block(q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if mask is not None:
        scores = scores + mask
    normaliser = scores.logsumexp(-1)
    return (scores - normaliser[..., None]).exp().to(v.dtype) @ v, normaliser


def merge(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Attention over the union of two key sets from (output [...,D], log-normaliser [...]) over each."""
    (out_a, norm_a), (out_b, norm_b) = first, second
    return torch.lerp(out_b, out_a, torch.sigmoid(norm_a - norm_b)[..., None].to(out_a.dtype))


def causal_mask(queries: int, keys: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[Q,K], 0 where the key is not later than the query and -inf elsewhere; the last query sees every key."""
    later = torch.arange(keys, device=device)[None, :] > torch.arange(keys - queries, keys, device=device)[:, None]
    return torch.zeros(queries, keys, dtype=dtype, device=device).masked_fill_(later, -torch.inf)
