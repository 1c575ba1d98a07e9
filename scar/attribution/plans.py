"""Coalition plans: every estimator is a list of coalitions and a weight matrix, unit values = weights @ v. Pure NumPy.

Columns of `weights` sum to +1 for the grand coalition, -1 for the empty one and 0 for the others, so that unit values
sum to v(all) - v(none) whatever v is. Row 0 of `coalitions` is the empty coalition, row 1 the grand one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from scar.segmentation.units import balanced_hierarchy
from scar.types import CoalitionPlan


class _PlanBuilder:
    """Collects weighted marginal contributions; equal coalitions share one row."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._rows: dict[bytes, int] = {}
        self._masks: list[np.ndarray] = []
        self._entries: list[tuple[int, int, float]] = []
        self._row(np.zeros(count, dtype=bool))
        self._row(np.ones(count, dtype=bool))

    def _row(self, mask: np.ndarray) -> int:
        key = mask.tobytes()
        if key not in self._rows:
            self._rows[key] = len(self._masks)
            self._masks.append(mask.copy())
        return self._rows[key]

    def add(self, unit: int, without: np.ndarray, with_unit: np.ndarray, weight: float) -> None:
        """Add weight * (v(with_unit) - v(without)) to the value of `unit`."""
        self._entries.append((unit, self._row(with_unit), weight))
        self._entries.append((unit, self._row(without), -weight))

    def build(self) -> CoalitionPlan:
        weights = np.zeros((self._count, len(self._masks)))
        units, rows, amounts = zip(*self._entries, strict=True)
        np.add.at(weights, (units, rows), amounts)
        return CoalitionPlan(coalitions=np.array(self._masks), weights=weights)


def exact_plan(count: int) -> CoalitionPlan:
    """Shapley values by Eq. 4 over all 2^count coalitions."""
    builder = _PlanBuilder(count)
    for bits in range(2**count):
        mask = (bits >> np.arange(count)) & 1 == 1
        size = int(mask.sum())
        for unit in np.flatnonzero(~mask):
            joined = mask.copy()
            joined[unit] = True
            # |S|! (n - |S| - 1)! / n!
            builder.add(int(unit), mask, joined, 1 / (count * math.comb(count - 1, size)))
    return builder.build()


def coalition_count(hierarchy: np.ndarray) -> int:
    """How many coalitions `owen_plan` evaluates: 2 + sum over inner nodes of 2 * 2^depth, root depth 0 (paper note 3)."""
    count = len(hierarchy) + 1
    return 2 + sum(2 * 2**depth for node, depth in _node_depths(hierarchy) if node >= count)


def _node_depths(hierarchy: np.ndarray) -> Iterator[tuple[int, int]]:
    count = len(hierarchy) + 1
    stack = [(2 * count - 2, 0)]
    while stack:
        node, depth = stack.pop()
        yield node, depth
        if node >= count:
            stack.extend((int(child), depth + 1) for child in hierarchy[node - count])


def owen_plan(hierarchy: np.ndarray) -> CoalitionPlan:
    """Owen values over a binary hierarchy, the numbers of shap's PartitionExplainer with unlimited budget (paper note 6).

    phi_i = 2^(-d) * sum over the 2^d on/off choices C of i's path-sibling blocks of v(C + i) - v(C), d the depth of i.
    Args: `hierarchy` int64[n-1,2], n >= 2 (see scar.types.Units).
    """
    count = len(hierarchy) + 1
    members = _members(hierarchy)
    builder = _PlanBuilder(count)

    def visit(node: int, contexts: list[np.ndarray]) -> None:
        if node < count:
            alone = members[node]
            for context in contexts:
                builder.add(node, context, context | alone, 1 / len(contexts))
            return
        left, right = (int(child) for child in hierarchy[node - count])
        visit(left, contexts + [context | members[right] for context in contexts])
        visit(right, contexts + [context | members[left] for context in contexts])

    visit(2 * count - 2, [np.zeros(count, dtype=bool)])
    return builder.build()


def _members(hierarchy: np.ndarray) -> list[np.ndarray]:
    """Per node, which leaves lie below it: b[n] each."""
    count = len(hierarchy) + 1
    members = list(np.eye(count, dtype=bool))
    for left, right in hierarchy:
        members.append(members[int(left)] | members[int(right)])
    if not members[-1].all():
        raise ValueError("the last row of a hierarchy must be its root, with every unit below it")
    return members


def permutation_plan(count: int, permutations: int, generator: np.random.Generator) -> CoalitionPlan:
    """Unbiased Shapley estimate from `permutations` random orders, in antithetic pairs (each order and its reverse)."""
    builder = _PlanBuilder(count)
    for _ in range(permutations // 2):
        order = generator.permutation(count)
        for arrivals in (order, order[::-1]):
            present = np.zeros(count, dtype=bool)
            for unit in arrivals:
                joined = present.copy()
                joined[unit] = True
                builder.add(int(unit), present, joined, 1 / permutations)
                present = joined
    return builder.build()


@lru_cache(maxsize=64)
def _cached_exact_plan(count: int) -> CoalitionPlan:
    return exact_plan(count)


@lru_cache(maxsize=1024)
def _cached_owen_plan(shape: bytes) -> CoalitionPlan:
    return owen_plan(np.frombuffer(shape, dtype=np.int64).reshape(-1, 2))


@dataclass(frozen=True)
class ExactEstimator:
    """Exact Shapley values; `max_units` bounds the 2^n cost."""

    max_units: int

    def plan(self, count: int, hierarchy: np.ndarray, generator: np.random.Generator) -> CoalitionPlan:
        """All coalitions; ValueError above `max_units`."""
        if count > self.max_units:
            raise ValueError(
                f"exact Shapley values of {count} units need {2**count} coalitions; estimator.max_units={self.max_units} "
                "allows no more; use estimator=permutation or estimator=owen, or larger units"
            )
        return _cached_exact_plan(count)


EXACT_UNITS = 4
"""Up to so many units Shapley values are exact at the cost of Owen values (16 coalitions against 12; paper note 5)."""


@dataclass(frozen=True)
class OwenEstimator:
    """Owen values over the units' hierarchy; exact Shapley values for few units or where those cost no more.

    A hierarchy that costs over `max_coalitions` is replaced by the mid-split one.
    """

    max_coalitions: int

    def plan(self, count: int, hierarchy: np.ndarray, generator: np.random.Generator) -> CoalitionPlan:
        """The plan of the hierarchy; ValueError if even the balanced one is over budget (never truncated)."""
        if count <= EXACT_UNITS or 2**count <= min(coalition_count(hierarchy), self.max_coalitions):
            return _cached_exact_plan(count)
        fallback = coalition_count(hierarchy) > self.max_coalitions
        if fallback:
            hierarchy = balanced_hierarchy(count)
        cost = coalition_count(hierarchy)
        if cost > self.max_coalitions:
            raise ValueError(
                f"Owen values of {count} units need {cost} coalitions even over a balanced hierarchy; "
                f"estimator.max_coalitions={self.max_coalitions} allows no more; raise it or use estimator=permutation"
            )
        plan = _cached_owen_plan(np.ascontiguousarray(hierarchy, dtype=np.int64).tobytes())
        return replace(plan, fallback=fallback)


@dataclass(frozen=True)
class PermutationEstimator:
    """Antithetic permutation sampling, redrawn for every response: 2-3 dozen coalitions where Owen needs hundreds."""

    permutations: int

    def __post_init__(self) -> None:
        if self.permutations < 2 or self.permutations % 2:
            raise ValueError(
                f"estimator.permutations={self.permutations}; allowed: an even number, 2 or more (antithetic pairs)"
            )

    def plan(self, count: int, hierarchy: np.ndarray, generator: np.random.Generator) -> CoalitionPlan:
        """About count * permutations coalitions; with 2 units the exact values."""
        if count == 2:
            return _cached_exact_plan(2)
        return permutation_plan(count, self.permutations, generator)
