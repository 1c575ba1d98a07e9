"""Coalitions of one prompt share prefixes: token rows as a trie cut at a few columns, so that each prefix is computed once.

Pure NumPy. Rows are sorted; the columns are cut into stages; a node is one distinct prefix up to the end of its stage and
holds that stage's tokens only. With a balanced hierarchy over 53 tokens 8 stages leave 45 % of the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from scar.types import CoalitionRows

# Example: the prompt "The film is" and the response "not really bad" in three units of a token each, "_" the space token.
# Sorted, the 7 coalitions but the grand one are _ _ _ | _ _ bad | _ really _ | _ really bad | not _ _ | not _ bad | not really _.
# Cut into columns 0-1 and 2, they become three stages of 3 + 8 + 7 = 18 tokens, in place of 7 rows x 6 = 42:
#   stage 0, the prompt    [The film is]
#   stage 1, columns 0-1   [_ _]       [_ really]  [not _]     [not really]   parents 0 0 0 0
#   stage 2, column 2      [_] [bad]   [_] [bad]   [_] [bad]   [_]            parents 0 0 1 1 2 2 3; each row is read here

PAD = -1
"""Stands behind the end of a row; any negative number would do."""


@dataclass(frozen=True)
class Stage:
    """Nodes of one range of columns: `tokens` i64[n,w] (0 behind a text's end), their `positions` i64[n,w], `parent` i64[n]
    (node of the stage before), `owner` i64[n] (prompt)."""

    tokens: np.ndarray
    positions: np.ndarray
    parent: np.ndarray
    owner: np.ndarray


@dataclass(frozen=True)
class Trie:
    """`stages`, and where each row is read: i64[R] stage (-1: at the end of a prompt that is no stage), node and offset in
    the node; `owner` i64[R] the prompt of each row; `prompt_lengths` i64[n] of the first stage if that holds the prompts."""

    stages: list[Stage]
    prompt_lengths: np.ndarray | None
    owner: np.ndarray
    read_stage: np.ndarray
    read_node: np.ndarray
    read_offset: np.ndarray


@dataclass(frozen=True)
class SortedRows:
    """All rows of several prompts, sorted by prompt and then by tokens.

    `ids` i64[R,T] with PAD behind the end, `lengths` i64[R], `owner` i64[R], `order` i64[R] (sorted row -> row as given,
    counted through all prompts), `first_difference` i64[R] (first column that differs from the row above; 0 at a new
    prompt).
    """

    ids: np.ndarray
    lengths: np.ndarray
    owner: np.ndarray
    order: np.ndarray
    first_difference: np.ndarray


def padded(rows: CoalitionRows, width: int) -> np.ndarray:
    """i64[M,width]: the rows with PAD behind each end."""
    out = np.full((len(rows.ids), width), PAD, dtype=np.int64)
    out[:, : rows.ids.shape[1]] = np.where(np.arange(rows.ids.shape[1]) < rows.lengths[:, None], rows.ids, PAD)
    return out


def row_keys(ids: np.ndarray) -> np.ndarray:
    """One comparable value per row of i64[M,T]: equal rows have equal keys, and keys sort as the rows do."""
    codes = np.ascontiguousarray((ids + 1).astype(">u4"))
    if codes.shape[1] == 0:
        return np.zeros(len(ids), dtype=np.int64)
    return codes.view(np.dtype((np.void, 4 * codes.shape[1]))).ravel()


def sort_rows(batch: Sequence[CoalitionRows]) -> SortedRows:
    """Sort the rows of every prompt."""
    width = max(rows.ids.shape[1] for rows in batch)
    parts, orders, start = [], [], 0
    for rows in batch:
        ids = padded(rows, width)
        order = np.argsort(row_keys(ids), kind="stable")
        parts.append(ids[order])
        orders.append(start + order)
        start += len(ids)
    ids, order = np.concatenate(parts), np.concatenate(orders)
    owner = np.repeat(np.arange(len(batch)), [len(rows.ids) for rows in batch])
    differs = np.pad(ids[1:] != ids[:-1], ((0, 0), (0, 1)), constant_values=True)
    first = differs.argmax(1)
    first = np.where(owner[1:] != owner[:-1], 0, first)
    first_difference = np.concatenate([[0], first]).astype(np.int64)[: len(ids)]
    return SortedRows(ids, np.concatenate([r.lengths for r in batch])[order], owner, order, first_difference)


def cut_columns(width: int, stages: int) -> list[tuple[int, int]]:
    """About `stages` equal ranges that cover columns 0..width-1."""
    edges = np.unique(np.linspace(0, width, min(stages, width) + 1).round().astype(int))
    return [(int(a), int(b)) for a, b in pairwise(edges)]


def new_tokens(rows: SortedRows, cuts: Sequence[tuple[int, int]], *, alone: bool) -> np.ndarray:
    """i64[R]: tokens that each row adds to the trie behind the row above it (`alone`: as the first row of a trie)."""
    counts = np.zeros(len(rows.ids), dtype=np.int64)
    for start, end in cuts:
        fresh = rows.lengths > start
        counts += (fresh if alone else fresh & (rows.first_difference < end)) * (end - start)
    return counts


def chunks(costs: np.ndarray, first_costs: np.ndarray, limit: int, *, usual: int | None = None) -> Iterator[slice]:
    """Consecutive slices whose costs stay within `limit`: the first row of a slice costs `first_costs`, others `costs`.

    Slices stay within `usual` where that is smaller, unless one row alone is larger. ValueError for a row over `limit`.
    """
    usual = limit if usual is None else min(usual, limit)
    total = np.concatenate([[0], np.cumsum(costs)])
    start = 0
    while start < len(costs):
        allowed = total[start + 1] + usual - first_costs[start]
        end = max(int(np.searchsorted(total, allowed, side="right")) - 1, start + 1)
        if first_costs[start] > limit:
            raise ValueError(
                f"one row needs {int(first_costs[start])} bytes, the limit is {limit}; raise coalitions.memory_mib"
            )
        yield slice(start, end)
        start = end


def build_trie(
    rows: SortedRows,
    index: slice,
    cuts: Sequence[tuple[int, int]],
    prompts: Sequence[np.ndarray],
    *,
    with_prompts: bool,
) -> Trie:
    """The trie of consecutive sorted rows behind `prompts`, whose tokens are its first stage if `with_prompts`."""
    ids, lengths, owner = rows.ids[index], rows.lengths[index], rows.owner[index]
    first_difference = rows.first_difference[index].copy()
    first_difference[0] = 0
    prompt_lengths = np.array([len(prompt) for prompt in prompts])
    count, first_owner = len(ids), int(owner[0])
    present = slice(first_owner, int(owner[-1]) + 1)
    stages = [_prompt_stage(prompts[present], first_owner)] if with_prompts else []
    read_stage, read_node, read_offset = np.full(count, len(stages) - 1), owner - first_owner, prompt_lengths[owner] - 1
    above = owner - first_owner  # node of the stage before, row by row
    for start, end in cuts:
        # Rows that end before this stage sort directly before the longer rows of the same prefix, never between them.
        active = lengths > start
        if not active.any():
            break
        opens = active & (first_difference < end)
        node, first = np.cumsum(opens) - 1, np.flatnonzero(opens)
        tokens = ids[first, start:end]
        # Padding gets position 0: behind a text that fills the model there is no further position.
        positions = np.where(tokens == PAD, 0, prompt_lengths[owner[first]][:, None] + np.arange(start, end))
        stages.append(Stage(np.maximum(tokens, 0), positions, above[first], owner[first]))
        ends_here = active & (lengths <= end)
        read_stage[ends_here], read_node[ends_here] = len(stages) - 1, node[ends_here]
        read_offset[ends_here] = lengths[ends_here] - 1 - start
        above = node
    return Trie(stages, prompt_lengths[present] if with_prompts else None, owner, read_stage, read_node, read_offset)


def _prompt_stage(prompts: Sequence[np.ndarray], first_owner: int) -> Stage:
    width = max(len(prompt) for prompt in prompts)
    tokens = np.zeros((len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    nodes = np.arange(len(prompts))
    return Stage(tokens, np.broadcast_to(np.arange(width), tokens.shape), nodes, first_owner + nodes)
