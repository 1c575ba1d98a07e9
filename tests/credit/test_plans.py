"""Coalition plans against axioms, brute force over orders of arrival, the closed form and hand-worked numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scar.credit.plans import coarse_plan, exact_plan, owen_plan, permutation_plan, sequential_plan
from scar.segmentation.hierarchies import balanced_hierarchy, hierarchy_of
from scar.types import CoalitionPlan
from tests.builders import (
    Worth,
    brute_force_shapley,
    closed_form_owen,
    random_game,
    random_hierarchy,
    solve,
)


def two_additive_game(count: int, rng: np.random.Generator) -> Worth:
    """Constant + singles + pairs, no interaction of order three."""
    base, single, pair = float(rng.normal()), rng.normal(size=count), rng.normal(size=(count, count))

    def value(coalition: frozenset[int]) -> float:
        pairs = itertools.combinations(sorted(coalition), 2)
        return base + sum(float(single[i]) for i in coalition) + sum(float(pair[i, j]) for i, j in pairs)

    return value


def random_groups(count: int, rng: np.random.Generator) -> np.ndarray:
    """The group of each unit, two groups or more, numbered by their first unit; a group need not be contiguous."""
    labels = rng.integers(0, int(rng.integers(2, count + 1)), count)
    if len(set(labels.tolist())) == 1:
        labels[0] = labels[0] + 1
    number = {label: place for place, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([number[label] for label in labels.tolist()])


def plans_of_single_units(count: int, rng: np.random.Generator) -> dict[str, CoalitionPlan]:
    return {
        "exact": exact_plan(count),
        "owen": owen_plan(random_hierarchy(count, rng)),
        "permutation": permutation_plan(count, 6, rng),
        "sequential": sequential_plan(count),
    }


def plans_of(count: int, rng: np.random.Generator) -> dict[str, CoalitionPlan]:
    group = random_groups(count, rng)
    groups = len(set(group.tolist()))
    return plans_of_single_units(count, rng) | {
        "coarse owen": coarse_plan(group, owen_plan(random_hierarchy(groups, rng))),
        "coarse exact": coarse_plan(group, exact_plan(groups)),
    }


# The axioms.


@given(count=st.integers(2, 9), seed=st.integers(0, 10_000))
def test_columns_make_every_plan_efficient(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = random_game(count, rng)
    everyone: frozenset[int] = frozenset(range(count))
    for name, plan in plans_of(count, rng).items():
        assert not plan.coalitions[0].any(), name
        assert plan.coalitions[1].all(), name
        wanted = np.zeros(len(plan.coalitions))
        wanted[:2] = -1, 1
        np.testing.assert_allclose(plan.weights.sum(0), wanted, atol=1e-12, err_msg=name)
        assert solve(plan, game).sum() == pytest.approx(game(everyone) - game(frozenset())), name


@given(count=st.integers(2, 9), seed=st.integers(0, 10_000))
def test_no_plan_asks_for_a_coalition_twice(count: int, seed: int) -> None:
    for name, plan in plans_of(count, np.random.default_rng(seed)).items():
        assert len(np.unique(plan.coalitions, axis=0)) == len(plan.coalitions), name


@given(count=st.integers(2, 7), seed=st.integers(0, 10_000))
def test_a_null_player_gets_nothing(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    null = int(rng.integers(count))
    base = random_game(count, rng)
    for name, plan in plans_of_single_units(count, rng).items():
        assert solve(plan, lambda coalition: base(coalition - {null}))[null] == pytest.approx(0, abs=1e-12), name


@given(count=st.integers(2, 7), seed=st.integers(0, 10_000), factor=st.floats(-3, 3))
def test_values_are_linear_in_the_game(count: int, seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = random_game(count, rng), random_game(count, rng)
    for name, plan in plans_of(count, rng).items():
        mixed = solve(plan, lambda coalition: first(coalition) + factor * second(coalition))
        np.testing.assert_allclose(mixed, solve(plan, first) + factor * solve(plan, second), atol=1e-10, err_msg=name)


@given(count=st.integers(2, 10), seed=st.integers(0, 10_000))
def test_an_additive_game_gives_each_player_its_own_worth(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=count)
    for name, plan in plans_of_single_units(count, rng).items():
        found = solve(plan, lambda coalition: 7 + sum(float(worth[i]) for i in coalition))
        np.testing.assert_allclose(found, worth, atol=1e-12, err_msg=name)


@given(count=st.integers(2, 7), seed=st.integers(0, 10_000))
def test_exact_values_of_twins_are_equal(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (int(i) for i in rng.choice(count, 2, replace=False))
    base = random_game(count, rng)
    swap = {first: second, second: first}

    def twins(coalition: frozenset[int]) -> float:
        return base(coalition) + base(frozenset(swap.get(i, i) for i in coalition))

    values = solve(exact_plan(count), twins)
    assert values[first] == pytest.approx(values[second])


@given(power=st.integers(1, 3), seed=st.integers(0, 10_000))
def test_owen_values_of_mirrored_twins_are_equal(power: int, seed: int) -> None:
    count = 2**power
    base = random_game(count, np.random.default_rng(seed))

    def mirrored(coalition: frozenset[int]) -> float:
        return base(coalition) + base(frozenset(count - 1 - i for i in coalition))

    values = solve(owen_plan(balanced_hierarchy(count)), mirrored)
    np.testing.assert_allclose(values, values[::-1], atol=1e-12)


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


def test_a_plan_needs_a_unit() -> None:
    with pytest.raises(ValueError, match="at least one unit, got 0"):
        exact_plan(0)


# Owen values.


def test_owen_by_hand() -> None:
    # v = 1 only for all three players, tree ((0, 1), 2). Player 2 completes 1 of 2 contexts: 1/2. Players 0 and 1
    # complete 1 of their 4 contexts: 1/4. Shapley would be 1/3 each.
    def game(coalition: frozenset[int]) -> float:
        return float(len(coalition) == 3)

    np.testing.assert_allclose(solve(owen_plan(hierarchy_of([[0, 1], 2])), game), [0.25, 0.25, 0.5], atol=1e-12)
    np.testing.assert_allclose(solve(exact_plan(3), game), [1 / 3] * 3, atol=1e-12)


def test_owen_plan_of_three_units_by_hand() -> None:
    # Tree ((0, 1), 2). Player 2 joins {} and {0,1}; player 0 joins {}, {1}, {2}, {1,2}; player 1 likewise.
    plan = owen_plan(hierarchy_of([[0, 1], 2]))
    weight = {
        tuple(np.flatnonzero(row).tolist()): plan.weights[:, place].tolist()
        for place, row in enumerate(plan.coalitions)
    }
    assert weight == {
        (): [-0.25, -0.25, -0.5],
        (0, 1, 2): [0.25, 0.25, 0.5],
        (0,): [0.25, -0.25, 0.0],
        (1,): [-0.25, 0.25, 0.0],
        (0, 1): [0.25, 0.25, -0.5],
        (2,): [-0.25, -0.25, 0.5],
        (0, 2): [0.25, -0.25, 0.0],
        (1, 2): [-0.25, 0.25, 0.0],
    }


@given(count=st.integers(2, 8), seed=st.integers(0, 10_000))
def test_owen_is_shapley_without_interactions_of_order_three(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = two_additive_game(count, rng)
    exact = solve(exact_plan(count), game)
    np.testing.assert_allclose(solve(owen_plan(random_hierarchy(count, rng)), game), exact, atol=1e-10)


@given(count=st.integers(2, 10), seed=st.integers(0, 10_000))
def test_owen_is_its_closed_form(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hierarchy, game = random_hierarchy(count, rng), random_game(count, rng)
    np.testing.assert_allclose(solve(owen_plan(hierarchy), game), closed_form_owen(hierarchy, game), atol=1e-10)


def test_owen_of_one_unit_is_all_of_it() -> None:
    plan = owen_plan(balanced_hierarchy(1))
    assert plan.coalitions.tolist() == [[False], [True]]
    assert plan.weights.tolist() == [[-1.0, 1.0]]


def test_owen_of_what_is_no_tree_is_an_error() -> None:
    with pytest.raises(ValueError, match="every node but the root exactly once"):
        owen_plan(np.array([[0, 1], [2, 3], [0, 1]]))


# Permutation sampling.


class _GivenOrders:
    """Stands in for a generator; hands out the given orders one after another."""

    def __init__(self, orders: list[tuple[int, ...]]) -> None:
        self._orders = iter(orders)

    def permutation(self, count: int) -> np.ndarray:
        return np.array(next(self._orders))


def test_one_antithetic_pair_by_hand() -> None:
    # Order 2, 0, 1 and its reverse 1, 0, 2. Coalitions: none, all, {2}, {0,2}, {1}, {0,1}.
    plan = permutation_plan(3, 2, _GivenOrders([(2, 0, 1)]))  # type: ignore[arg-type]
    found = {frozenset(np.flatnonzero(row).tolist()) for row in plan.coalitions}
    assert found == {frozenset(s) for s in [(), (0, 1, 2), (2,), (0, 2), (1,), (0, 1)]}
    v = {(): 1.0, (0, 1, 2): 20.0, (2,): 3.0, (0, 2): 7.0, (1,): -2.0, (0, 1): 4.0}
    # Player 0: (7 - 3 + 4 + 2) / 2 = 5. Player 1: (20 - 7 - 2 - 1) / 2 = 5. Player 2: (3 - 1 + 20 - 4) / 2 = 9.
    np.testing.assert_allclose(solve(plan, lambda coalition: v[tuple(sorted(coalition))]), [5.0, 5.0, 9.0], atol=1e-12)


def test_sequential_values_by_hand() -> None:
    plan = sequential_plan(3)
    assert len(plan.coalitions) == 4
    v = {(): 1.0, (0,): 3.0, (0, 1): -2.0, (0, 1, 2): 20.0}
    np.testing.assert_allclose(solve(plan, lambda coalition: v[tuple(sorted(coalition))]), [2.0, -5.0, 22.0])


@given(count=st.integers(2, 8), pairs=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_sampled_values_are_the_mean_marginal_contributions_of_the_drawn_orders(
    count: int, pairs: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    game = random_game(count, rng)
    drawn = [tuple(rng.permutation(count).tolist()) for _ in range(pairs)]
    expected = np.zeros(count)
    for order in [*drawn, *(order[::-1] for order in drawn)]:
        for place, unit in enumerate(order):
            before = frozenset(order[:place])
            expected[unit] += (game(before | {unit}) - game(before)) / (2 * pairs)
    plan = permutation_plan(count, 2 * pairs, _GivenOrders(drawn))  # type: ignore[arg-type]
    np.testing.assert_allclose(solve(plan, game), expected, atol=1e-12)


@given(count=st.integers(3, 7), seed=st.integers(0, 10_000))
def test_antithetic_pairs_are_exact_without_interactions_of_order_three(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = two_additive_game(count, rng)
    plan = permutation_plan(count, 2, rng)
    # In an order and its reverse each pair is completed once by either member: half its interaction each.
    np.testing.assert_allclose(solve(plan, game), solve(exact_plan(count), game), atol=1e-10)
    rows = {row.tobytes() for row in plan.coalitions}
    assert {(~row).tobytes() for row in plan.coalitions} == rows


def test_permutation_estimates_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    game = random_game(5, rng)
    draws = np.array([solve(permutation_plan(5, 2, rng), game) for _ in range(2000)])
    # Five standard errors of the mean: passes by chance alone with probability above .999997 for each player.
    error = draws.std(0, ddof=1) / math.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - brute_force_shapley(5, game)) < 5 * error).all()
    assert (error < 0.03).all()  # and the test has teeth: the values are of order one


# Coarse plans.


def union_game(game: Worth, group: np.ndarray) -> Worth:
    """The game of the groups: each brings all its units."""
    return lambda groups: game(frozenset(np.flatnonzero(np.isin(group, list(groups))).tolist()))


@given(count=st.integers(2, 9), seed=st.integers(0, 10_000))
def test_a_coarse_plan_plays_the_game_of_the_groups_and_pays_their_last_units(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    game, group = random_game(count, rng), random_groups(count, rng)
    hierarchy = random_hierarchy(len(set(group.tolist())), rng)
    expected = np.zeros(count)
    for number, value in enumerate(closed_form_owen(hierarchy, union_game(game, group))):
        expected[max(unit for unit in range(count) if group[unit] == number)] = value
    np.testing.assert_allclose(solve(coarse_plan(group, owen_plan(hierarchy)), game), expected, atol=1e-10)


def test_a_coarse_plan_by_hand() -> None:
    # Groups {0, 2} and {1, 3}: the plan of two players over four units, paid at units 2 and 3.
    plan = coarse_plan(np.array([0, 1, 0, 1]), owen_plan(balanced_hierarchy(2)))
    weight = {tuple(np.flatnonzero(row).tolist()): plan.weights[:, k].tolist() for k, row in enumerate(plan.coalitions)}
    assert weight == {
        (): [0.0, 0.0, -0.5, -0.5],
        (0, 1, 2, 3): [0.0, 0.0, 0.5, 0.5],
        (0, 2): [0.0, 0.0, 0.5, -0.5],
        (1, 3): [0.0, 0.0, -0.5, 0.5],
    }
