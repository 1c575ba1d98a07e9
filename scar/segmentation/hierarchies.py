"""Hierarchies over units: made from trees, checked, and made cheaper where they cost too much. Pure NumPy.

A hierarchy is int64[n-1,2]: row k joins two nodes into node n+k, leaves are 0..n-1, the last row is the root.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Nested: TypeAlias = "int | Sequence[Nested]"
"""A tree over leaves 0..n-1 in order: a leaf number, or a sequence of subtrees."""


def hierarchy_of(tree: Nested) -> np.ndarray:
    """int64[n-1,2]: the rows of a tree, n-ary nodes binarised by mid-split; children come before parents.

    Mid-split and not right-branching: a chain of k units costs 2^k coalitions (docs/decisions.md#cost-of-owen-values).
    ValueError for a subtree without units. Any depth will do.
    """
    return binarised(tree)[0]


def binarised(tree: Nested) -> tuple[np.ndarray, list[Sequence[Nested]]]:
    """`hierarchy_of(tree)`, and of each row the node of `tree` whose children it joins."""
    leaf_count = _count_leaves(tree)
    rows: list[tuple[int, int]] = []
    joined: list[Sequence[Nested]] = []
    if leaf_count < 2:
        return np.zeros((0, 2), dtype=np.int64), joined
    done: list[int] = []  # nodes of the hierarchy that wait for their right neighbour
    waiting: list[tuple[Nested | None, Any]] = [(tree, tree)]  # (children, their node); (None, node): join the last two
    while waiting:
        children, node = waiting.pop()
        if children is None:
            right, left = done.pop(), done.pop()
            rows.append((left, right))
            joined.append(node)
            done.append(leaf_count + len(rows) - 1)
        elif isinstance(children, int):
            done.append(children)
        elif not children:
            raise ValueError("a hierarchy has a subtree without units")
        elif len(children) == 1:
            waiting.append((children[0], children[0]))
        else:
            middle = (len(children) + 1) // 2
            waiting += [(None, node), (children[middle:], node), (children[:middle], node)]
    return np.array(rows, dtype=np.int64).reshape(-1, 2), joined


def _count_leaves(tree: Nested) -> int:
    count, waiting = 0, [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, int):
            count += 1
        else:
            waiting += node
    return count


def balanced_hierarchy(count: int) -> np.ndarray:
    """The mid-split hierarchy over `count` units (empty for fewer than two)."""
    return hierarchy_of(list(range(count)))


def drop_leaves(hierarchy: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """int64[m-1,2]: the hierarchy without the leaves that are False in `kept` b[n]; the others are numbered anew, in order.

    A node that loses one child gives way to the other, so no leaf gets deeper.
    """
    leaf_count = int(kept.sum())
    number: list[int | None] = [int(new) if real else None for new, real in zip(kept.cumsum() - 1, kept, strict=True)]
    rows: list[tuple[int, int]] = []
    for left, right in hierarchy.tolist():
        first, second = number[left], number[right]
        if first is None or second is None:
            number.append(second if first is None else first)
        else:
            rows.append((first, second))
            number.append(leaf_count + len(rows) - 1)
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def check_hierarchy(hierarchy: np.ndarray) -> int:
    """The number of units; ValueError unless `hierarchy` is a binary tree over all of them."""
    if hierarchy.ndim != 2 or hierarchy.shape[1] != 2 or not np.issubdtype(hierarchy.dtype, np.integer):
        raise ValueError(
            f"a hierarchy is an integer matrix [n-1,2], got {hierarchy.dtype} {hierarchy.shape}: one row a joined pair"
        )
    count = len(hierarchy) + 1
    parents = count + np.arange(len(hierarchy))
    if (hierarchy >= parents[:, None]).any():
        row = int((hierarchy >= parents[:, None]).any(1).argmax())
        raise ValueError(
            f"row {row} of a hierarchy over {count} units joins {hierarchy[row].tolist()} into node {count + row}; "
            "children must be made before their parent (a cycle otherwise)"
        )
    uses = np.bincount(hierarchy.ravel(), minlength=2 * count - 1) if (hierarchy >= 0).all() else None
    if uses is None or (uses[:-1] != 1).any():
        raise ValueError(
            f"a hierarchy over {count} units must use every node but the root exactly once as a child: "
            f"got children {sorted(hierarchy.ravel().tolist())}"
        )
    return count


def node_depths(hierarchy: np.ndarray) -> np.ndarray:
    """i64[2n-1]: depth of every node, the root's is 0."""
    count = len(hierarchy) + 1
    depths = np.zeros(2 * count - 1, dtype=np.int64)
    for row in range(len(hierarchy) - 1, -1, -1):
        depths[hierarchy[row]] = depths[count + row] + 1
    return depths


def coalition_count(hierarchy: np.ndarray) -> int:
    """How many coalitions `owen_plan` evaluates: 2 + sum over inner nodes of 2 * 2^depth, root depth 0
    (docs/decisions.md#cost-of-owen-values)."""
    count = check_hierarchy(hierarchy)
    return 2 + sum(2 * 2**depth for depth in node_depths(hierarchy)[count:].tolist())


def empty_share(hierarchy: np.ndarray) -> np.ndarray:
    """f64[n], sum 1: what an Owen value would gain of v(empty) if that were 0, 2^-depth of each unit
    (docs/decisions.md#empty-coalition)."""
    return 0.5 ** node_depths(hierarchy)[: len(hierarchy) + 1].astype(np.float64)


@dataclass(frozen=True)
class Coarsening:
    """Units joined into fewer groups: `group` i64[n], the group of each unit; `hierarchy` over the groups."""

    group: np.ndarray
    hierarchy: np.ndarray


def coarsen(hierarchy: np.ndarray, max_coalitions: int) -> Coarsening:
    """Merge sibling leaves into one player, the deepest (so dearest) pair first, until the count fits
    (docs/decisions.md#cost-of-owen-values).

    Among pairs of one depth the earlier row goes first. ValueError if not even two players fit.
    """
    if max_coalitions < 4:
        raise ValueError(f"estimator.max_coalitions={max_coalitions}; allowed: 4 (two players) or more")
    cost, rows = coalition_count(hierarchy), merge_order(hierarchy)
    depths = node_depths(hierarchy)[len(hierarchy) + 1 :].tolist()
    merged = 0
    while cost > max_coalitions:
        cost -= 2 * 2 ** depths[rows[merged]]
        merged += 1
    return merge_rows(hierarchy, rows[:merged])


def merge_order(hierarchy: np.ndarray, late: Collection[int] = ()) -> list[int]:
    """All rows in the order in which pairs of leaves are merged into one: the deepest first, of equally deep ones the earlier
    row; the rows in `late` only when no other pair is left."""
    count = check_hierarchy(hierarchy)
    depths = node_depths(hierarchy).tolist()
    parent = {int(child): row for row, children in enumerate(hierarchy) for child in children}
    leaf = [node < count for node in range(2 * count - 1)]

    def entry(row: int) -> tuple[bool, int, int]:
        return row in late, -depths[count + row], row

    ready = [entry(row) for row, pair in enumerate(hierarchy) if leaf[pair[0]] and leaf[pair[1]]]
    heapq.heapify(ready)
    order = []
    while ready:
        row = heapq.heappop(ready)[-1]
        order.append(row)
        leaf[count + row] = True
        above = parent.get(count + row)
        if above is not None and all(leaf[child] for child in hierarchy[above]):
            heapq.heappush(ready, entry(above))
    return order


def merge_rows(hierarchy: np.ndarray, rows: Collection[int]) -> Coarsening:
    """The hierarchy with each of `rows`, and all below it, as one leaf; groups are numbered by their first unit."""
    count = len(hierarchy) + 1
    merged = set(rows)
    top = list(range(2 * count - 1))  # the merged node that each node lies under, or itself
    for row in range(len(hierarchy) - 1, -1, -1):
        if row in merged:
            for child in hierarchy[row].tolist():
                top[child] = top[count + row]
    tops = [top[unit] for unit in range(count)]
    number = {node: index for index, node in enumerate(dict.fromkeys(tops))}
    group = np.array([number[node] for node in tops], dtype=np.int64)
    left = []
    for row, children in enumerate(hierarchy.tolist()):
        if row not in merged:
            left.append([number[child] for child in children])
            number[count + row] = len(set(tops)) + len(left) - 1
    return Coarsening(group, np.array(left, dtype=np.int64).reshape(-1, 2))
