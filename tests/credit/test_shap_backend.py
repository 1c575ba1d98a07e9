"""The estimator around the shap package: the same values as ours, and no trace in any random stream."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scar.credit.plans import owen_plan
from scar.credit.shap_oracle import HierarchyMasker, ShapEstimator, partition_values
from scar.segmentation.hierarchies import balanced_hierarchy, hierarchy_of
from scar.types import UnitValues
from tests.builders import (
    TableGames,
    Worth,
    closed_form_owen,
    random_game,
    random_hierarchy,
    solve,
    worths,
)


def shap_values(game: Worth, hierarchy: np.ndarray, *, max_evals: int = 2048, batch_size: int = 10) -> UnitValues:
    estimator = ShapEstimator(max_evals=max_evals, batch_size=batch_size)
    found = estimator.estimate(TableGames([game], [hierarchy]), np.random.default_rng(0))[0]
    assert found is not None
    return found


# The same values as ours.


@given(count=st.integers(2, 10), seed=st.integers(0, 10_000))
def test_values_are_those_of_our_plan_and_of_the_closed_form(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hierarchy, game = random_hierarchy(count, rng), random_game(count, rng)
    found, plan = shap_values(game, hierarchy), owen_plan(hierarchy)
    np.testing.assert_allclose(found.values, solve(plan, game), atol=1e-9)
    np.testing.assert_allclose(found.values, closed_form_owen(hierarchy, game), atol=1e-9)
    np.testing.assert_allclose(found.empty_share, -plan.weights[:, 0], atol=1e-15)
    assert found.empty == game(frozenset())
    assert found.queries == len(plan.coalitions) - 1
    assert found.hierarchy == "given"


def test_values_by_hand() -> None:
    # v = 6 + 1 [0] - 2 [1] + 4 [2] + 8 [all three], tree ((0, 1), 2): shares of the 8 are 1/4, 1/4, 1/2.
    worth = [1.0, -2.0, 4.0]
    found = shap_values(lambda s: 6 + sum(worth[i] for i in s) + 8 * (len(s) == 3), hierarchy_of([[0, 1], 2]))
    np.testing.assert_allclose(found.values, [3.0, 0.0, 8.0], atol=1e-12)
    np.testing.assert_allclose(found.empty_share, [0.25, 0.25, 0.5])
    assert (found.empty, found.queries) == (6.0, 7)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 1000])
def test_batch_size_changes_no_value(batch_size: int) -> None:
    game, hierarchy = random_game(7, np.random.default_rng(0)), balanced_hierarchy(7)
    found = shap_values(game, hierarchy, batch_size=batch_size)
    np.testing.assert_allclose(found.values, closed_form_owen(hierarchy, game), atol=1e-9)


def test_coalitions_are_asked_for_in_batches_and_once_each() -> None:
    sizes: list[int] = []
    asked: list[bytes] = []
    game = random_game(6, np.random.default_rng(0))

    def evaluate(masks: np.ndarray) -> np.ndarray:
        sizes.append(len(masks))
        asked.extend(row.tobytes() for row in masks)
        assert masks.dtype == np.bool_
        return worths(game, masks)

    partition_values(evaluate, balanced_hierarchy(6), max_evals=2048, batch_size=4)
    assert max(sizes) <= 4
    assert len(asked) == len(set(asked)) == 28


def test_responses_are_played_one_at_a_time_and_only_those_with_two_units() -> None:
    rng = np.random.default_rng(0)
    tables = [random_game(n, rng) for n in (3, 1, 5, 1)]
    games = TableGames(tables, [balanced_hierarchy(n) for n in (3, 1, 5, 1)], counts=[3, 1, 5, 0])
    found = ShapEstimator(max_evals=20, batch_size=10).estimate(games, rng)
    assert [one is None for one in found] == [False, True, False, True]
    assert games.asked[1] == games.asked[3] == []
    for number, count in ((0, 3), (2, 5)):
        expected = closed_form_owen(balanced_hierarchy(count), tables[number])
        np.testing.assert_allclose(found[number].values, expected, atol=1e-9)  # type: ignore[union-attr]


# The tree that shap is given.


def test_linkage_by_hand() -> None:
    # Leaves 0..3, 4 = (2, 3) at depth 2, 5 = (1, 4) at depth 1, 6 = (0, 5) the root. Height: 3 - depth.
    linkage = HierarchyMasker(hierarchy_of([0, [1, [2, 3]]])).clustering
    assert linkage.tolist() == [[2, 3, 1, 2], [1, 4, 2, 3], [0, 5, 3, 4]]


@given(count=st.integers(2, 30), seed=st.integers(0, 10_000))
def test_every_parent_is_higher_than_its_children_and_above_zero(count: int, seed: int) -> None:
    linkage = HierarchyMasker(random_hierarchy(count, np.random.default_rng(seed))).clustering
    heights = np.concatenate([np.zeros(count), linkage[:, 2]])
    for left, right, height, _ in linkage:
        assert height > max(heights[int(left)], heights[int(right)]) >= 0
    assert linkage[-1, 3] == count


# The budget.


def test_a_tree_that_max_evals_would_cut_off_is_an_error() -> None:
    game = random_game(6, np.random.default_rng(0))
    games = TableGames([game], [balanced_hierarchy(6)])
    with pytest.raises(
        ValueError, match=r"28 evaluations for the hierarchy of 6 units; estimator.max_evals=27"
    ) as caught:
        ShapEstimator(max_evals=27, batch_size=10).estimate(games, np.random.default_rng(0))
    assert "estimator=owen" in str(caught.value)
    assert games.asked == [[]]  # and nothing was evaluated for it


# Random streams, and a machine without shap.


@pytest.mark.parametrize("fails", [False, True])
def test_numpys_global_stream_goes_on_as_if_nothing_had_happened(fails: bool) -> None:
    def evaluate(masks: np.ndarray) -> np.ndarray:
        np.random.random(5)
        if fails:
            raise RuntimeError("out of memory")
        return masks.sum(1).astype(float)

    np.random.seed(3)
    expected = np.random.random(4)
    np.random.seed(3)
    try:
        partition_values(evaluate, balanced_hierarchy(5), max_evals=100, batch_size=10)
    except RuntimeError:
        assert fails
    np.testing.assert_array_equal(np.random.random(4), expected)


def test_without_the_shap_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ImportError, match=r"estimator=shap needs the shap package: pip install 'scar\[shap\]'"):
        shap_values(lambda units: float(len(units)), balanced_hierarchy(3))
