"""Attention over a trie: each node's tokens see their prompt, the nodes above theirs, and their own node up to themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scar.coalitions.architectures import Trunk
from scar.coalitions.trie import Trie

Spans = list[tuple[int, slice]]
"""(prompt, the consecutive entries that belong to it)."""


@dataclass(frozen=True)
class SharedPrompts:
    """Keys and values [B,P,H,D] of each layer, right-padded, for prompts that all their coalitions attend to; `lengths` of
    the prompts; `scores` f64[B] read at their ends."""

    keys: list[Tensor]
    values: list[Tensor]
    lengths: list[int]
    scores: Tensor


@dataclass(frozen=True)
class Nodes:
    """One stage: `rows` of the flat matrix, node `count` and `width`, `context` i64[n*K] (flat rows of ancestors and own
    tokens; None: the own ones), additive `mask` [w,K] or [n,1,w,K], `spans` within the stage's tokens."""

    rows: slice
    count: int
    width: int
    context: Tensor | None
    mask: Tensor
    spans: Spans


@dataclass(frozen=True)
class Reads:
    """The scores read in one stage: `row` of the trie and `token` of the flat matrix i64[r], `context` i64[r*K], additive
    `mask` [r,1,1,K]."""

    row: Tensor
    token: Tensor
    context: Tensor
    mask: Tensor
    spans: Spans


@dataclass(frozen=True)
class Layout:
    """A trie on the device, its tokens flat, stage after stage: `ids` and `positions` i64[N]."""

    ids: Tensor
    positions: Tensor
    stages: list[Nodes]
    reads: list[Reads]


def lay_out(trie: Trie, *, device: torch.device, dtype: torch.dtype) -> Layout:
    """Lay out a trie of at least one stage."""
    stages, reads, start = [], [], 0
    context = np.empty((0, 0), dtype=np.int64)
    root: np.ndarray | None = None  # the node of the first stage that each node lies under
    for number, stage in enumerate(trie.stages):
        count, width = stage.tokens.shape
        own = start + np.arange(count * width).reshape(count, width)
        context = np.concatenate([context[stage.parent], own], 1) if number else own
        root = np.arange(count) if root is None else root[stage.parent]
        mask = causal_mask(width, context.shape[1], device=device, dtype=dtype)
        if trie.prompt_lengths is not None and number:
            mask = _hide_padding(mask, trie.prompt_lengths[root], trie.stages[0].tokens.shape[1])
        rows = slice(start, start + count * width)
        gathered = torch.from_numpy(context).to(device)
        flat = gathered.flatten() if number else None
        stages.append(Nodes(rows, count, width, flat, mask, _spans(stage.owner, width)))
        read_rows = np.flatnonzero(trie.read_stage == number)
        if len(read_rows):
            node, offset = (
                torch.from_numpy(values[read_rows]).to(device) for values in (trie.read_node, trie.read_offset)
            )
            seen = mask[offset][:, None] if mask.dim() == 2 else mask[node, :, offset]
            token, row = rows.start + node * width + offset, torch.from_numpy(read_rows).to(device)
            reads.append(
                Reads(row, token, gathered[node].flatten(), seen[:, :, None], _spans(trie.owner[read_rows], 1))
            )
        start = rows.stop
    ids, positions = (
        torch.from_numpy(np.concatenate([getattr(stage, name).ravel() for stage in trie.stages])).to(device)
        for name in ("tokens", "positions")
    )
    return Layout(ids, positions, stages, reads)


def _hide_padding(mask: Tensor, prompt_lengths: np.ndarray, prompt_width: int) -> Tensor:
    """A causal mask [w,K] that also hides what stands behind a prompt's end; one per node where lengths differ."""
    if prompt_lengths.min() == prompt_width:
        return mask
    behind = np.zeros((len(prompt_lengths), mask.shape[1]), dtype=bool)
    behind[:, :prompt_width] = np.arange(prompt_width) >= prompt_lengths[:, None]
    hidden = torch.from_numpy(behind).to(mask.device)[:, None, None, :]
    return mask.expand(len(behind), 1, *mask.shape).masked_fill(hidden, -torch.inf)


def _spans(owner: np.ndarray, width: int) -> Spans:
    """Consecutive runs of equal owners, `width` entries each."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(owner)) + 1, [len(owner)]])
    pairs = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    return [(int(owner[a]), slice(a * width, b * width)) for a, b in pairs]


def attend_stages(trunk: Trunk, layer: int, x: Tensor, layout: Layout, prompts: SharedPrompts | None) -> Tensor:
    """[N,H*D]: the attention output of every token of the trie in one layer."""
    q, k, v = trunk.project(layer, x, layout.positions)
    attended = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for stage in layout.stages:
        index = slice(stage.rows.start, stage.rows.stop) if stage.context is None else stage.context
        queries, keys, values = (
            tensor.view(stage.count, -1, *q.shape[1:]).transpose(1, 2) for tensor in (q[stage.rows], k[index], v[index])
        )
        out, norm = attend(queries, keys, values, scale=trunk.scale(layer), mask=stage.mask)
        out, norm = out.transpose(1, 2).flatten(0, 1), norm.transpose(1, 2).flatten(0, 1)
        if prompts is not None:
            out = _with_prompts(trunk, layer, q[stage.rows], out, norm, stage.spans, prompts)
        attended[stage.rows] = out
    return attended.flatten(1)


def attend_reads(trunk: Trunk, layer: int, x: Tensor, layout: Layout, prompts: SharedPrompts | None) -> Tensor:
    """[R,H*D]: the attention output of the tokens at which scores are read, stage after stage."""
    q, k, v = trunk.project(layer, x, layout.positions)
    parts = []
    for reads in layout.reads:
        queries = q[reads.token]
        keys, values = (tensor[reads.context].view(len(queries), -1, *q.shape[1:]).transpose(1, 2) for tensor in (k, v))
        out, norm = attend(queries[:, :, None], keys, values, scale=trunk.scale(layer), mask=reads.mask)
        out, norm = out[:, :, 0], norm[:, :, 0]
        if prompts is not None:
            out = _with_prompts(trunk, layer, queries, out, norm, reads.spans, prompts)
        parts.append(out.flatten(1))
    return torch.cat(parts)


def _with_prompts(
    trunk: Trunk, layer: int, q: Tensor, out: Tensor, norm: Tensor, spans: Spans, prompts: SharedPrompts
) -> Tensor:
    """`out` [n,H,D], whose log-normaliser is `norm` [n,H], merged with what the queries [n,H,D] see of their prompts."""
    parts = []
    for prompt, index in spans:
        length = prompts.lengths[prompt]
        keys, values = (
            by_layer[layer][prompt, None, :length].transpose(1, 2) for by_layer in (prompts.keys, prompts.values)
        )
        attended, attended_norm = attend(q[None, index].transpose(1, 2), keys, values, scale=trunk.scale(layer))
        beside = attended[0].transpose(0, 1), attended_norm[0].transpose(0, 1)
        parts.append(merge(beside, (out[index], norm[index])))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


# Attention that also returns the log of its normaliser, so that two key sets can be attended apart and merged exactly.


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
        _attend_block(queries, k, v, scale=scale, mask=_of_queries(mask, start, block))
        for start, queries in zip(range(0, q.shape[2], block), q.split(block, 2), strict=True)
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
