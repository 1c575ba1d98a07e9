"""From constituency trees to players: the cut, and a hierarchy above it whose cost is bounded.

Trees are `nltk.Tree`s: lists of subtrees and words. Labels are not read, so any nested list does and nltk is not loaded.
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
    coalition_count,
    coarsen,
    hierarchy_of,
    node_depths,
)


@dataclass(frozen=True)
class Cut:
    """Players of one sentence: `starts`, the first word of each, ascending from 0; `tree` over players 0..n-1."""

    starts: list[int]
    tree: Nested


@dataclass
class _Constituent:
    """Words [start, end) and what they consist of; a word has no children."""

    start: int
    end: int = -1
    children: list[_Constituent] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def phrases(self) -> list[_Constituent]:
        return [child for child in self.children if child.size > 1]


def word_count(tree: Any) -> int:
    """How many words a tree holds (nothing but a list is a subtree)."""
    return _constituents(tree).size


def cut_tree(tree: Any, *, max_words: int, max_depth: int) -> Cut:
    """The players of one sentence of at least one word.

    From the root down: a node of up to `max_words` words, or all of whose children are single words, is a player; the
    others are descended into. Single words between players go with the one before, at the start with the one behind.
    A node with one phrase below it is no branching. A node `max_depth` branchings down is a player whatever its size: a cap of
    `max_depth` players (`bounded_hierarchy`) would merge what is below, and no tree is too deep to walk.
    """
    starts: list[int] = []

    def walk(node: _Constituent, depth: int) -> Nested:
        while node.size > max_words and len(node.phrases) == 1:
            node = node.phrases[0]
        if node.size <= max_words or not node.phrases or depth == max_depth:
            starts.append(node.start)
            return len(starts) - 1
        return [walk(phrase, depth + 1) for phrase in node.phrases]

    players = walk(_constituents(tree), 0)
    return Cut([0, *starts[1:]], players)


def _constituents(tree: Any) -> _Constituent:
    """The word ranges of a tree, without nodes that hold no word; no recursion, so that depth does not matter."""
    top = _Constituent(0)
    words = 0
    waiting: list[tuple[Any, _Constituent]] = [(tree, top)]
    opened = []
    while waiting:
        node, here = waiting.pop()
        here.start = words
        opened.append(here)
        if isinstance(node, list):
            here.children = [_Constituent(0) for _ in node]
            waiting += zip(reversed(node), reversed(here.children), strict=True)
        else:
            words += 1
            here.end = words
    for here in reversed(opened):  # children were opened after their parent
        here.children = [child for child in here.children if child.size > 0]
        if here.end < 0:
            here.end = here.children[-1].end if here.children else here.start
    return top


def join_cuts(cuts: Iterable[Cut]) -> Nested:
    """The tree over the players of several sentences, numbered through."""
    joined: list[Nested] = []
    count = 0
    for cut in cuts:
        joined.append(_shifted(cut.tree, count))
        count += len(cut.starts)
    return joined


def _shifted(tree: Nested, by: int) -> Nested:
    return tree + by if isinstance(tree, int) else [_shifted(child, by) for child in tree]


def bounded_hierarchy(tree: Nested, *, max_units: int, max_coalitions: int) -> Coarsening:
    """At most `max_units` units from the leaves of `tree`, and a hierarchy over them of at most `max_coalitions`.

    Too many leaves: sibling leaves are merged, the deepest pair first, of equally deep ones the leftmost. Too dear (a
    right-branching tree of n units costs 2^n): the deepest inner node, of equally deep ones the leftmost, gives its
    children to its parent, whose children are then mid-split, and so on until the count fits; the top of the tree stays.
    At worst all of it is mid-split, which `check_bounds` makes sure fits.
    """
    coarse = _merged(hierarchy_of(tree), max_units)
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


def _merged(hierarchy: np.ndarray, max_units: int) -> Coarsening:
    """Sibling leaves merged, the deepest pair first, until there are no more than `max_units` groups."""
    count = len(hierarchy) + 1
    if count <= max_units:
        return Coarsening(np.arange(count), hierarchy)
    depths = sorted(node_depths(hierarchy)[count:].tolist(), reverse=True)
    saved = sum(2 * 2**depth for depth in depths[: count - max_units])  # what so many merges save, and no fewer do
    return coarsen(hierarchy, coalition_count(hierarchy) - saved)


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
