"""What runs cost: shares, memory and coalitions a second from hand-made records."""

from __future__ import annotations

import pytest

from scar.report.costs import cost_rows, costs_markdown


def test_numbers_of_one_kind_are_means_over_its_runs(make_run):
    scored = {"coalitions": {"backend": "fused", "dtype": "bfloat16"}}
    runs = [
        make_run("scar", 1, seconds=30.0, credit_seconds=(0.25,) * 6, **scored),
        make_run("scar", 2, seconds=50.0, credit_seconds=(0.75,) * 6, **scored),
    ]
    (row,) = cost_rows(runs).to_dict("records")
    assert (row["task"], row["method"], row["units"], row["coalitions"]) == ("imdb", "scar", "token", "fused, bfloat16")
    assert (row["n"], row["device"], row["seconds"]) == (2, "CPU", 40.0)
    assert row["credit_share"] == pytest.approx(0.5)  # of one second an update
    # 2 + 4 + ... + 12 = 42 queries a response, 4 responses an update, in 1.5 and 4.5 seconds
    assert row["queries_per_second"] == pytest.approx((168 / 1.5 + 168 / 4.5) / 2)


def test_number_types_units_and_methods_are_rows_of_their_own_in_the_order_of_tasks(make_run):
    wide = {"coalitions": {"backend": "fused", "dtype": "float32"}}
    narrow = {"coalitions": {"backend": "fused", "dtype": "bfloat16"}}
    runs = [
        make_run("sparse", 1, task="tldr"),
        make_run("scar", 1, **wide),
        make_run("scar", 2, folder="narrow", **narrow),
        make_run("scar", 1, folder="spans", segmentation="span", **wide),
    ]
    rows = cost_rows(runs)
    assert list(zip(rows["task"], rows["units"], rows["coalitions"], strict=True)) == [
        ("imdb", "token", "fused, float32"),
        ("imdb", "token", "fused, bfloat16"),
        ("imdb", "span", "fused, float32"),
        ("tldr", "-", "-"),
    ]
    assert rows["queries_per_second"].isna().tolist() == [False, False, False, True]


def test_the_largest_memory_is_kept(make_run):
    timing = [{"total_seconds": 1.0, "device_seconds": 1.0, "peak_memory_bytes": n * 2**30} for n in (3, 1)]
    runs = [make_run("sparse", seed, timing=t) for seed, t in enumerate(timing, start=1)]
    assert cost_rows(runs)["peak_bytes"].tolist() == [3 * 2**30]
    shown = costs_markdown(runs, scale="local")
    assert "| imdb | sparse | - | - | 2 |" in shown
    assert "| 3.0 | - | 1.00 | 5.00 |" in shown
