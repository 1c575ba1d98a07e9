"""The same game through the shap package, which the paper used: the oracle of the other estimators, one response at a time.

shap draws from NumPy's global generator; its state is saved and restored, so that no other stream notices.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from scar.credit.game import BatchGame
from scar.segmentation.hierarchies import coalition_count, empty_share, node_depths
from scar.types import UnitValues

Evaluate = Callable[[np.ndarray], np.ndarray]
"""v f64[M] of coalitions b[M,n]."""


class HierarchyMasker:
    """What shap asks of a masker: the linkage of the players, and masks handed through as they are."""

    def __init__(self, hierarchy: np.ndarray) -> None:
        count = len(hierarchy) + 1
        sizes = np.ones(2 * count - 1)
        for row, (left, right) in enumerate(hierarchy):
            sizes[count + row] = sizes[left] + sizes[right]
        heights = -node_depths(hierarchy)[count:].astype(float)
        # A height below 0 would mean "never split"; shap wants the tallest node last.
        heights += len(hierarchy)
        self.clustering = np.column_stack([hierarchy, heights, sizes[count:]]).astype(float)
        self._count = count

    def shape(self, *args: Any) -> tuple[int, int]:
        """One row of n players."""
        return (1, self._count)

    def mask_shapes(self, *args: Any) -> list[tuple[int]]:
        """The shape of one mask."""
        return [(self._count,)]

    def __call__(self, mask: np.ndarray, *args: Any) -> tuple[np.ndarray]:
        """The coalition itself is what the model is given."""
        return (mask[None].copy(),)


def partition_values(evaluate: Evaluate, hierarchy: np.ndarray, *, max_evals: int, batch_size: int) -> np.ndarray:
    """f64[n]: the values that shap's PartitionExplainer gives, cut off at `max_evals` as shap does it.

    ImportError with the command to run when shap is not installed.
    """
    require_shap()
    from shap import PartitionExplainer

    model = lambda masks: evaluate(np.asarray(masks, dtype=bool))  # noqa: E731
    with untouched_global_rng():
        explainer = PartitionExplainer(model, HierarchyMasker(hierarchy))
        count = len(hierarchy) + 1
        players = np.ones((1, count))
        explanation = explainer(players, max_evals=max_evals, batch_size=batch_size, silent=True)
    return np.asarray(explanation.values, dtype=np.float64).reshape(count)


def require_shap() -> None:
    """ImportError with the command that installs shap, where it is missing."""
    if importlib.util.find_spec("shap") is None:
        raise ImportError("estimator=shap needs the shap package: pip install 'scar[shap]'")


@contextmanager
def untouched_global_rng() -> Iterator[None]:
    """Restore NumPy's global generator afterwards."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


@dataclass(frozen=True)
class ShapEstimator:
    """Owen values by shap's PartitionExplainer over the units' hierarchy; `max_evals` must cover the whole tree.

    `batch_size` coalitions are asked for at once; shap's default is 10.
    """

    name: ClassVar[str] = "shap"

    max_evals: int
    batch_size: int

    def __post_init__(self) -> None:
        require_shap()
        for name in ("max_evals", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"estimator.{name}={value}; allowed: a whole number, 1 or more")

    def estimate(self, game: BatchGame, generator: np.random.Generator) -> Sequence[UnitValues | None]:
        """Unit values of every response; ValueError where `max_evals` would cut a tree off (shap then spreads the rest)."""
        return [
            self._unit_values(game, number, hierarchy) if count > 1 else None
            for number, (count, hierarchy) in enumerate(zip(game.counts, game.hierarchies, strict=True))
        ]

    def _unit_values(self, game: BatchGame, number: int, hierarchy: np.ndarray) -> UnitValues:
        needed = coalition_count(hierarchy)
        if needed > self.max_evals:
            raise ValueError(
                f"shap needs {needed} evaluations for the hierarchy of {len(hierarchy) + 1} units; "
                f"estimator.max_evals={self.max_evals} would cut it off; raise it or use estimator=owen"
            )
        empty: list[float] = []
        queries = 0

        def evaluate(masks: np.ndarray) -> np.ndarray:
            nonlocal queries
            coalitions: list[np.ndarray | None] = [None] * len(game.counts)
            coalitions[number] = masks
            values = game.evaluate(coalitions)[number]
            assert values is not None
            queries += int((~masks.all(1)).sum())
            empty.extend(values[~masks.any(1)].tolist())
            return values

        values = partition_values(evaluate, hierarchy, max_evals=self.max_evals, batch_size=self.batch_size)
        return UnitValues(values, empty[0], empty_share(hierarchy), queries)
