"""Paired tables of sweeps: equal seed and settings, averages within a seed first, intervals over seeds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scar.report.sweeps import paired_rows
from scar.tracking.records import RunRecord

Make = Callable[..., RunRecord]


def sweep(make_run: Make) -> list[RunRecord]:
    """RED and SCAR at two KL coefficients and three seeds. SCAR less RED is 1, 2 and 3 at KL 0.1 and 3 more at 0.2."""
    records = []
    for kl in (0.1, 0.2):
        for seed in (1, 2, 3):
            above = seed + (3 if kl == 0.2 else 0)
            for method, final in (("red", 10.0 * seed), ("scar", 10.0 * seed + above)):
                folder = f"{method}{kl}{seed}"
                records.append(make_run(method, seed, folder=folder, final=final, config={"ppo.kl_coef": kl}))
    return records


def test_differences_are_averaged_within_a_seed_then_over_seeds(make_run: Make) -> None:
    (row,) = paired_rows(sweep(make_run))
    assert (row["task"], row["length"], row["credit"]) == ("imdb", None, "scar")
    assert (row["seeds"], row["pairs"]) == (3, 6)
    # By seed (1 + 4) / 2, (2 + 5) / 2, (3 + 6) / 2 = 2.5, 3.5, 4.5: mean 3.5, standard error 1 / sqrt(3), t(2) 4.3027.
    assert row["final_reward"] == pytest.approx(3.5)
    assert row["final_reward_interval"] == pytest.approx((3.5 - 4.3027 / 3**0.5, 3.5 + 4.3027 / 3**0.5), abs=1e-3)
    # KL and bigrams never differ: no interval, and no warning of a division by zero.
    assert (row["final_kl"], row["final_kl_interval"]) == (0.0, None)


def test_kinds_of_credit_and_lengths_have_rows_of_their_own(make_run: Make) -> None:
    records = []
    for length in (16, 32):
        config = {"generation.max_new_tokens": length}
        records.append(make_run("red", folder=f"red{length}", final=1.0, config=config))
        for units in ("span", "token"):
            final = 2.0 if units == "span" else 0.5
            run = make_run(folder=f"{units}{length}", final=final, segmentation=units, config=config)
            records.append(run)
    found = {(row["length"], row["credit"]): row["final_reward"] for row in paired_rows(records)}
    assert found == {(n, f"scar: {units}"): d for n in (16, 32) for units, d in (("span", 1.0), ("token", -0.5))}


def test_runs_without_a_partner_are_left_out_and_one_seed_has_no_interval(make_run: Make) -> None:
    records = [make_run("red", 1, final=1.0), make_run("scar", 1, final=3.0), make_run("scar", 2, final=99.0)]
    (row,) = paired_rows(records)
    assert (row["seeds"], row["final_reward"], row["final_reward_interval"]) == (1, 2.0, None)
