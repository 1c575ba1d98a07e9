"""The data types of the coalition games: which coalitions to score, their texts, and the values found.

Frozen and checked like those of scar/types.py, but NumPy: plans are small and float64. M coalitions, n units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CoalitionPlan:
    """Which coalitions to evaluate and how to combine them: unit values = weights @ v.

    `coalitions` b[M,n] (NumPy), row 0 the empty one and row 1 the grand one; `weights` f64[n,M].
    """

    coalitions: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        if self.coalitions.dtype != np.bool_ or self.coalitions.ndim != 2:
            raise TypeError(f"coalitions must be a Boolean matrix, got {self.coalitions.dtype} {self.coalitions.shape}")
        if self.weights.shape != self.coalitions.shape[::-1] or self.weights.dtype != np.float64:
            raise ValueError(f"weights {self.weights.shape} do not fit coalitions {self.coalitions.shape}")


@dataclass(frozen=True)
class CoalitionRows:
    """Token rows to score behind one prompt (NumPy): `prompt_ids` i64[P], `ids` i64[M,T], of which row m has
    `lengths` i64[M] tokens (0: the prompt alone is scored)."""

    prompt_ids: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray

    def __post_init__(self) -> None:
        for name in ("prompt_ids", "ids", "lengths"):
            if getattr(self, name).dtype != np.int64:
                raise TypeError(f"{name} has dtype {getattr(self, name).dtype}; it must be int64")
        if self.prompt_ids.ndim != 1 or len(self.prompt_ids) == 0:
            raise ValueError(f"prompt_ids has shape {self.prompt_ids.shape}; it must be one row of at least one token")
        if self.ids.ndim != 2 or self.lengths.shape != self.ids.shape[:1]:
            raise ValueError(f"lengths {self.lengths.shape} do not fit ids {self.ids.shape}")
        if len(self.lengths) and not 0 <= self.lengths.min() <= self.lengths.max() <= self.ids.shape[1]:
            raise ValueError(f"lengths must lie between 0 and {self.ids.shape[1]}")


@dataclass(frozen=True)
class UnitValues:
    """What an estimator says of one response: `values` f64[n], which sum to v(all) - v(empty); `empty` = v(empty);
    `empty_share` f64[n], sum 1: what each unit would get of v(empty) if that were 0; `queries`: coalitions asked for;
    `hierarchy`: "given", or "rebalanced" or "coarsened" where the given one was over the estimator's budget."""

    values: np.ndarray
    empty: float
    empty_share: np.ndarray
    queries: int
    hierarchy: str = "given"
