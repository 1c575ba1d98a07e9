from __future__ import annotations

import itertools

import numpy as np
import pytest

from scar.report.comparisons import comparison_rows, reach
from scar.report.selection import select_cells
from scar.report.statistics import bootstrap_interval, compare


def test_numbers_are_paired_by_seed_and_others_are_left_out():
    # Seeds 1 and 2: differences 1 and 3; seed 9 has no partner.
    found = compare({1: 2.0, 2: 5.0, 9: 100.0}, {1: 1.0, 2: 2.0, 3: -100.0})
    assert (found.n, found.difference, found.above) == (2, 2.0, 2)
    assert found.one == (3.5, pytest.approx(3 / 2**0.5))
    assert found.other == (1.5, pytest.approx(1 / 2**0.5))


def test_probability_of_improvement_counts_all_pairs_and_ties_half():
    # 3 beats 1 and 2, ties 3; 1 ties 1, loses to 2 and 3; 2 beats 1, ties 2, loses to 3: (2.5 + 0.5 + 1.5) / 9.
    found = compare({1: 3.0, 2: 1.0, 3: 2.0}, {1: 1.0, 2: 2.0, 3: 3.0})
    assert found.improvement == pytest.approx(4.5 / 9)
    assert (found.above, found.difference) == (1, 0.0)


def test_interval_is_that_of_all_resamples():
    values = np.array([0.0, 1.0, 5.0])
    means = sorted(np.mean(sample) for sample in itertools.product(values, repeat=3))  # all 27, equally likely
    exact = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    np.testing.assert_allclose(bootstrap_interval(values), exact)


def test_one_seed_has_no_interval_and_none_has_no_difference():
    alone = compare({1: 2.0}, {1: 1.5})
    assert (alone.n, alone.difference, alone.interval) == (1, 0.5, None)
    nothing = compare({1: 2.0}, {2: 1.5})
    assert (nothing.n, nothing.difference, nothing.interval, nothing.improvement) == (0, None, None, None)


def test_reach_is_the_median_over_the_seeds_that_got_there(make_run):
    # Sparse ends at 2 on each seed (mean of the last five). SCAR's trailing mean of five is at 2 in update 5 (seed 1: all
    # updates 2), in update 6 (seed 2: 1 2 2 2 2 2: means 1.8, 2), never (seed 3). Seconds: 10 an update.
    runs = [make_run("sparse", s, rewards=(0.0, 2.0, 2.0, 2.0, 2.0, 2.0)) for s in (1, 2, 3)]
    curves = {1: (2.0,) * 6, 2: (1.0, 2.0, 2.0, 2.0, 2.0, 2.0), 3: (0.0,) * 6}
    times = tuple(10.0 * update for update in range(1, 7))
    runs += [make_run("scar", s, rewards=rewards, times=times) for s, rewards in curves.items()]
    found = reach(select_cells(runs), "imdb", "scar", "sparse")
    assert (found.n, found.reached, found.updates, found.seconds) == (3, 2, 5.5, 55.0)


@pytest.fixture
def cells(make_run):
    runs = [make_run("sparse", s, final=1.0, rewards=(0.5,) * 6) for s in (1, 2)]
    runs += [make_run("scar", s, final=1.0 + s, rewards=(1.0,) * 6, kl=6.0) for s in (1, 2)]
    runs += [make_run("abc", 1, final=0.5)]
    return select_cells(runs, methods=["sparse", "abc", "scar"], seeds=[1, 2])


def test_scar_meets_every_method_and_the_others_meet_sparse(cells):
    rows = comparison_rows(cells)
    assert [(row["one"], row["other"], row["n"]) for row in rows] == [
        ("scar", "sparse", 2),
        ("scar", "abc", 1),
        ("abc", "sparse", 1),
    ]
    first = rows[0]
    assert (first["final_reward_difference"], first["final_reward_low"], first["final_reward_high"]) == (1.5, 1.0, 2.0)
    assert (first["curve_area_difference"], first["final_kl_difference"]) == (0.5, 1.0)
