"""From groups of tokens to `Units`: indices, unit ends, and binary hierarchies. Pure; no tokenizer, no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from scar.types import Units

Nested: TypeAlias = "int | Sequence[Nested]"
"""A tree over leaves 0..n-1 in order: a leaf number, or a sequence of subtrees."""

CLAUSE_ENDS = tuple(",;:.?!\n")
SENTENCE_ENDS = tuple(".?!\n")


def hierarchy_of(tree: Nested) -> np.ndarray:
    """int64[n-1,2]: the rows of a tree, n-ary nodes binarised by mid-split; children come before parents.

    Mid-split and not right-branching: a chain of k units costs 2^k coalitions (paper note 3).
    """
    leaf_count = _count_leaves(tree)
    if leaf_count < 2:
        return np.zeros((0, 2), dtype=np.int64)
    rows: list[tuple[int, int]] = []

    def visit(node: Nested) -> int:
        if isinstance(node, int):
            return node
        if not node:
            raise ValueError("a hierarchy has a subtree without units")
        if len(node) == 1:
            return visit(node[0])
        middle = (len(node) + 1) // 2
        left, right = visit(node[:middle]), visit(node[middle:])
        rows.append((left, right))
        return leaf_count + len(rows) - 1

    visit(tree)
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _count_leaves(tree: Nested) -> int:
    return 1 if isinstance(tree, int) else sum(_count_leaves(child) for child in tree)


def balanced_hierarchy(count: int) -> np.ndarray:
    """The mid-split hierarchy over `count` units (empty for fewer than two)."""
    return hierarchy_of(list(range(count)))


def token_tree(pieces: Sequence[str]) -> Nested:
    """The tree over single tokens: word pieces in words, words in clauses, clauses in sentences (paper note 4).

    `pieces` are the decoded tokens. A word starts at a piece that begins with white space or punctuation or follows a
    piece that ends so; a clause ends after `, ; : . ? !` or a newline, a sentence after `. ? !` or a newline (and the
    closing quotes or brackets in the same piece).
    """
    sentences: list[list[list[list[int]]]] = [[[]]]
    for i, piece in enumerate(pieces):
        words = sentences[-1][-1]
        if not words or _starts_word(piece, pieces[i - 1]):
            words.append([])
        words[-1].append(i)
        ending = piece.rstrip(" \"')]}\u201d\u2019")  # a closing quote or bracket belongs to what it closes
        if ending.endswith(SENTENCE_ENDS):
            sentences.append([[]])
        elif ending.endswith(CLAUSE_ENDS):
            sentences[-1].append([])
    # A text that ends with punctuation has opened a clause or a sentence that stays empty.
    filled = [[clause for clause in sentence if clause] for sentence in sentences]
    return [sentence for sentence in filled if sentence]


def _starts_word(piece: str, before: str) -> bool:
    return not piece[:1].isalnum() or not before[-1:].isalnum()


def token_units(content_mask: torch.Tensor, hierarchies: list[np.ndarray]) -> Units:
    """Units that are single tokens: every True token of `content_mask` b[B,T] is one player, in order."""
    mask = content_mask.cpu()
    steps = torch.arange(mask.shape[1])
    count = mask.sum(1)
    index = torch.where(mask, mask.long().cumsum(1) - 1, torch.full_like(mask, -1, dtype=torch.int64))
    width = int(count.max())
    end_step = torch.where(steps[None, :width] < count[:, None], steps[None, :width], torch.tensor(-1))
    return Units(unit_index=index, count=count, end_step=end_step, hierarchies=hierarchies)
