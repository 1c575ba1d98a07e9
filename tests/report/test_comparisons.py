from __future__ import annotations

import itertools

import numpy as np
import pytest

from scar.report.claims import reward_verdicts
from scar.report.comparisons import comparison_rows, comparisons_markdown, reach
from scar.report.frames import evaluation_noise
from scar.report.selection import select_cells
from scar.report.statistics import bootstrap_error, compare, holm, student
from scar.report.tables import table1_markdown


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


def test_interval_and_p_are_students():
    # Three seeds: 3 +- 4.3027 * 1 / sqrt(3); t = 3 sqrt(3) with 2 degrees of freedom: p = 1 - t / sqrt(2 + t^2).
    found = student(np.array([2.0, 3.0, 4.0]))
    assert found.interval == pytest.approx((3 - 4.3027 / 3**0.5, 3 + 4.3027 / 3**0.5), abs=1e-4)
    assert found.p == pytest.approx(1 - 27**0.5 / 29**0.5)


@pytest.mark.parametrize("values", [[], [1.0], [0.0, 0.0], [2.5, 2.5, 2.5], [0.3, 0.1 + 0.2, 0.3]])
def test_there_is_no_test_without_spread(values):
    assert student(np.array(values)) is None


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_cover_the_mean_of_normal_seeds(n):
    draws = np.random.default_rng(n).normal(0.7, 2.0, (1000, n))
    intervals = np.array([student(values).interval for values in draws])
    assert 0.92 < np.mean((intervals[:, 0] <= 0.7) & (intervals[:, 1] >= 0.7)) < 0.97


def test_holm_by_hand():
    # Sorted 0.01 0.02 0.03 0.04 times 4 3 2 1: 0.04 0.06 0.06 0.04, the last raised to 0.06.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_the_bootstraps_error_is_that_of_all_resamples():
    values = np.array([0.0, 1.0, 5.0])
    means = [np.mean(sample) for sample in itertools.product(values, repeat=3)]  # all 27, equally likely
    assert bootstrap_error(values) == pytest.approx(np.std(means))
    assert bootstrap_error(values[:1]) is None


def test_the_noise_of_evaluation_is_over_prompts_that_all_runs_share(make_run):
    # Means over seeds by prompt: SCAR 2, 4 (std 1), sparse 0, 3; their difference 2, 1 (std 0.5). Two prompts: over sqrt(2).
    scar = [make_run("scar", 1, prompt_rewards=(1.0, 3.0)), make_run("scar", 2, prompt_rewards=(3.0, 5.0))]
    sparse = [make_run("sparse", 1, prompt_rewards=(0.0, 4.0)), make_run("sparse", 2, prompt_rewards=(0.0, 2.0))]
    cells = select_cells([*scar, *sparse, make_run("abc", 1)])
    assert cells.noise("imdb", "scar") == pytest.approx(1 / 2**0.5)
    assert cells.noise("imdb", "scar", "sparse") == pytest.approx(0.5 / 2**0.5)
    assert cells.noise("imdb", "abc") is None  # nothing to read it from
    assert cells.noise("imdb", "scar", "abc") is None
    assert cells.noise("imdb", "uniform") is None  # no run
    assert "| 2 | +0.00 | ±0.35 |" in comparisons_markdown(cells)
    assert "| 1.00 ± 0.00 | ±0.71 |" in table1_markdown(cells)
    assert "+0.00, evaluation noise ±0.35, 0/2 seeds" in {verdict.evidence for verdict in reward_verdicts(cells)}
    with pytest.raises(ValueError, match=r"imdb-scar-1 / .*imdb-abc-3 were evaluated on different prompts"):
        evaluation_noise({1: scar[0]}, {1: make_run("abc", 3, prompt_rewards=(0.0, 0.0), prompts="q")})


def test_one_seed_has_no_interval_and_none_has_no_difference():
    alone = compare({1: 2.0}, {1: 1.5})
    assert (alone.n, alone.difference, alone.interval, alone.p) == (1, 0.5, None, None)
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
    # Differences 1 and 2: t(1) is 12.7062, and t = 3 of Cauchy's distribution has p = 1 - 2 atan(3) / pi.
    assert first["final_reward_difference"] == 1.5
    assert first["final_reward_low"] == pytest.approx(1.5 - 12.7062 / 2, abs=1e-4)
    assert first["final_reward_high"] == pytest.approx(1.5 + 12.7062 / 2, abs=1e-4)
    assert first["final_reward_p"] == pytest.approx(1 - 2 * np.arctan(3) / np.pi)
    assert (first["curve_area_difference"], first["final_kl_difference"]) == (0.5, 1.0)
