"""Coalition plans: every estimator is a list of coalitions and a weight matrix, unit values = weights @ v. Pure NumPy.

Columns of `weights` sum to +1 for the grand coalition, -1 for the empty one and 0 for the others, so that unit values
sum to v(all) - v(none) whatever v is. Row 0 of `coalitions` is the empty coalition, row 1 the grand one.
"""

from __future__ import annotations

import math

import numpy as np

from scar.segmentation.hierarchies import check_hierarchy
from scar.types import CoalitionPlan


def exact_plan(count: int) -> CoalitionPlan:
    """Shapley values by Eq. 4 over all 2^count coalitions."""
    if count < 1:
        raise ValueError(f"a plan needs at least one unit, got {count}")
    codes = np.concatenate([[0, 2**count - 1], np.arange(1, 2**count - 1)])[: 2**count]
    coalitions = (codes[:, None] >> np.arange(count)) & 1 == 1
    sizes = coalitions.sum(1)
    # A coalition with unit i: + (|S|-1)! (n-|S|)! / n!, without it: - |S|! (n-|S|-1)! / n!
    arrival = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
    gains, losses = arrival[np.maximum(sizes - 1, 0)], arrival[np.minimum(sizes, count - 1)]
    return CoalitionPlan(coalitions=coalitions, weights=np.where(coalitions.T, gains, -losses))


def owen_plan(hierarchy: np.ndarray) -> CoalitionPlan:
    """Owen values over a binary hierarchy, the numbers of shap's PartitionExplainer with unlimited budget
    (docs/decisions.md#the-shap-package).

    phi_i = 2^(-d) * sum over the 2^d on/off choices C of i's path-sibling blocks of v(C + i) - v(C), d the depth of i.
    No coalition occurs twice. Args: `hierarchy` int64[n-1,2], n >= 2 (see scar.types.Units). ValueError if it is no tree.
    """
    count = check_hierarchy(hierarchy)
    members = node_members(hierarchy)
    masks = [np.zeros((1, count), dtype=bool), np.ones((1, count), dtype=bool)]
    leaves: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0, np.int64), np.empty(0, np.int64))] * count
    made = 2
    # Node, the masks of its contexts, and the rows of each context without and with the node.
    stack = [(2 * count - 2, masks[0], np.array([0]), np.array([1]))]
    while stack:
        node, contexts, without, with_node = stack.pop()
        if node < count:
            leaves[node] = (without, with_node)
            continue
        left, right = (int(child) for child in hierarchy[node - count])
        with_left, with_right = contexts | members[left], contexts | members[right]
        rows_left = made + np.arange(len(contexts))
        rows_right = rows_left + len(contexts)
        made += 2 * len(contexts)
        masks += [with_left, with_right]
        for child, beside, alone, joined in (
            (left, with_right, rows_left, rows_right),
            (right, with_left, rows_right, rows_left),
        ):
            both = np.concatenate([contexts, beside])
            stack.append((child, both, np.concatenate([without, joined]), np.concatenate([alone, with_node])))
    weights = np.zeros((count, made))
    for unit, (without, with_unit) in enumerate(leaves):
        weights[unit, with_unit] = 1 / len(with_unit)
        weights[unit, without] = -1 / len(without)
    return CoalitionPlan(coalitions=np.concatenate(masks), weights=weights)


def node_members(hierarchy: np.ndarray) -> list[np.ndarray]:
    """Per node, which leaves lie below it: b[n] each."""
    members = list(np.eye(len(hierarchy) + 1, dtype=bool))
    for left, right in hierarchy:
        members.append(members[int(left)] | members[int(right)])
    return members


def permutation_plan(count: int, permutations: int, generator: np.random.Generator) -> CoalitionPlan:
    """Unbiased Shapley estimate from `permutations` random orders, in antithetic pairs (each order and its reverse)."""
    orders = [generator.permutation(count) for _ in range(permutations // 2)]
    return _plan_of_ranks(np.stack([np.argsort(arrivals) for order in orders for arrivals in (order, order[::-1])]))


def sequential_plan(count: int) -> CoalitionPlan:
    """What each unit adds to those before it in the text: one order only, so no Shapley value (not in the paper)."""
    return _plan_of_ranks(np.arange(count)[None])


def _plan_of_ranks(ranks: np.ndarray) -> CoalitionPlan:
    """The mean, over orders of arrival, of what each unit adds to those before it; `ranks` i64[K,n]: when unit i arrives."""
    count = ranks.shape[1]
    # Row k of an order holds the k units that arrived first, k = 0..n.
    present = ranks[:, None, :] < np.arange(count + 1)[:, None]
    coalitions, rows = _distinct(present.reshape(-1, count))
    rows = rows.reshape(len(ranks), count + 1)
    weights = np.zeros((count, len(coalitions)))
    units = np.broadcast_to(np.arange(count), ranks.shape)
    which = np.arange(len(ranks))[:, None]
    np.add.at(weights, (units, rows[which, ranks + 1]), 1 / len(ranks))
    np.add.at(weights, (units, rows[which, ranks]), -1 / len(ranks))
    return CoalitionPlan(coalitions=coalitions, weights=weights)


def _distinct(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of b[M,n] with the empty and the grand one first (both must occur), and each row's index among them."""
    distinct, inverse = np.unique(masks, axis=0, return_inverse=True)
    sizes = distinct.sum(1)
    # Sorted Boolean rows begin with the empty coalition and end with the grand one.
    order = np.concatenate([[0, len(distinct) - 1], np.arange(1, len(distinct) - 1)])
    if sizes[0] != 0 or sizes[-1] != masks.shape[1]:
        raise ValueError("a plan needs the empty and the grand coalition")
    position = np.argsort(order)
    return distinct[order], position[inverse.ravel()]


def coarse_plan(group: np.ndarray, plan: CoalitionPlan) -> CoalitionPlan:
    """A plan over groups as one over their units: a group comes and goes whole, its value goes to its last unit.

    Args: `group` i64[n], the group of each unit; `plan` over the groups.
    """
    weights = np.zeros((len(group), len(plan.coalitions)))
    for number, row in enumerate(plan.weights):
        weights[np.flatnonzero(group == number)[-1]] = row
    return CoalitionPlan(coalitions=plan.coalitions[:, group], weights=weights)
