"""From groups of tokens to `Units`: indices and unit ends. Pure; no tokenizer, no model."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from scar.segmentation.hierarchies import Nested, drop_leaves
from scar.types import Units

CLAUSE_ENDS = tuple(",;:.?!\n")
SENTENCE_ENDS = tuple(".?!\n")


def token_tree(pieces: Sequence[str]) -> Nested:
    """The tree over single tokens: word pieces in words, words in clauses, clauses in sentences
    (docs/decisions.md#hierarchy-over-tokens).

    `pieces` are the texts of the tokens within the response (`token_offsets`; a token decoded alone may lose its space). A
    word starts at a piece that begins with white space or punctuation or follows a piece that ends so; a clause ends after
    `, ; : . ? !` or a newline, a sentence after `. ? !` or a newline (and the closing quotes or brackets in the same
    piece). An empty piece is the beginning of a character and belongs to the piece that completes it.
    """
    sentences: list[list[list[list[int]]]] = [[[]]]
    before = ""  # the last piece that is not empty
    begun: list[int] = []  # the empty pieces behind it
    for i, piece in enumerate(pieces):
        begun.append(i)
        if not piece and i + 1 < len(pieces):
            continue
        words = sentences[-1][-1]
        if not words or (piece and _starts_word(piece, before)):
            words.append([])
        words[-1] += begun
        before, begun = piece, []
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


@dataclass(frozen=True)
class TextUnits:
    """One response cut into units of text: `text`; `offsets`, the character range of each content token in it; `starts`,
    the first character of each unit, ascending from 0; `hierarchy` int64[n-1,2] over these units."""

    text: str
    offsets: Sequence[tuple[int, int]]
    starts: Sequence[int]
    hierarchy: np.ndarray

    def __post_init__(self) -> None:
        if list(self.starts) != sorted(set(self.starts)) or (self.starts and self.starts[0] != 0):
            raise ValueError(f"units of text start at {list(self.starts)}; starts must ascend from 0")
        if self.hierarchy.shape != (max(len(self.starts) - 1, 0), 2):
            raise ValueError(f"hierarchy of shape {self.hierarchy.shape} does not fit {len(self.starts)} units of text")


def units_of_spans(content_mask: torch.Tensor, responses: Sequence[TextUnits]) -> Units:
    """Token units from units of text; `content_mask` b[B,T] has as many True columns as the response has offsets.

    A token belongs to the unit of its first character that is no white space; a token of white space only to the unit
    before it, at the start to the one behind; a token without a character to the unit of the token behind it, which
    completes the character. Units without a token are part of the unit before and leave the hierarchy. A response of
    white space is one unit, one without content tokens has none.
    """
    mask = content_mask.cpu()
    lengths = mask.sum(1).tolist()
    if lengths != [len(response.offsets) for response in responses]:
        raise ValueError(f"{[len(r.offsets) for r in responses]} token offsets for {lengths} content tokens")
    owners = [_owners(response) for response in responses]
    index = torch.full(mask.shape, -1, dtype=torch.int64)
    hierarchies = []
    for row, (response, owner) in enumerate(zip(responses, owners, strict=True)):
        kept, number = np.unique(owner, return_inverse=True)
        index[row, : len(owner)] = torch.from_numpy(number)
        occupied = np.zeros(max(len(response.starts), len(kept)), dtype=bool)
        occupied[kept] = True
        hierarchies.append(drop_leaves(response.hierarchy, occupied))
    return _units_of_index(index, hierarchies)


def _owners(response: TextUnits) -> np.ndarray:
    """i64[T]: the unit of text of each token; 0 everywhere if the text is white space."""
    # text     "A cat. Dogs"     units start at 0 ("A cat. ") and 7 ("Dogs")
    # tokens   "A" " cat" "." " Do" "gs"
    # offsets  (0,1) (1,5) (5,6) (6,9) (9,11)
    # " Do" begins at 6, in the first unit; its first character that is no white space is at 7, in the second.
    # units    0 0 0 1 1
    units: list[int | None] = []  # None: white space, the unit before
    for start, end in reversed(response.offsets):
        word = response.text[start:end].lstrip()
        if word:
            units.append(bisect_right(response.starts, end - len(word)) - 1)
        else:  # the token behind is the last one of `units`
            units.append(None if end > start or not units else units[-1])
    units.reverse()
    unit = next((owner for owner in units if owner is not None), 0)
    owners = np.zeros(len(units), dtype=np.int64)
    for index, owner in enumerate(units):
        unit = unit if owner is None else owner
        owners[index] = unit
    return owners


def _units_of_index(index: torch.Tensor, hierarchies: list[np.ndarray]) -> Units:
    """Units from `unit_index` i64[B,T] alone: counts and ends follow from it."""
    count = index.max(1).values + 1
    width = int(count.max())
    steps = torch.where(index >= 0, torch.arange(index.shape[1]), torch.tensor(-1))
    ends = torch.full((len(index), width + 1), -1).scatter_reduce(1, index.clamp(min=0), steps, "amax")
    return Units(unit_index=index, count=count, end_step=ends[:, :width], hierarchies=hierarchies)


def merge_empty_units(units: Units, occupied: torch.Tensor) -> Units:
    """The units with each one that is False in `occupied` b[B,N] merged into the one before it, or behind it where there
    is none; N as in `end_step`, columns beyond `count` do not matter. A response without any occupied unit keeps one.

    For a reward model with another tokenizer, in whose text a unit may have no token.
    """
    if occupied.shape != units.end_step.shape or occupied.dtype != torch.bool:
        raise ValueError(f"occupied is {occupied.dtype} {tuple(occupied.shape)}; end_step is {units.end_step.shape}")
    index = units.unit_index.cpu().clone()
    hierarchies = []
    for row, (hierarchy, count) in enumerate(zip(units.hierarchies, units.count.tolist(), strict=True)):
        kept = occupied[row, :count].cpu()
        player = index[row] >= 0
        merged = (kept.long().cumsum(0) - 1).clamp(min=0)
        index[row, player] = merged[index[row, player]]
        hierarchies.append(drop_leaves(hierarchy, kept.numpy()))
    return replace(_units_of_index(index, hierarchies), diagnostics=units.diagnostics)
