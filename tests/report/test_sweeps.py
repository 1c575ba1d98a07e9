"""Sweep tables: which settings vary, seeds averaged, pairs with sparse."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scar.report.sweeps import sweep_csv, sweep_markdown, sweep_rows, varied
from scar.tracking.records import RunRecord

Make = Callable[..., RunRecord]


def kl_sweep(make_run: Make) -> list[RunRecord]:
    """Sparse and SCAR at two KL coefficients and two seeds; SCAR is above sparse but for KL 0.2, seed 2."""
    finals = {
        ("sparse", 0.1): (1.0, 2.0),
        ("sparse", 0.2): (0.5, 1.5),
        ("scar", 0.1): (3.0, 4.0),
        ("scar", 0.2): (2.0, 1.0),
    }
    return [
        make_run(method, seed, folder=f"{method}{kl}{seed}", final=final, config={"ppo.kl_coef": kl})
        for (method, kl), pair in finals.items()
        for seed, final in enumerate(pair, start=1)
    ]


def test_rows_name_what_varies_and_average_over_seeds(make_run: Make) -> None:
    records = kl_sweep(make_run)
    assert varied(records) == ["ppo.kl_coef"]
    rows = {(row["method"], row["ppo.kl_coef"]): row for row in sweep_rows(records)}
    assert len(rows) == 4
    assert rows["scar", 0.1]["final_reward_mean"] == 3.5
    assert rows["scar", 0.1]["final_reward_std"] == pytest.approx(0.5**0.5)
    assert rows["scar", 0.1]["n"] == 2


def test_above_sparse_compares_equal_seeds_and_equal_settings(make_run: Make) -> None:
    rows = {(row["method"], row["ppo.kl_coef"]): row for row in sweep_rows(kl_sweep(make_run))}
    assert (rows["scar", 0.1]["above_sparse"], rows["scar", 0.1]["pairs"]) == (2, 2)
    assert (rows["scar", 0.2]["above_sparse"], rows["scar", 0.2]["pairs"]) == (1, 2)  # 1.0 is below 1.5


def test_settings_that_only_scar_has_do_not_spoil_the_pairs(make_run: Make) -> None:
    records = [make_run("sparse", 1, final=1.0)]
    for name in ("span", "token"):
        records.append(make_run("scar", 1, folder=name, final=2.0, segmentation=name))
    assert varied(records) == ["segmentation"]
    rows = [row for row in sweep_rows(records) if row["method"] == "scar"]
    assert [(row["segmentation"], row["above_sparse"], row["pairs"]) for row in rows] == [
        ("span", 1, 1),
        ("token", 1, 1),
    ]


def test_markdown_and_csv_have_a_line_a_setting(make_run: Make) -> None:
    records = kl_sweep(make_run)
    lines = sweep_markdown(records).splitlines()
    assert len(lines) == 2 + 4
    assert "| imdb | scar | 0.1 | 2 | 3.50 ± 0.71 |" in sweep_markdown(records)
    assert len(sweep_csv(records).splitlines()) == 1 + 4


def test_two_runs_of_one_setting_and_seed_are_refused(make_run: Make) -> None:
    with pytest.raises(ValueError, match="two records of one setting and seed"):
        sweep_rows([make_run("sparse", 1, folder="a"), make_run("sparse", 1, folder="b")])
