from __future__ import annotations

import struct

import numpy as np
import pytest
from matplotlib.colors import to_hex

from scar.report import figures
from scar.report.figures import line_of
from scar.report.frames import curves_frame
from scar.report.selection import select_cells
from scar.report.style import METHODS, pdf_bytes, png_bytes


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


def test_smoothing_of_one_is_none(make_run):
    line = line_of(curves_frame([make_run("scar", 1, rewards=(0.0, 2.0, 7.0))], smoothing=1))
    assert line.reward.tolist() == [0.0, 2.0, 7.0]
    assert line.std is None


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


def test_ticks_are_whole_updates_in_a_short_run(make_run):
    (axes,) = figure2([make_run("scar", 1, rewards=(0.0, 1.0, 2.0))]).axes
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_one_seed_has_a_line_and_no_band(make_run):
    (axes,) = figure2([make_run("scar", 1)]).axes
    assert "scar" in lines_of(axes)
    assert len(axes.collections) == 0


def test_colours_belong_to_methods_and_only_prefix_is_dashed(make_run):
    runs = [make_run(method, 1) for method in METHODS]
    lines = lines_of(figure2(runs).axes[0])
    assert {m: to_hex(lines[m].get_color()).upper() for m in METHODS} == {m: look.colour for m, look in METHODS.items()}
    alone = lines_of(figure2(runs, methods=["scar"]).axes[0])
    assert to_hex(alone["scar"].get_color()).upper() == METHODS["scar"].colour
    assert {m for m in METHODS if lines[m].is_dashed()} == {"prefix"}


def test_a_method_without_a_colour_of_its_own_is_drawn_too(make_run):
    lines = lines_of(figure2([make_run("mine", 1), make_run("scar", 1)], methods=["scar", "mine"]).axes[0])
    assert to_hex(lines["mine"].get_color()).upper() not in {look.colour for look in METHODS.values()}


def test_legend_title_and_axis_say_what_is_shown(make_run):
    runs = [make_run("scar", 1), make_run("scar", 2), make_run("prefix", 1)]
    figure = figure2(runs, seeds=[1, 2], smoothing=3)
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["SCAR, n=2", "Prefix (not in the paper), n=1/2", "SFT policy, test prompts"]
    assert "trailing mean of up to 3 updates" in figure.axes[0].get_ylabel()
    assert "trailing" not in figure2(runs, smoothing=1).axes[0].get_ylabel()
    title = figure.get_suptitle()
    assert "scale local, seeds 1, 2" in title
    assert "CPU (a laptop); not comparable with the paper's, only their order is" in " ".join(title.split())


def test_legend_names_n_of_each_task_where_they_differ(make_run):
    runs = [make_run("scar", 1), make_run("scar", 2), make_run("scar", 1, task="tldr")]
    assert figure2(runs).legends[0].get_texts()[0].get_text() == "SCAR, n=2, 1/2"


def test_an_asked_task_without_runs_says_so(make_run):
    titles = [axes.get_title() for axes in figure2([make_run("scar")], tasks=["imdb", "hh"]).axes]
    assert titles == ["IMDB", "HH: no finished run"]


def test_curves_are_the_drawn_numbers(make_run):
    curves = figures.figure2_curves(select_cells([make_run("scar", 1, rewards=(1.0, 3.0))]), smoothing=2)
    line = {"task": "imdb", "method": "scar", "n": 1, "mean": [1.0, 2.0], "std": None}
    assert curves == {"smoothing_updates": 2, "curves": [line]}


def test_png_is_wide_enough_for_a_readme_and_the_same_each_time(make_run):
    runs = [make_run("scar", 1)]
    first = png_bytes(figure2(runs))
    assert first[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">I", first[16:20]) == (1650,)  # 5.5 inches, the width of a paper's text, at 300 dpi
    assert first == png_bytes(figure2(runs))
    assert b"Software" not in first  # nor do they change with the version of the program


def test_pdf_is_vector_text_and_the_same_each_time(make_run):
    runs = [make_run("scar", 1)]
    first = pdf_bytes(figure2(runs))
    assert first.startswith(b"%PDF")
    assert b"/Type /XObject /Subtype /Image" not in first.replace(b"\n", b" ")
    assert b"CreationDate" not in first
    assert first == pdf_bytes(figure2(runs))
