"""From constituency trees to players: the cut, and a hierarchy above it whose cost is bounded (docs/decisions.md#spans).

Trees are `nltk.Tree`s: lists of subtrees and words. Of labels those of clauses are read, and a list without one will do, so
nltk is not loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scar.segmentation.hierarchies import (
    Coarsening,
    Nested,
    balanced_hierarchy,
    binarised,
    coalition_count,
    hierarchy_of,
    merge_order,
    merge_rows,
)
from scar.text import is_mark, mark_sides

CLAUSES = frozenset(["S", "SBAR", "SBARQ", "SINV", "SQ", "CL"])
"""The Penn Treebank's clause labels, and that of `ChunkParser`."""


class Clause(list[Any]):
    """The subtrees of a clause, or of a text, in a `Nested`: not merged with each other while other pairs are left."""


@dataclass(frozen=True)
class Cut:
    """Players of a text: `starts`, the first word of each, ascending from 0; `tree` over players 0..n-1."""

    starts: list[int]
    tree: Nested


@dataclass
class _Unit:
    """Words [start, end), marks not counted."""

    start: int
    end: int


@dataclass
class _Constituent:
    """Words [start, end), marks not counted, and what they consist of; a word has no children. `cut` is the tree over its
    players: one `_Unit` or nested lists of them, the leftmost of which is `first`."""

    start: int = 0
    end: int = -1
    clause: bool = False
    children: list[_Constituent] = field(default_factory=list)
    first: _Unit = field(default_factory=lambda: _Unit(0, 0))
    cut: Any = None

    @property
    def size(self) -> int:
        return self.end - self.start


def word_count(tree: Any) -> int:
    """How many words a tree holds, marks among them (nothing but a list is a subtree)."""
    return len(_leaves(tree))


def cut_trees(trees: Iterable[Any], *, max_words: int) -> Cut:
    """The players of a text, from the trees of its sentences, each of at least one word.

    From the root of a sentence down, a node of up to `max_words` words is a player; marks (`scar.text.is_mark`) do not
    count. The children of a larger node are read from left to right. A single word waits for what follows: it joins the
    first player of the next sister if both together have at most `max_words` words; else what waits is a player of its
    own, whatever its size. So is what waits when the node ends, unless the last sister is one player and they fit
    together. A closing mark ends the wait and belongs to the word before it, an opening bracket or quote to the word
    behind it. Thus no player begins inside a constituent and goes on behind its end. Sentences never share a player.
    """
    starts: list[int] = []
    text: list[Nested] = []
    offset = 0
    for tree in trees:
        leaves = _leaves(tree)
        words, closed = _words(leaves)
        cut, units = _numbered(_cut(tree, closed, max_words), len(starts))
        text.append(cut)
        starts += [offset + (words[unit.start] if unit.start > 0 else 0) for unit in units]
        offset += len(leaves)
    return Cut(starts, text[0] if len(text) == 1 else Clause(text))


def _leaves(tree: Any) -> list[Any]:
    """Words and marks from left to right; no recursion here and below, so that depth does not matter."""
    leaves, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += reversed(node)
        else:
            leaves.append(node)
    return leaves


def _words(leaves: list[Any]) -> tuple[list[int], list[bool]]:
    """Of each word that is no mark: the leaf at which it begins with its opening marks, and whether a closing mark stands
    between it and the word before."""
    starts, closed = [], []
    start, shut = 0, False
    for place, side in enumerate(mark_sides(leaves)):
        if side is None:
            starts.append(start)
            closed.append(shut)
        if side != "opening":
            start, shut = place + 1, side == "closing"
    return starts, closed


def _cut(tree: Any, closed: list[bool], max_words: int) -> Any:
    """One `_Unit`, or nested lists of them (`Clause` where they are of a clause); see `cut_trees`."""
    opened = _constituents(tree)
    for node in reversed(opened):  # children before their parents
        if node.size <= max_words:
            node.first = node.cut = _Unit(node.start, node.end)
            continue
        parts: list[tuple[Any, _Unit]] = []  # the cut of each and its first player
        waits: int | None = None  # the first of the words that wait
        for child in node.children:
            if waits is not None and (closed[child.start] or (child.size > 1 and child.first.end - waits > max_words)):
                parts.append(_alone(waits, child.start))
                waits = None
            if child.size == 1:
                waits = child.start if waits is None else waits
                continue
            if waits is not None:
                child.first.start, waits = waits, None
            parts.append((child.cut, child.first))
        if waits is not None:
            before = parts[-1][0] if parts and not closed[waits] else None
            if isinstance(before, _Unit) and node.end - before.start <= max_words:
                before.end = node.end
            else:
                parts.append(_alone(waits, node.end))
        node.first = parts[0][1]
        cuts = [cut for cut, _ in parts]
        node.cut = cuts[0] if len(cuts) == 1 else Clause(cuts) if node.clause else cuts
    return opened[0].cut


def _alone(start: int, end: int) -> tuple[_Unit, _Unit]:
    unit = _Unit(start, end)
    return unit, unit


def _constituents(tree: Any) -> list[_Constituent]:
    """The word ranges of a tree, parents before their children; children without a word are left out of their parent's."""
    words = 0
    waiting: list[tuple[Any, _Constituent]] = [(tree, _Constituent())]
    opened = []
    while waiting:
        node, here = waiting.pop()
        here.start = words
        opened.append(here)
        if isinstance(node, list):
            here.clause = _is_clause(node)
            here.children = [_Constituent() for _ in node]
            waiting += zip(reversed(node), reversed(here.children), strict=True)
        else:
            words += not is_mark(node)
            here.end = words
    for here in reversed(opened):
        here.children = [child for child in here.children if child.size > 0]
        if here.end < 0:
            here.end = here.children[-1].end if here.children else here.start
    return opened


def _is_clause(node: list[Any]) -> bool:
    label = getattr(node, "label", None)
    return label is not None and str(label()).partition("-")[0].partition("=")[0] in CLAUSES


def _numbered(cut: Any, count: int) -> tuple[Nested, list[_Unit]]:
    """The tree over the players' numbers, which go on from `count`, and the players from left to right."""
    units: list[_Unit] = []
    whole = [cut]
    waiting: list[tuple[list[Any], int]] = [(whole, 0)]
    while waiting:
        holder, place = waiting.pop()
        part = holder[place]
        if isinstance(part, list):
            waiting += [(part, index) for index in reversed(range(len(part)))]
        else:
            holder[place] = count + len(units)
            units.append(part)
    return whole[0], units


def bounded_hierarchy(tree: Nested, *, max_units: int, max_coalitions: int) -> Coarsening:
    """At most `max_units` units from the leaves of `tree`, and a hierarchy over them of at most `max_coalitions`.

    Too many leaves: sister leaves are merged, the deepest pair first, of equally deep ones the leftmost; sisters that only
    a `Clause` holds together when no others are left. Too dear (a right-branching tree of n units costs 2^n): the deepest
    inner node, of equally deep ones the leftmost, gives its children to its parent, whose children are then mid-split, and
    so on until the count fits; the top of the tree stays. At worst all of it is mid-split, which `check_bounds` makes sure
    fits.
    """
    rows, joined = binarised(tree)
    order = merge_order(rows, {row for row, node in enumerate(joined) if isinstance(node, Clause)})
    coarse = merge_rows(rows, order[: max(len(rows) + 1 - max_units, 0)])
    if coalition_count(coarse.hierarchy) <= max_coalitions:
        return coarse
    nodes, hierarchy = _nested(coarse.hierarchy), coarse.hierarchy
    check_bounds(max_units=len(hierarchy) + 1, max_coalitions=max_coalitions)
    while coalition_count(hierarchy) > max_coalitions:
        _flatten_deepest(nodes)
        hierarchy = hierarchy_of(nodes)
    return Coarsening(coarse.group, hierarchy)


def least_coalitions(max_units: int) -> int:
    """What the mid-split tree of `max_units` units costs; ValueError below two units."""
    if max_units < 2:
        raise ValueError(f"segmentation.max_units={max_units}; allowed: 2 or more")
    return coalition_count(balanced_hierarchy(max_units))


def check_bounds(*, max_units: int, max_coalitions: int) -> None:
    """ValueError unless the mid-split tree of `max_units` units fits `max_coalitions`."""
    if max_coalitions < least_coalitions(max_units):
        raise ValueError(
            f"segmentation.max_coalitions={max_coalitions}; max_units={max_units} units take "
            f"{least_coalitions(max_units)} even in a balanced tree; raise max_coalitions or lower max_units"
        )


def _nested(hierarchy: np.ndarray) -> list[Any]:
    """The hierarchy as nested lists."""
    nodes: list[Any] = list(range(len(hierarchy) + 1))
    for left, right in hierarchy.tolist():
        nodes.append([nodes[left], nodes[right]])
    return nodes[-1]


def _flatten_deepest(root: list[Any]) -> None:
    """Splice the children of the deepest inner node below the root, the leftmost of several, into its parent."""
    deepest = -1
    parent: list[Any] = []
    waiting: list[tuple[int, list[Any]]] = [(0, root)]
    while waiting:  # from left to right
        depth, node = waiting.pop()
        inner = [child for child in node if isinstance(child, list)]
        waiting += [(depth + 1, child) for child in reversed(inner)]
        if inner and depth > deepest:
            deepest, parent = depth, node
    index = next(index for index, child in enumerate(parent) if isinstance(child, list))
    parent[index : index + 1] = parent[index]
