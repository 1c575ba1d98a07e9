from __future__ import annotations

import numpy as np
import pytest

from scar.report.figures import (
    FIGURES,
    Variant,
    figure3,
    figure4,
    figure5,
    line_numbers,
    select_variants,
)
from scar.report.frames import curves_frame

FIGURE4, FIGURE5 = FIGURES["figure4"].variants, FIGURES["figure5"].variants


def lines_of(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines() if not line.get_label().startswith("_")}


def test_kl_is_smoothed_and_a_negative_estimate_counts_as_none(make_run):
    # Trailing means: 4, 2.5, -1 -> sqrt 2, sqrt 2.5, 0.
    curves = curves_frame([make_run("scar", 1, rewards=(0.0,) * 3, kls=(4.0, 1.0, -8.0))])
    np.testing.assert_allclose(curves["sqrt_kl"], [2.0, 2.5**0.5, 0.0])


def test_figure3_has_a_point_an_update_and_the_trained_policy(make_run):
    runs = [
        make_run(m, s, rewards=(0.0, 2.0), kls=(0.0, 18.0), final=3.0, kl=16.0)
        for m in ("sparse", "scar")
        for s in (1, 2)
    ]
    figure = figure3(select_variants(runs, "imdb", [Variant("sparse"), Variant("scar")], seeds=[1, 2]))
    assert lines_of(figure)["SCAR"].get_xydata().tolist() == [[0.0, 0.0], [3.0, 1.0]]
    ends = [line for line in figure.axes[0].get_lines() if line.get_marker() == "D"]
    assert [line.get_xydata().tolist() for line in ends] == [[[4.0, 3.0]]] * 2
    assert "sqrt(nats per response)" in figure.axes[0].get_xlabel()


def test_figure4_is_in_minutes_while_runs_are_short(make_run):
    runs = [make_run("sparse", 1, task="tldr", rewards=(0.0, 1.0), times=(60.0, 120.0))]
    runs += [make_run("scar", 1, task="tldr", segmentation="span", rewards=(0.0, 1.0), times=(90.0, 180.0))]
    found = select_variants(runs, "tldr", FIGURE4, seeds=[1])
    figure = figure4(found)
    assert lines_of(figure)["SCAR, span units"].get_xdata().tolist() == [1.5, 3.0]
    assert figure.axes[0].get_xlabel() == "device time, CPU-minutes"
    assert found.missing == ["ABC", "SCAR, token units"]
    assert "no run of ABC, SCAR, token units" in figure._suptitle.get_text().replace("\n", " ")


def test_figure5_tells_kinds_of_units_apart_and_counts_seeds(make_run):
    runs = [make_run("scar", 1, task="tldr", folder=units, segmentation=units) for units in ("span", "token")]
    runs += [make_run("scar", 2, task="tldr", segmentation="span")]
    figure = figure5(select_variants(runs, "tldr", FIGURE5, seeds=[1, 2]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "SCAR, span units, n=2",
        "SCAR, token units, n=1/2",
    ]
    assert len({str(line._dash_pattern) for line in lines_of(figure).values()}) == 2
    assert "scale local" in figure._suptitle.get_text()


def test_numbers_behind_a_figure(make_run):
    runs = [make_run("scar", s, task="tldr", segmentation="span", rewards=(0.0, 2.0 * s)) for s in (1, 2)]
    (row,) = line_numbers(select_variants(runs, "tldr", FIGURE5, seeds=[1, 2]), "update")
    assert row == {
        "variant": "SCAR, span units",
        "n": 2,
        "x": [1.0, 2.0],
        "mean": [0.0, 1.5],  # trailing means 0, 1 and 0, 2
        "std": [0.0, pytest.approx(0.5**0.5)],
    }


def test_a_metric_that_a_run_did_not_log_is_named_with_its_folder(make_run):
    record = make_run("sparse", 1)
    file = record.path / "metrics.jsonl"
    file.write_text(file.read_text().replace("device_seconds", "seconds"))
    with pytest.raises(ValueError, match=rf"{record.path}/metrics.jsonl has no 'device_seconds'"):
        curves_frame([record])


def test_variants_that_do_not_share_their_settings_are_refused(make_run):
    runs = [make_run("scar", 1, task="tldr", folder=units, segmentation=units) for units in ("span", "token")]
    runs[1] = make_run("scar", 1, task="tldr", folder="other", segmentation="token", config={"ppo.kl_coef": 0.1})
    with pytest.raises(ValueError, match="unfair comparison on task tldr"):
        select_variants(runs, "tldr", FIGURE5, seeds=[1])
