"""Estimators: which plan a response gets within its budget, and the unit values that come of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scar.credit.estimators import ExactEstimator, OwenEstimator, PermutationEstimator, SequentialEstimator
from scar.credit.plans import exact_plan, owen_plan
from scar.credit.shap_oracle import ShapEstimator
from scar.segmentation.hierarchies import balanced_hierarchy, coalition_count, hierarchy_of
from tests.builders import (
    TableGames,
    brute_force_shapley,
    chain,
    closed_form_owen,
    random_game,
    random_hierarchy,
    solve,
)

ESTIMATORS: dict[str, Any] = {
    "exact": ExactEstimator(max_units=12),
    "owen": OwenEstimator(max_coalitions=1024),
    "owen in 20 coalitions": OwenEstimator(max_coalitions=20),
    "permutation": PermutationEstimator(permutations=2),
    "sequential": SequentialEstimator(),
    "shap": ShapEstimator(max_evals=1024, batch_size=10),
}
NO_TREE = balanced_hierarchy(1)


def rng_of(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def estimate(estimator: Any, games: TableGames, *, seed: int = 0) -> list[Any]:
    return list(estimator.estimate(games, rng_of(seed)))


# What every estimator promises.


@given(counts=st.lists(st.integers(2, 8), min_size=1, max_size=3), seed=st.integers(0, 10_000))
@pytest.mark.parametrize("name", ESTIMATORS)
def test_values_sum_to_what_the_units_add_to_the_empty_coalition(name: str, counts: list[int], seed: int) -> None:
    rng = rng_of(seed)
    tables = [random_game(count, rng) for count in counts]
    found = estimate(ESTIMATORS[name], TableGames(tables, [random_hierarchy(count, rng) for count in counts]))
    for count, game, one in zip(counts, tables, found, strict=True):
        assert one.values.shape == one.empty_share.shape == (count,)
        assert one.empty == game(frozenset())
        assert one.values.sum() == pytest.approx(game(frozenset(range(count))) - one.empty)
        assert one.empty_share.sum() == pytest.approx(1)
        assert (one.empty_share >= 0).all()


@given(count=st.integers(2, 8), seed=st.integers(0, 10_000))
@pytest.mark.parametrize("name", ESTIMATORS)
def test_share_of_v_empty_is_what_the_values_would_be_if_it_were_zero(name: str, count: int, seed: int) -> None:
    rng = rng_of(seed)
    game, tree = random_game(count, rng), random_hierarchy(count, rng)
    measured = estimate(ESTIMATORS[name], TableGames([game], [tree]))[0]
    zeroed = estimate(ESTIMATORS[name], TableGames([lambda units: game(units) if units else 0.0], [tree]))[0]
    np.testing.assert_allclose(measured.values + measured.empty * measured.empty_share, zeroed.values, atol=1e-9)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_responses_of_one_or_no_unit_are_not_played(name: str) -> None:
    tables = [random_game(3, rng_of(seed)) for seed in range(5)]
    games = TableGames(
        tables, [NO_TREE, balanced_hierarchy(3), NO_TREE, balanced_hierarchy(2), NO_TREE], [0, 3, 1, 2, 1]
    )
    found = estimate(ESTIMATORS[name], games)
    assert [one is None for one in found] == [True, False, True, False, True]
    assert [len(asked) > 0 for asked in games.asked] == [False, True, False, True, False]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_queries_are_the_coalitions_asked_for_but_the_grand_one(name: str) -> None:
    rng = rng_of(1)
    counts = [2, 3, 5, 8]
    games = TableGames([random_game(n, rng) for n in counts], [balanced_hierarchy(n) for n in counts])
    for one, asked in zip(estimate(ESTIMATORS[name], games), games.asked, strict=True):
        distinct = {row.tobytes() for row in asked}
        assert one.queries == len(distinct) - 1 == len(asked) - 1


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "shap"])
def test_a_batch_is_one_evaluation(name: str) -> None:
    rng = rng_of()
    games = TableGames([random_game(n, rng) for n in (5, 2, 6)], [balanced_hierarchy(n) for n in (5, 2, 6)])
    estimate(ESTIMATORS[name], games)
    assert games.calls == 1


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "permutation"])
def test_neighbours_in_the_batch_change_nothing(name: str) -> None:
    rng = rng_of(2)
    counts = [6, 3, 5]
    tables, trees = [random_game(n, rng) for n in counts], [random_hierarchy(n, rng) for n in counts]
    together = estimate(ESTIMATORS[name], TableGames(tables, trees))
    for table, tree, one in zip(tables, trees, together, strict=True):
        alone = estimate(ESTIMATORS[name], TableGames([table], [tree]))[0]
        np.testing.assert_array_equal(one.values, alone.values)
        assert (one.empty, one.queries, one.hierarchy) == (alone.empty, alone.queries, alone.hierarchy)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "permutation"])
def test_only_sampling_draws_from_the_generator(name: str) -> None:
    generator = rng_of()
    before = generator.bit_generator.state
    game = TableGames([random_game(7, rng_of())], [balanced_hierarchy(7)])
    ESTIMATORS[name].estimate(game, generator)
    assert generator.bit_generator.state == before


# Exact.


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_exact_values_are_the_mean_over_all_orders_whatever_the_tree(count: int) -> None:
    game = random_game(count, rng_of(count))
    for tree in (balanced_hierarchy(count), chain(count)):
        one = estimate(ESTIMATORS["exact"], TableGames([game], [tree]))[0]
        np.testing.assert_allclose(one.values, brute_force_shapley(count, game), atol=1e-12)
        np.testing.assert_allclose(one.empty_share, np.full(count, 1 / count))
        assert (one.queries, one.hierarchy) == (2**count - 1, "exact")


def test_exact_estimator_names_its_budget() -> None:
    estimator = ExactEstimator(max_units=5)
    plan, hierarchy = estimator.plan(5, balanced_hierarchy(5), rng_of())
    assert (len(plan.coalitions), hierarchy) == (32, "exact")
    with pytest.raises(ValueError, match=r"6 units need 64 coalitions; estimator.max_units=5") as caught:
        estimator.plan(6, balanced_hierarchy(6), rng_of())
    assert "estimator=permutation" in str(caught.value)


# Owen: within the budget.


def test_owen_estimator_uses_the_hierarchy_that_it_can_afford() -> None:
    tree = hierarchy_of([[0, [1, [2, 3]]], [4, 5]])  # leaf depths 2 3 4 4 2 2: (4 + 2 * 52) / 3 = 36 coalitions
    plan, hierarchy = OwenEstimator(max_coalitions=36).plan(6, tree, rng_of())
    assert hierarchy == "given"
    assert np.array_equal(plan.coalitions, owen_plan(tree).coalitions)
    game = random_game(6, rng_of())
    np.testing.assert_allclose(solve(plan, game), closed_form_owen(tree, game), atol=1e-12)


@pytest.mark.parametrize(
    ("tree", "budget"), [(balanced_hierarchy(3), 8), (balanced_hierarchy(4), 16), (chain(4), 16), (chain(6), 64)]
)
def test_owen_estimator_is_exact_for_few_units_and_where_that_costs_no_more(tree: np.ndarray, budget: int) -> None:
    count = len(tree) + 1
    plan, hierarchy = OwenEstimator(max_coalitions=budget).plan(count, tree, rng_of())
    assert hierarchy == "exact"
    assert np.array_equal(plan.weights, exact_plan(count).weights)


def test_owen_estimator_is_not_exact_where_the_tree_is_cheaper_or_only_the_tree_fits() -> None:
    # Five balanced units cost 20 coalitions, exact values 32. Four cost 12 and 16: exact, unless 12 is all there is.
    for count, budget, cost in ((5, 64, 20), (4, 12, 12)):
        plan, hierarchy = OwenEstimator(max_coalitions=budget).plan(count, balanced_hierarchy(count), rng_of())
        assert (len(plan.coalitions), hierarchy) == (cost, "given")
        assert np.array_equal(plan.weights, owen_plan(balanced_hierarchy(count)).weights)


# Owen: over the budget.


@pytest.mark.parametrize(
    ("budget", "became", "queries"),
    [
        (65_535, "rebalanced", 171),
        (172, "rebalanced", 171),
        (171, "coarsened", 127),  # a chain of seven players
        (2048, "rebalanced", 171),  # conf/estimator/owen.yaml
    ],
)
def test_a_chain_of_sixteen_units_is_never_evaluated_silently(budget: int, became: str, queries: int) -> None:
    games = TableGames([lambda units: float(len(units) ** 2)], [chain(16)])
    one = estimate(OwenEstimator(max_coalitions=budget), games)[0]
    assert (one.hierarchy, one.queries) == (became, queries)
    assert one.values.sum() == pytest.approx(256)


def test_owen_estimator_coarsens_where_even_the_balanced_tree_is_over_budget() -> None:
    # A mid-split tree of 6 costs 28. A chain of 6 in 27 coalitions: four players, of which the first is units 0, 1, 2.
    estimator, game = OwenEstimator(max_coalitions=27), random_game(6, rng_of())
    one = estimate(estimator, TableGames([game], [chain(6)]))[0]

    def grouped(players: frozenset[int]) -> float:
        groups = [{0, 1, 2}, {3}, {4}, {5}]
        return game(frozenset().union(*(groups[player] for player in players)))

    expected = closed_form_owen(chain(4), grouped)
    np.testing.assert_allclose(one.values, [0, 0, *expected], atol=1e-12)
    np.testing.assert_allclose(one.empty_share, [0, 0, 1 / 8, 1 / 8, 1 / 4, 1 / 2])
    assert (one.hierarchy, one.queries) == ("coarsened", 15)


def test_owen_estimator_coarsens_the_given_tree_and_not_the_balanced_one() -> None:
    plan, hierarchy = OwenEstimator(max_coalitions=4).plan(6, hierarchy_of([0, [1, 2, 3, 4, 5]]), rng_of())
    assert hierarchy == "coarsened"
    asked = {tuple(np.flatnonzero(row).tolist()) for row in plan.coalitions}
    assert asked == {(), (0,), (1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5)}


@given(count=st.integers(2, 10), budget=st.integers(4, 600), seed=st.integers(0, 10_000))
def test_owen_estimator_stays_within_any_budget_and_says_what_it_did(count: int, budget: int, seed: int) -> None:
    tree = random_hierarchy(count, rng_of(seed))
    plan, became = OwenEstimator(max_coalitions=budget).plan(count, tree, rng_of())
    cost, balanced = coalition_count(tree), coalition_count(balanced_hierarchy(count))
    assert len(plan.coalitions) <= budget
    if 2**count <= budget and (count <= 4 or 2**count <= cost):
        expected = "exact"
    else:
        expected = "given" if cost <= budget else "rebalanced" if balanced <= budget else "coarsened"
    assert became == expected
    wanted = np.zeros(len(plan.coalitions))
    wanted[:2] = -1, 1
    np.testing.assert_allclose(plan.weights.sum(0), wanted, atol=1e-12)


@given(count=st.integers(5, 9), seed=st.integers(0, 10_000))
def test_owen_values_are_the_closed_form_of_the_tree_that_was_used(count: int, seed: int) -> None:
    rng = rng_of(seed)
    game, tree = random_game(count, rng), random_hierarchy(count, rng)
    one = estimate(OwenEstimator(max_coalitions=min(coalition_count(tree), 120)), TableGames([game], [tree]))[0]
    if one.hierarchy == "rebalanced":
        tree = balanced_hierarchy(count)
    exact = 2**count <= 120 and 2**count <= coalition_count(tree)
    expected = brute_force_shapley(count, game) if exact else closed_form_owen(tree, game)
    np.testing.assert_allclose(one.values, expected, atol=1e-10)


@pytest.mark.parametrize("budget", [-1, 0, 3, 2048.0, None, True])
def test_owen_estimator_wants_room_for_two_players(budget: Any) -> None:
    with pytest.raises(ValueError, match=rf"estimator.max_coalitions={budget}; allowed: 4 \(two players\) or more"):
        OwenEstimator(max_coalitions=budget)


def test_a_hierarchy_that_is_no_tree_is_an_error() -> None:
    games = TableGames([random_game(5, rng_of())], [np.array([[0, 1], [2, 3], [0, 1], [6, 7]])])
    for name in ("owen", "shap"):
        with pytest.raises(ValueError, match="exactly once"):
            estimate(ESTIMATORS[name], games)


# Permutation sampling.


def test_the_same_generator_gives_the_same_plan() -> None:
    estimator, tree = PermutationEstimator(permutations=4), balanced_hierarchy(6)
    plans = [estimator.plan(6, tree, rng_of(seed))[0] for seed in (3, 3, 4)]
    assert np.array_equal(plans[0].coalitions, plans[1].coalitions)
    assert np.array_equal(plans[0].weights, plans[1].weights)
    assert not np.array_equal(plans[0].coalitions, plans[2].coalitions)


def test_every_response_gets_orders_of_its_own() -> None:
    games = TableGames([random_game(8, rng_of())] * 2, [balanced_hierarchy(8)] * 2)
    first, second = estimate(PermutationEstimator(permutations=2), games, seed=3)
    assert not np.allclose(first.values, second.values, atol=1e-3)
    assert {row.tobytes() for row in games.asked[0]} != {row.tobytes() for row in games.asked[1]}
