from __future__ import annotations

import numpy as np
import pytest

from scar.report import figures
from scar.report.figures import line_of
from scar.report.frames import curves_frame
from scar.report.selection import select_cells


def figure2(runs, *, smoothing=5, **which):
    return figures.figure2(select_cells(runs, **which), smoothing=smoothing)


def lines_of(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_learning_curve_smooths_each_run_and_then_takes_mean_and_sample_std(make_run):
    # Trailing means of two: 0, 1, 3 and 4, 3, 3. Their means: 2, 2, 3. Sample stds: |0-4|/sqrt 2, |1-3|/sqrt 2, 0.
    runs = [make_run("scar", 1, rewards=(0.0, 2.0, 4.0)), make_run("scar", 2, rewards=(4.0, 2.0, 4.0))]
    line = line_of(curves_frame(runs, smoothing=2))
    assert line.x.tolist() == [1, 2, 3]
    assert line.reward.tolist() == [2.0, 2.0, 3.0]
    np.testing.assert_allclose(line.std, [4 / 2**0.5, 2 / 2**0.5, 0.0])


def test_smoothing_below_one_is_refused(make_run):
    with pytest.raises(ValueError, match="smoothing window 0"):
        figure2([make_run("scar")], smoothing=0)


def test_runs_of_different_length_have_no_common_curve(make_run):
    with pytest.raises(ValueError, match=r"\[2, 3\] updates"):
        figure2([make_run("scar", 1, rewards=(0.0,) * 3), make_run("scar", 2, rewards=(0.0,) * 2)])


def test_a_panel_a_task_in_the_papers_order_and_a_line_a_method(make_run):
    runs = [make_run(m, 1, task=t) for t in ("hh", "imdb") for m in ("sparse", "scar")]
    figure = figure2(runs)
    assert [axes.get_title() for axes in figure.axes] == ["IMDB", "HH"]
    assert [sorted(lines_of(axes)) for axes in figure.axes] == [["scar", "sft", "sparse"]] * 2


def test_lines_bands_and_sft_level_hold_the_numbers(make_run):
    runs = [make_run("scar", s, rewards=(0.0, 2.0 * s), initial=0.25) for s in (1, 2)]  # 2 and 4: 3 +- 1.41
    (axes,) = figure2(runs, smoothing=1).axes
    assert lines_of(axes)["scar"].get_xydata().tolist() == [[1.0, 0.0], [2.0, 3.0]]
    assert set(lines_of(axes)["sft"].get_ydata()) == {0.25}
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (pytest.approx(0.0), pytest.approx(3 + 2**0.5))
    assert 3 - 2**0.5 in [pytest.approx(y) for y in band]


def test_one_seed_has_a_line_and_no_band(make_run):
    (axes,) = figure2([make_run("scar", 1)]).axes
    assert "scar" in lines_of(axes)
    assert len(axes.collections) == 0


def test_an_asked_task_without_runs_says_so(make_run):
    titles = [axes.get_title() for axes in figure2([make_run("scar")], tasks=["imdb", "hh"]).axes]
    assert titles == ["IMDB", "HH: no finished run"]
