"""Estimators: which plan each response of a batch gets, and what its unit values are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

import numpy as np

from scar.credit.game import BatchGame
from scar.credit.plans import coarse_plan, exact_plan, owen_plan, permutation_plan, sequential_plan
from scar.segmentation.hierarchies import balanced_hierarchy, coalition_count, coarsen
from scar.types import CoalitionPlan, UnitValues

EXACT_UNITS = 4
"""Up to so many units Shapley values are exact at the cost of Owen values (16 coalitions against 12;
docs/decisions.md#exact-values)."""


@lru_cache(maxsize=64)
def _cached_exact_plan(count: int) -> CoalitionPlan:
    return exact_plan(count)


@lru_cache(maxsize=64)  # a plan over 53 tokens holds 1 MB
def _cached_owen_plan(shape: bytes) -> CoalitionPlan:
    return owen_plan(np.frombuffer(shape, dtype=np.int64).reshape(-1, 2))


class Estimator(Protocol):
    """Finds unit values: Shapley or Owen values, exact or sampled."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    def estimate(self, game: BatchGame, generator: np.random.Generator) -> Sequence[UnitValues | None]:
        """Unit values of every response of at least two units."""
        ...


class PlanEstimator(ABC):
    """An estimator whose coalitions are known before anything is evaluated, so that a whole batch is one evaluation."""

    @abstractmethod
    def plan(self, count: int, hierarchy: np.ndarray, generator: np.random.Generator) -> tuple[CoalitionPlan, str]:
        """The plan of a response of `count` >= 2 units, and what became of its hierarchy (`UnitValues.hierarchy`)."""

    def estimate(self, game: BatchGame, generator: np.random.Generator) -> Sequence[UnitValues | None]:
        """Unit values of every response; None for one with fewer than two units. `generator` feeds those that sample."""
        plans = [
            self.plan(count, hierarchy, generator) if count > 1 else None
            for count, hierarchy in zip(game.counts, game.hierarchies, strict=True)
        ]
        values = game.evaluate([None if planned is None else planned[0].coalitions for planned in plans])
        return [
            None if planned is None or v is None else _unit_values(*planned, v)
            for planned, v in zip(plans, values, strict=True)
        ]


def _unit_values(plan: CoalitionPlan, hierarchy: str, v: np.ndarray) -> UnitValues:
    return UnitValues(
        values=plan.weights @ v,
        empty=float(v[0]),
        empty_share=-plan.weights[:, 0],
        queries=len(v) - 1,  # v(all) is known
        hierarchy=hierarchy,
    )


@dataclass(frozen=True)
class ExactEstimator(PlanEstimator):
    """Exact Shapley values; `max_units` bounds the 2^n cost."""

    name: ClassVar[str] = "exact"

    max_units: int

    def __post_init__(self) -> None:
        if self.max_units < 2:
            raise ValueError(f"estimator.max_units={self.max_units}; allowed: 2 or more")

    def plan(self, count: int, hierarchy: np.ndarray, generator: np.random.Generator) -> tuple[CoalitionPlan, str]:
        """All coalitions; ValueError above `max_units`."""
        if count > self.max_units:
            raise ValueError(
                f"exact Shapley values of {count} units need {2**count} coalitions; estimator.max_units={self.max_units} "
                "allows no more; use estimator=permutation or estimator=owen, or larger units"
            )
        return _cached_exact_plan(count), "exact"


@dataclass(frozen=True)
class OwenEstimator(PlanEstimator):
    """Owen values over the units' hierarchy; exact Shapley values for few units or where those cost no more.

    A hierarchy that costs over `max_coalitions` is replaced by the mid-split one; if that costs too much too, the given
    one is coarsened. Nothing is ever truncated.
    """

    name: ClassVar[str] = "owen"

    max_coalitions: int

    def __post_init__(self) -> None:
        if not isinstance(self.max_coalitions, int) or self.max_coalitions < 4:
            raise ValueError(f"estimator.max_coalitions={self.max_coalitions}; allowed: 4 (two players) or more")

    def plan(self, count: int, hierarchy: np.ndarray, generator: np.random.Generator) -> tuple[CoalitionPlan, str]:
        """The plan of the hierarchy, or of what became of it to fit the budget."""
        cost = coalition_count(hierarchy)
        if 2**count <= self.max_coalitions and (count <= EXACT_UNITS or 2**count <= cost):
            return _cached_exact_plan(count), "exact"
        if cost <= self.max_coalitions:
            return self._owen(hierarchy), "given"
        balanced = balanced_hierarchy(count)
        if coalition_count(balanced) <= self.max_coalitions:
            return self._owen(balanced), "rebalanced"
        coarse = coarsen(hierarchy, self.max_coalitions)
        return coarse_plan(coarse.group, self._owen(coarse.hierarchy)), "coarsened"

    @staticmethod
    def _owen(hierarchy: np.ndarray) -> CoalitionPlan:
        return _cached_owen_plan(np.ascontiguousarray(hierarchy, dtype=np.int64).tobytes())


@dataclass(frozen=True)
class PermutationEstimator(PlanEstimator):
    """Antithetic permutation sampling, redrawn for every response: 2-3 dozen coalitions where Owen needs hundreds."""

    name: ClassVar[str] = "permutation"

    permutations: int

    def __post_init__(self) -> None:
        if not isinstance(self.permutations, int) or self.permutations < 2 or self.permutations % 2:
            raise ValueError(
                f"estimator.permutations={self.permutations}; allowed: an even number, 2 or more (antithetic pairs)"
            )

    def plan(self, count: int, hierarchy: np.ndarray, generator: np.random.Generator) -> tuple[CoalitionPlan, str]:
        """About count * permutations coalitions; with 2 units the exact values."""
        if count == 2:
            return _cached_exact_plan(2), "exact"
        return permutation_plan(count, self.permutations, generator), "given"


@dataclass(frozen=True)
class SequentialEstimator(PlanEstimator):
    """What each unit adds to those before it in the game; with `fill: space`, what RED's difference would be if the reward
    model always read at the same place. Half the cost of a pair of permutations; not in the paper."""

    name: ClassVar[str] = "sequential"

    def plan(self, count: int, hierarchy: np.ndarray, generator: np.random.Generator) -> tuple[CoalitionPlan, str]:
        """count + 1 coalitions, nothing drawn."""
        return sequential_plan(count), "given"
