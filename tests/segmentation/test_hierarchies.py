"""What a hierarchy costs, what is refused as one, and how an expensive one is made cheaper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scar.credit.plans import exact_plan, owen_plan
from scar.segmentation import hierarchies
from scar.segmentation.hierarchies import (
    Coarsening,
    balanced_hierarchy,
    coalition_count,
    coarsen,
    empty_share,
    hierarchy_of,
    node_depths,
)
from tests import builders
from tests.builders import chain, owen_contexts, random_hierarchy

# What is a hierarchy.


@given(count=st.integers(1, 12), seed=st.integers(0, 10_000))
def test_every_binary_tree_passes_and_its_units_are_counted(count: int, seed: int) -> None:
    assert hierarchies.check_hierarchy(random_hierarchy(count, np.random.default_rng(seed))) == count
    assert hierarchies.check_hierarchy(balanced_hierarchy(count)) == count
    assert hierarchies.check_hierarchy(chain(count)) == count


NO_TREES: dict[str, tuple[Any, str]] = {
    "two nodes that are children of each other": ([[0, 4], [1, 3], [2, 4]], "row 0 .* joins .* into node 4.*cycle"),
    "a node that is its own child": ([[0, 1], [2, 4]], "row 1 .* joins .* into node 4.*cycle"),
    "a node that does not exist": ([[0, 1], [2, 9]], "row 1 .* joins"),
    "a child made after its parent": ([[0, 5], [1, 2], [3, 4]], "row 0 .* joins"),
    "a leaf that is missing": ([[0, 1], [0, 3]], "exactly once"),
    "a leaf used twice": ([[0, 1], [1, 2]], "exactly once"),
    "an inner node used twice": ([[0, 1], [2, 3], [4, 4]], "exactly once"),
    "an inner node that is missing": ([[0, 1], [2, 3], [0, 1]], "exactly once"),
    "a pair of one leaf": ([[0, 0]], "exactly once"),
    "a negative child": ([[0, -1]], "exactly once"),
    "minus one for the last": ([[0, 1], [-1, 3]], "exactly once"),
    "one column": ([[0], [1]], r"integer matrix \[n-1,2\], got int64 \(2, 1\)"),
    "three columns": ([[0, 1, 2]], r"integer matrix \[n-1,2\], got int64 \(1, 3\)"),
    "a flat list": ([0, 1], r"integer matrix \[n-1,2\], got int64 \(2,\)"),
    "fractions": ([[0.0, 1.0]], r"integer matrix \[n-1,2\], got float64"),
    "truth values": ([[False, True]], r"integer matrix \[n-1,2\], got bool"),
}


@pytest.mark.parametrize("case", NO_TREES)
def test_what_is_no_tree_is_an_error_everywhere(case: str) -> None:
    rows, message = NO_TREES[case]
    calls: list[Any] = [
        hierarchies.check_hierarchy,
        coalition_count,
        owen_plan,
        lambda hierarchy: coarsen(hierarchy, 4),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(np.array(rows))


# Costs.

MID_SPLIT_COST = {
    2: 4,
    3: 8,
    4: 12,
    5: 20,
    6: 28,
    8: 44,
    10: 76,
    12: 108,
    16: 172,
    24: 428,
    32: 684,
    53: 2028,
    64: 2732,
}


@pytest.mark.parametrize(("count", "cost"), MID_SPLIT_COST.items())
def test_cost_of_the_mid_split_tree(count: int, cost: int) -> None:
    hierarchy = balanced_hierarchy(count)
    assert coalition_count(hierarchy) == cost
    coalitions = owen_plan(hierarchy).coalitions
    assert len(coalitions) == len(np.unique(coalitions, axis=0)) == cost


@pytest.mark.parametrize("count", range(2, 13))
def test_a_chain_costs_every_coalition(count: int) -> None:
    assert coalition_count(chain(count)) == 2**count
    assert len(owen_plan(chain(count)).coalitions) == 2**count


def test_cost_of_a_long_chain_is_a_number_and_no_overflow() -> None:
    assert coalition_count(chain(100)) == 2**100


@given(count=st.integers(2, 10), seed=st.integers(0, 10_000))
def test_cost_is_the_number_of_coalitions_that_the_closed_form_needs(count: int, seed: int) -> None:
    hierarchy = random_hierarchy(count, np.random.default_rng(seed))
    joined = [(context, leaf) for leaf, contexts in enumerate(owen_contexts(hierarchy)) for context in contexts]
    needed = {context for context, _ in joined} | {context | {leaf} for context, leaf in joined}
    assert coalition_count(hierarchy) == len(needed) == len(owen_plan(hierarchy).coalitions)


def test_depths_by_hand() -> None:
    # Leaves 0 1 2 3 4, then 5 = (2, 3), 6 = (1, 5), 7 = (0, 6), 8 = (7, 4).
    assert node_depths(hierarchy_of([[0, [1, [2, 3]]], 4])).tolist() == [2, 3, 4, 4, 1, 3, 2, 1, 0]
    assert node_depths(balanced_hierarchy(1)).tolist() == [0]


# What each unit would get of v(empty).


@given(count=st.integers(2, 10), seed=st.integers(0, 10_000))
def test_share_of_v_empty_is_what_the_plans_take_off(count: int, seed: int) -> None:
    hierarchy = random_hierarchy(count, np.random.default_rng(seed))
    np.testing.assert_allclose(empty_share(hierarchy), -owen_plan(hierarchy).weights[:, 0], atol=1e-15)
    np.testing.assert_allclose(-exact_plan(count).weights[:, 0], np.full(count, 1 / count), atol=1e-15)
    assert empty_share(hierarchy).sum() == pytest.approx(1)


def test_share_of_v_empty_by_hand() -> None:
    assert empty_share(hierarchy_of([[0, [1, [2, 3]]], 4])).tolist() == [1 / 4, 1 / 8, 1 / 16, 1 / 16, 1 / 2]


# Coarsening.

# Leaves 0..5, then 6 = (2, 3) at depth 3, 7 = (1, 6) at depth 2, 8 = (0, 7) and 9 = (4, 5) at depth 1, 10 the root.
# Cost 2 + 2 * (8 + 4 + 2 + 2 + 1) = 36; merging 6 saves 16, 7 saves 8, 8 and 9 save 4 each.
UNEVEN_TREE = hierarchy_of([[0, [1, [2, 3]]], [4, 5]])


@pytest.mark.parametrize(
    ("budget", "group", "hierarchy"),
    [
        (36, [0, 1, 2, 3, 4, 5], UNEVEN_TREE.tolist()),
        (35, [0, 1, 2, 2, 3, 4], [[1, 2], [0, 5], [3, 4], [6, 7]]),
        (20, [0, 1, 2, 2, 3, 4], [[1, 2], [0, 5], [3, 4], [6, 7]]),
        (19, [0, 1, 1, 1, 2, 3], [[0, 1], [2, 3], [4, 5]]),
        (11, [0, 0, 0, 0, 1, 2], [[1, 2], [0, 3]]),  # (0, 7) and (4, 5) are equally deep: the earlier row goes first
        (7, [0, 0, 0, 0, 1, 1], [[0, 1]]),
        (4, [0, 0, 0, 0, 1, 1], [[0, 1]]),
    ],
)
def test_the_deepest_pair_is_merged_first(budget: int, group: list[int], hierarchy: list[list[int]]) -> None:
    coarse = coarsen(UNEVEN_TREE, budget)
    assert coarse.group.tolist() == group
    assert coarse.hierarchy.tolist() == hierarchy


def test_groups_of_units_out_of_order_are_numbered_by_their_first_unit() -> None:
    # 5 = (4, 1), 6 = (3, 0), 7 = (6, 2), 8 = (5, 7): (3, 0) is the deepest, then (5 = (4, 1)) and (7) are equal.
    coarse = coarsen(np.array([[4, 1], [3, 0], [6, 2], [5, 7]]), 12)
    assert coarse.group.tolist() == [0, 1, 2, 0, 3]
    assert coarse.hierarchy.tolist() == [[3, 1], [0, 2], [4, 5]]


def nested(hierarchy: np.ndarray) -> Any:
    """The tree as nested pairs of leaf numbers."""
    count = len(hierarchy) + 1
    nodes: list[Any] = list(range(count))
    for left, right in hierarchy.tolist():
        nodes.append((nodes[left], nodes[right]))
    return nodes[-1]


def merge_by_definition(hierarchy: np.ndarray, budget: int) -> set[frozenset[int]]:
    """The groups: while too dear, join the two children of the deepest pair of leaves that was made first."""
    count = len(hierarchy) + 1
    children = {count + k: pair for k, pair in enumerate(hierarchy.tolist())}
    members = {leaf: frozenset([leaf]) for leaf in range(count)}

    def depths(node: int, depth: int) -> dict[int, int]:
        below = [depths(child, depth + 1) for child in children.get(node, [])]
        return {node: depth} | {n: d for part in below for n, d in part.items()}

    while True:
        found = depths(2 * count - 2, 0)
        if 2 + sum(2 * 2 ** found[node] for node in found if node in children) <= budget:
            return {members[node] for node in found if node not in children}
        ready = [n for n in children if n in found and not any(c in children for c in children[n])]
        merged = min(ready, key=lambda n: (-found[n], n))
        members[merged] = frozenset().union(*(members[c] for c in children.pop(merged)))


def expanded(coarse: Coarsening) -> Any:
    """The tree over groups as nested pairs of sets of units."""
    names = [frozenset(np.flatnonzero(coarse.group == g).tolist()) for g in range(len(coarse.hierarchy) + 1)]

    def visit(node: Any) -> Any:
        return names[node] if isinstance(node, int) else tuple(visit(child) for child in node)

    return visit(nested(coarse.hierarchy))


def collapsed(tree: Any, groups: set[frozenset[int]]) -> Any:
    """The tree over units with the groups for leaves."""
    leaves = _leaves(tree)
    return leaves if leaves in groups else tuple(collapsed(child, groups) for child in tree)


def _leaves(tree: Any) -> frozenset[int]:
    return frozenset([tree]) if isinstance(tree, int) else frozenset().union(*map(_leaves, tree))


@given(count=st.integers(2, 12), seed=st.integers(0, 10_000), budget=st.integers(4, 300))
def test_coarsening_fits_the_budget_and_merges_no_more_than_it_must(count: int, seed: int, budget: int) -> None:
    hierarchy = random_hierarchy(count, np.random.default_rng(seed))
    coarse = coarsen(hierarchy, budget)
    groups = {frozenset(np.flatnonzero(coarse.group == g).tolist()) for g in set(coarse.group.tolist())}
    assert groups == merge_by_definition(hierarchy, budget)
    builders.check_hierarchy(coarse.hierarchy, len(groups), in_order=False)
    assert expanded(coarse) == collapsed(nested(hierarchy), groups)
    assert len(owen_plan(coarse.hierarchy).coalitions) == coalition_count(coarse.hierarchy) <= budget
    assert list(dict.fromkeys(coarse.group.tolist())) == list(range(len(groups)))  # numbered by first unit


def test_a_long_chain_is_cut_to_the_units_that_fit() -> None:
    # A chain of k players costs 2^k: ten players fit 1,024, the first 91 of 100 units become one.
    coarse = coarsen(chain(100), 2047)
    assert coarse.group.tolist() == [0] * 91 + list(range(1, 10))
    assert np.array_equal(coarse.hierarchy, chain(10))


@pytest.mark.parametrize("budget", [-1, 0, 1, 3])
def test_two_players_are_the_least(budget: int) -> None:
    with pytest.raises(ValueError, match=rf"estimator.max_coalitions={budget}; allowed: 4 \(two players\) or more"):
        coarsen(balanced_hierarchy(3), budget)
