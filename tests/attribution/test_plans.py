"""Coalition plans against axioms, brute force, the closed form, the cost table and the shap package."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scar.attribution.plans import (
    ExactEstimator,
    OwenEstimator,
    PermutationEstimator,
    coalition_count,
    exact_plan,
    owen_plan,
    permutation_plan,
)
from scar.segmentation.units import balanced_hierarchy, hierarchy_of
from scar.types import CoalitionPlan
from tests.builders import property_test, random_hierarchy

Game = Callable[[frozenset[int]], float]


def solve(plan: CoalitionPlan, game: Game) -> np.ndarray:
    v = np.array([game(frozenset(np.flatnonzero(row).tolist())) for row in plan.coalitions])
    return plan.weights @ v


def subsets(players: list[int]) -> Iterator[frozenset[int]]:
    for size in range(len(players) + 1):
        yield from map(frozenset, itertools.combinations(players, size))


def random_game(count: int, rng: np.random.Generator) -> Game:
    """An independent normal value for every coalition, the empty one included."""
    table = {coalition: float(rng.normal()) for coalition in subsets(list(range(count)))}
    return table.__getitem__


def two_additive_game(count: int, rng: np.random.Generator) -> Game:
    """Constant + singles + pairs, no interaction of order three."""
    base, single, pair = float(rng.normal()), rng.normal(size=count), rng.normal(size=(count, count))

    def value(coalition: frozenset[int]) -> float:
        pairs = itertools.combinations(sorted(coalition), 2)
        return base + sum(float(single[i]) for i in coalition) + sum(float(pair[i, j]) for i, j in pairs)

    return value


def brute_force_shapley(count: int, game: Game) -> np.ndarray:
    """Mean marginal contribution over all orders of arrival: the definition."""
    total = np.zeros(count)
    for order in itertools.permutations(range(count)):
        present: frozenset[int] = frozenset()
        for unit in order:
            total[unit] += game(present | {unit}) - game(present)
            present |= {unit}
    return total / math.factorial(count)


def closed_form_owen(hierarchy: np.ndarray, game: Game) -> np.ndarray:
    """phi_i = 2^-d_i * sum over the choices C of i's path-sibling blocks of v(C + i) - v(C)   (paper note 6)."""
    count = len(hierarchy) + 1
    parent = {int(child): count + k for k, row in enumerate(hierarchy) for child in row}
    leaves = {leaf: frozenset([leaf]) for leaf in range(count)}
    for k, (left, right) in enumerate(hierarchy.tolist()):
        leaves[count + k] = leaves[left] | leaves[right]
    values = np.zeros(count)
    for leaf in range(count):
        blocks, node = [], leaf
        while node in parent:
            left, right = hierarchy[parent[node] - count].tolist()
            blocks.append(leaves[right if node == left else left])
            node = parent[node]
        for choice in itertools.product([False, True], repeat=len(blocks)):
            context = frozenset().union(*itertools.compress(blocks, choice))
            values[leaf] += (game(context | {leaf}) - game(context)) / 2 ** len(blocks)
    return values


def chain(count: int) -> np.ndarray:
    """The most lopsided tree: (((0, 1), 2), 3) ..."""
    return np.array([[0 if k == 0 else count + k - 1, k + 1] for k in range(count - 1)], dtype=np.int64)


def plans_of(count: int, rng: np.random.Generator) -> dict[str, CoalitionPlan]:
    return {
        "exact": exact_plan(count),
        "owen": owen_plan(random_hierarchy(count, rng)),
        "permutation": permutation_plan(count, 6, rng),
    }


# The axioms, for every estimator.


@property_test
@given(count=st.integers(2, 7), seed=st.integers(0, 10_000))
def test_columns_make_every_plan_efficient(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name, plan in plans_of(count, rng).items():
        assert not plan.coalitions[0].any(), name
        assert plan.coalitions[1].all(), name
        wanted = np.zeros(len(plan.coalitions))
        wanted[:2] = -1, 1
        np.testing.assert_allclose(plan.weights.sum(0), wanted, atol=1e-12, err_msg=name)
        game = random_game(count, rng)
        everyone = frozenset(range(count))
        assert solve(plan, game).sum() == pytest.approx(game(everyone) - game(frozenset())), name


@property_test
@given(count=st.integers(2, 6), seed=st.integers(0, 10_000))
def test_a_null_player_gets_nothing(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    null = int(rng.integers(count))
    base = random_game(count, rng)
    for name, plan in plans_of(count, rng).items():
        assert solve(plan, lambda coalition: base(coalition - {null}))[null] == pytest.approx(0, abs=1e-12), name


@property_test
@given(count=st.integers(2, 6), seed=st.integers(0, 10_000), factor=st.floats(-3, 3))
def test_values_are_linear_in_the_game(count: int, seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = random_game(count, rng), random_game(count, rng)
    for name, plan in plans_of(count, rng).items():
        mixed = solve(plan, lambda coalition: first(coalition) + factor * second(coalition))
        np.testing.assert_allclose(mixed, solve(plan, first) + factor * solve(plan, second), atol=1e-10, err_msg=name)


@property_test
@given(count=st.integers(2, 6), seed=st.integers(0, 10_000))
def test_an_additive_game_gives_each_player_its_own_worth(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=count)
    for name, plan in plans_of(count, rng).items():
        found = solve(plan, lambda coalition: 7 + sum(float(worth[i]) for i in coalition))
        np.testing.assert_allclose(found, worth, atol=1e-12, err_msg=name)


@property_test
@given(count=st.integers(2, 6), seed=st.integers(0, 10_000))
def test_exact_values_of_twins_are_equal(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (int(i) for i in rng.choice(count, 2, replace=False))
    base = random_game(count, rng)
    swap = {first: second, second: first}

    def twins(coalition: frozenset[int]) -> float:
        return base(coalition) + base(frozenset(swap.get(i, i) for i in coalition))

    values = solve(exact_plan(count), twins)
    assert values[first] == pytest.approx(values[second])


@property_test
@given(power=st.integers(1, 3), seed=st.integers(0, 10_000))
def test_owen_values_of_mirrored_twins_are_equal(power: int, seed: int) -> None:
    count = 2**power
    base = random_game(count, np.random.default_rng(seed))

    def mirrored(coalition: frozenset[int]) -> float:
        return base(coalition) + base(frozenset(count - 1 - i for i in coalition))

    values = solve(owen_plan(balanced_hierarchy(count)), mirrored)
    np.testing.assert_allclose(values, values[::-1], atol=1e-12)


def test_owen_values_of_siblings_that_are_twins_are_equal() -> None:
    base = random_game(4, np.random.default_rng(0))
    swap = {2: 3, 3: 2}
    values = solve(
        owen_plan(hierarchy_of([0, [1, [2, 3]]])),
        lambda coalition: base(coalition) + base(frozenset(swap.get(i, i) for i in coalition)),
    )
    assert values[2] == pytest.approx(values[3])


# Exact Shapley values.


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_exact_is_the_mean_over_all_orders(count: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(3):
        game = random_game(count, rng)
        np.testing.assert_allclose(solve(exact_plan(count), game), brute_force_shapley(count, game), atol=1e-12)


def test_exact_by_hand() -> None:
    # v = 0; 0 alone 1, 1 alone 2, 2 alone 0; {0,1} 6, {0,2} 1, {1,2} 2; all 9.
    # Player 2: orders 012, 102: 9 - 6 = 3 twice; 201, 210: 0 twice; 021: 1 - 1 = 0; 120: 2 - 2 = 0. 6/6 = 1.
    # Player 0: 012, 021: 1 twice; 102: 6 - 2 = 4; 120, 210: 9 - 2 = 7 twice; 201: 1 - 0 = 1. 21/6 = 3.5.
    # Player 1: 9 - 1 - 3.5 = 4.5.
    table = {(): 0, (0,): 1, (1,): 2, (2,): 0, (0, 1): 6, (0, 2): 1, (1, 2): 2, (0, 1, 2): 9}
    found = solve(exact_plan(3), lambda coalition: float(table[tuple(sorted(coalition))]))
    np.testing.assert_allclose(found, [3.5, 4.5, 1.0], atol=1e-12)
    # Equal weights for all coalitions (Banzhaf) give player 2: (0 + 0 + 0 + 3) / 4 = .75.
    assert pytest.approx(1.0) != (0 + 0 + 0 + 3) / 4


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_exact_asks_for_every_coalition_once(count: int) -> None:
    coalitions = exact_plan(count).coalitions
    assert coalitions.shape == (2**count, count)
    assert len(np.unique(coalitions, axis=0)) == 2**count


# Owen values.


def test_owen_by_hand() -> None:
    # v = 1 only for all three players, tree ((0, 1), 2). Player 2 completes 1 of 2 contexts: 1/2. Players 0 and 1
    # complete 1 of their 4 contexts: 1/4. Shapley would be 1/3 each.
    def game(coalition: frozenset[int]) -> float:
        return float(len(coalition) == 3)

    np.testing.assert_allclose(solve(owen_plan(hierarchy_of([[0, 1], 2])), game), [0.25, 0.25, 0.5], atol=1e-12)
    np.testing.assert_allclose(solve(exact_plan(3), game), [1 / 3] * 3, atol=1e-12)


@property_test
@given(count=st.integers(2, 8), seed=st.integers(0, 10_000))
def test_owen_is_shapley_without_interactions_of_order_three(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = two_additive_game(count, rng)
    exact = solve(exact_plan(count), game)
    np.testing.assert_allclose(solve(owen_plan(random_hierarchy(count, rng)), game), exact, atol=1e-10)


@property_test
@given(count=st.integers(2, 8), seed=st.integers(0, 10_000))
def test_owen_is_its_closed_form(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hierarchy, game = random_hierarchy(count, rng), random_game(count, rng)
    np.testing.assert_allclose(solve(owen_plan(hierarchy), game), closed_form_owen(hierarchy, game), atol=1e-10)


def test_random_games_tell_owen_from_shapley_and_tree_from_tree() -> None:
    game = random_game(5, np.random.default_rng(0))
    owen = solve(owen_plan(balanced_hierarchy(5)), game)
    assert not np.allclose(owen, solve(exact_plan(5), game), atol=1e-3)
    assert not np.allclose(owen, solve(owen_plan(chain(5)), game), atol=1e-3)


def test_owen_of_two_units_is_shapley() -> None:
    game = random_game(2, np.random.default_rng(0))
    np.testing.assert_allclose(solve(owen_plan(balanced_hierarchy(2)), game), brute_force_shapley(2, game), atol=1e-12)


def test_a_hierarchy_without_a_root_is_an_error() -> None:
    with pytest.raises(ValueError, match="root"):
        owen_plan(np.array([[0, 1], [2, 3], [0, 1]]))


class _AllMasks:
    """A shap masker over the players themselves: a row is the coalition. It carries the tree."""

    def __init__(self, clustering: np.ndarray) -> None:
        self.clustering = clustering
        self.shape = (1, len(clustering) + 1)

    def __call__(self, mask: np.ndarray, x: np.ndarray) -> tuple[np.ndarray]:
        return (mask[None, :].astype(float),)


def test_owen_is_the_partition_explainer_of_shap() -> None:
    shap = pytest.importorskip("shap")
    state = np.random.get_state()  # shap breaks ties with NumPy's global stream
    try:
        rng = np.random.default_rng(0)
        for count in (2, 3, 5, 8):
            hierarchy, game = random_hierarchy(count, rng), random_game(count, rng)
            sizes = [1] * count
            for left, right in hierarchy.tolist():
                sizes.append(sizes[left] + sizes[right])
            clustering = np.column_stack([hierarchy, np.arange(1.0, count), sizes[count:]]).astype(float)
            asked: list[bytes] = []

            def model(rows: np.ndarray, game: Game = game, asked: list[bytes] = asked) -> np.ndarray:
                asked.extend(row.tobytes() for row in rows)
                return np.array([game(frozenset(np.flatnonzero(row).tolist())) for row in rows])

            explainer: Any = shap.explainers.Partition(model, _AllMasks(clustering))
            explained = explainer(np.ones((1, count)), max_evals=10**6, silent=True)
            plan = owen_plan(hierarchy)
            np.testing.assert_allclose(solve(plan, game), explained.values[0], atol=1e-8)
            assert float(explained.base_values[0]) == pytest.approx(game(frozenset()))
            assert len(set(asked)) == len(plan.coalitions)
    finally:
        np.random.set_state(state)


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
    if count <= 32:
        assert len(owen_plan(hierarchy).coalitions) == cost


@pytest.mark.parametrize("power", [1, 2, 3, 4, 5, 6])
def test_cost_of_a_full_tree_has_a_formula(power: int) -> None:
    count = 2**power
    assert coalition_count(balanced_hierarchy(count)) == (2 * count**2 + 4) // 3


@pytest.mark.parametrize("count", range(2, 11))
def test_a_chain_costs_every_coalition(count: int) -> None:
    assert coalition_count(chain(count)) == 2**count
    assert len(owen_plan(chain(count)).coalitions) == 2**count


@property_test
@given(count=st.integers(2, 9), seed=st.integers(0, 10_000))
def test_the_cost_formula_is_the_length_of_the_plan(count: int, seed: int) -> None:
    hierarchy = random_hierarchy(count, np.random.default_rng(seed))
    coalitions = owen_plan(hierarchy).coalitions
    assert len(coalitions) == coalition_count(hierarchy)
    assert len(np.unique(coalitions, axis=0)) == len(coalitions)


# Permutation sampling.


class _GivenOrders:
    """Stands in for a generator; hands out the given orders one after another."""

    def __init__(self, orders: list[tuple[int, ...]]) -> None:
        self._orders = iter(orders)

    def permutation(self, count: int) -> np.ndarray:
        return np.array(next(self._orders))


def test_all_orders_together_give_the_exact_values() -> None:
    game = random_game(4, np.random.default_rng(0))
    orders = list(itertools.permutations(range(4)))
    plan = permutation_plan(4, 2 * len(orders), _GivenOrders(orders))  # type: ignore[arg-type]
    np.testing.assert_allclose(solve(plan, game), brute_force_shapley(4, game), atol=1e-12)


def test_one_antithetic_pair_by_hand() -> None:
    # Order 2, 0, 1 and its reverse 1, 0, 2. Coalitions: none, all, {2}, {0,2}, {1}, {0,1}.
    plan = permutation_plan(3, 2, _GivenOrders([(2, 0, 1)]))  # type: ignore[arg-type]
    found = {frozenset(np.flatnonzero(row).tolist()) for row in plan.coalitions}
    assert found == {frozenset(s) for s in [(), (0, 1, 2), (2,), (0, 2), (1,), (0, 1)]}
    v = {(): 1.0, (0, 1, 2): 20.0, (2,): 3.0, (0, 2): 7.0, (1,): -2.0, (0, 1): 4.0}
    # Player 0: (7 - 3 + 4 + 2) / 2 = 5. Player 1: (20 - 7 - 2 - 1) / 2 = 5. Player 2: (3 - 1 + 20 - 4) / 2 = 9.
    np.testing.assert_allclose(solve(plan, lambda coalition: v[tuple(sorted(coalition))]), [5.0, 5.0, 9.0], atol=1e-12)


@property_test
@given(count=st.integers(3, 7), seed=st.integers(0, 10_000))
def test_antithetic_pairs_are_exact_without_interactions_of_order_three(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = two_additive_game(count, rng)
    plan = permutation_plan(count, 2, rng)
    # In an order and its reverse each pair is completed once by either member: half its interaction each.
    np.testing.assert_allclose(solve(plan, game), solve(exact_plan(count), game), atol=1e-10)
    rows = {row.tobytes() for row in plan.coalitions}
    assert {(~row).tobytes() for row in plan.coalitions} == rows


def test_orders_without_their_reverses_would_not_be_exact() -> None:
    game = two_additive_game(4, np.random.default_rng(1))
    present: frozenset[int] = frozenset()
    single = np.zeros(4)
    for unit in (2, 0, 3, 1):
        single[unit], present = game(present | {unit}) - game(present), present | {unit}
    assert not np.allclose(single, solve(exact_plan(4), game), atol=1e-2)


def test_permutation_estimates_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    game = random_game(5, rng)
    draws = np.array([solve(permutation_plan(5, 2, rng), game) for _ in range(2000)])
    # Five standard errors of the mean: passes by chance alone with probability above .999997 for each player.
    error = draws.std(0, ddof=1) / math.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - brute_force_shapley(5, game)) < 5 * error).all()
    assert (error < 0.03).all()  # and the test has teeth: the values are of order one


@pytest.mark.parametrize("permutations", [2, 4, 8])
def test_permutation_plan_size(permutations: int) -> None:
    plan = permutation_plan(12, permutations, np.random.default_rng(0))
    # Each order adds 11 coalitions besides none and all; a few may coincide.
    assert 2 + 11 * permutations - 6 <= len(plan.coalitions) <= 2 + 11 * permutations
    assert len(np.unique(plan.coalitions, axis=0)) == len(plan.coalitions)


def test_the_same_generator_gives_the_same_plan() -> None:
    estimator, tree = PermutationEstimator(permutations=4), balanced_hierarchy(6)
    plans = [estimator.plan(6, tree, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert np.array_equal(plans[0].coalitions, plans[1].coalitions)
    assert np.array_equal(plans[0].weights, plans[1].weights)
    assert not np.array_equal(plans[0].coalitions, plans[2].coalitions)


def test_plans_are_redrawn_from_one_generator() -> None:
    estimator, rng = PermutationEstimator(permutations=2), np.random.default_rng(3)
    first, second = (estimator.plan(8, balanced_hierarchy(8), rng) for _ in range(2))
    assert not np.array_equal(first.coalitions, second.coalitions)


# The estimators and their budgets.


def test_exact_estimator_names_its_budget() -> None:
    estimator, rng = ExactEstimator(max_units=5), np.random.default_rng(0)
    assert len(estimator.plan(5, balanced_hierarchy(5), rng).coalitions) == 32
    with pytest.raises(ValueError, match=r"6 units need 64 coalitions; estimator.max_units=5") as caught:
        estimator.plan(6, balanced_hierarchy(6), rng)
    assert "estimator=permutation" in str(caught.value)


def test_owen_estimator_uses_the_hierarchy_that_it_can_afford() -> None:
    rng = np.random.default_rng(0)
    hierarchy = hierarchy_of([[0, [1, [2, 3]]], [4, 5]])  # leaf depths 2 3 4 4 2 2: (4 + 2 * 52) / 3 = 36 coalitions
    plan = OwenEstimator(max_coalitions=36).plan(6, hierarchy, rng)
    assert not plan.fallback
    assert np.array_equal(plan.coalitions, owen_plan(hierarchy).coalitions)


@pytest.mark.parametrize(("hierarchy", "budget"), [(balanced_hierarchy(3), 8), (chain(4), 12), (chain(6), 64)])
def test_owen_estimator_is_exact_for_few_units_and_where_that_costs_no_more(hierarchy: np.ndarray, budget: int) -> None:
    count = len(hierarchy) + 1
    plan = OwenEstimator(max_coalitions=budget).plan(count, hierarchy, np.random.default_rng(0))
    assert not plan.fallback
    assert np.array_equal(plan.weights, exact_plan(count).weights)
    # With five units a balanced tree costs 20 coalitions, exact values 32: the tree is used.
    assert (
        len(OwenEstimator(max_coalitions=64).plan(5, balanced_hierarchy(5), np.random.default_rng(0)).coalitions) == 20
    )


def test_owen_estimator_rebalances_a_chain_over_budget_and_says_so() -> None:
    rng = np.random.default_rng(0)
    estimator = OwenEstimator(max_coalitions=63)
    plan = estimator.plan(6, chain(6), rng)
    balanced = owen_plan(balanced_hierarchy(6))
    assert plan.fallback
    assert np.array_equal(plan.coalitions, balanced.coalitions)
    assert np.array_equal(plan.weights, balanced.weights)
    # The flag belongs to the request, not to the cached plan.
    assert not estimator.plan(6, balanced_hierarchy(6), rng).fallback
    assert estimator.plan(6, chain(6), rng).fallback


def test_owen_estimator_never_truncates() -> None:
    # Mid-split trees of 6 cost 28.
    with pytest.raises(ValueError, match=r"6 units need 28 coalitions .*estimator.max_coalitions=27") as caught:
        OwenEstimator(max_coalitions=27).plan(6, chain(6), np.random.default_rng(0))
    assert "estimator=permutation" in str(caught.value)
    assert len(OwenEstimator(max_coalitions=28).plan(6, chain(6), np.random.default_rng(0)).coalitions) == 28


@pytest.mark.parametrize("permutations", [-2, 0, 1, 3])
def test_permutation_estimator_wants_pairs(permutations: int) -> None:
    with pytest.raises(ValueError, match=rf"estimator.permutations={permutations}; allowed: an even number"):
        PermutationEstimator(permutations=permutations)


def test_permutation_estimator_of_two_units_is_exact_and_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    plan = PermutationEstimator(permutations=2).plan(2, balanced_hierarchy(2), rng)
    assert rng.bit_generator.state == before
    game = random_game(2, np.random.default_rng(1))
    np.testing.assert_allclose(solve(plan, game), brute_force_shapley(2, game), atol=1e-12)


@pytest.mark.parametrize("estimator", [ExactEstimator(12), OwenEstimator(1024), PermutationEstimator(2)])
def test_estimators_leave_the_global_stream_alone(estimator: Any) -> None:
    before = repr(np.random.get_state())
    estimator.plan(7, balanced_hierarchy(7), np.random.default_rng(0))
    assert repr(np.random.get_state()) == before
