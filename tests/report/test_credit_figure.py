"""Figure 1: what is written where, in which colour, and the same bytes each time."""

from __future__ import annotations

import warnings

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from scar.report.credit_figures import GAP, LINE, WIDTH, figure1, placed, width_of
from scar.report.style import pdf_bytes, png_bytes
from tests.report.credit_records import PIECES, example_row, plain, row_of, write_record


@pytest.fixture
def record(tmp_path):
    return write_record(
        tmp_path / "r", [example_row(), row_of([" so", " it", " is"], {"sparse": plain([0, 0, -1.0])}, finished=False)]
    )


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_words_go_on_a_new_line_where_they_do_not_fit():
    words = placed(
        [((0, 1), "a", 2.0), ((1, 2), "b", 1.0), ((2, 3), "c", 0.5), ((3, 4), "d", 9.0), ((4, 5), "e", 1.0)], room=3.6
    )
    assert [(word.text, word.line) for word in words] == [("a", 0), ("b", 0), ("c", 0), ("d", 1), ("e", 2)]
    assert [word.left for word in words] == pytest.approx([0.0, 2 + GAP, 3 + 2 * GAP, 0.0, 0.0])


def test_every_method_shows_its_words_numbers_and_sum(record):
    shown = texts(figure1(record))
    assert [text for text in shown if text in ("Sparse RLHF", "ABC", "SCAR,\ntoken units", "SCAR,\nspan units")] == [
        "Sparse RLHF",
        "ABC",
        "SCAR,\ntoken units",
        "SCAR,\nspan units",
    ]
    assert shown.count("= +2.00") == 4
    for word in ("a", "greatly", "sad,", "film", "<EOS>"):
        assert shown.count(word) == 4
    start = shown.index("SCAR,\ntoken units")
    part = shown[start : shown.index("SCAR,\nspan units")]
    assert [text for text in part if text[-1].isdigit()] == ["+0.25", "+2.50", "\u22121.25", "+0.50", "0.00", "= +2.00"]
    rest = shown[shown.index("SCAR,\nspan units") :]
    assert [text for text in rest if text[-1:].isdigit() and len(text) < 9] == [
        "+2.50",
        "\u22120.50",
        "0.00",
        "= +2.00",
    ]


def test_colours_say_sign_and_size_on_one_scale(record):
    boxes = [patch for patch in figure1(record, methods=["scar:token"]).axes[0].patches if isinstance(patch, Rectangle)]
    colours = [to_hex(box.get_facecolor()) for box in boxes]
    # Largest: +2.50, of which 0.8 of full blue; +0.25 has the root of a tenth of that; -1.25 the root of a half of orange.
    assert colours[1] == to_hex([1 - 0.8 * (1 - part) for part in (0, 114 / 255, 178 / 255)])
    assert colours[0] == to_hex([1 - 0.8 * 0.1**0.5 * (1 - part) for part in (0, 114 / 255, 178 / 255)])
    assert colours[2] == to_hex([1 - 0.8 * 0.5**0.5 * (1 - part) for part in (213 / 255, 94 / 255, 0)])
    assert colours[4] == "#ffffff"
    alone = figure1(record, methods=["sparse", "scar:token"]).axes[0].patches[6]
    assert to_hex(alone.get_facecolor()) == colours[1]  # 2.5 is the largest of both rows


def test_frames_are_units_and_eos_has_none(record):
    def lines(method):
        return figure1(record, methods=[method]).axes[0].get_lines()

    assert len(lines("abc")) == 0
    assert len(lines("scar:span")) == 2 * 4
    assert len(lines("scar:token")) == 4 * 4 + 2  # four words; ticks between great|ly and sad|,


def test_a_unit_over_two_lines_is_open_where_it_breaks_and_has_its_number_once(tmp_path):
    pieces = [" extraordinarily"] * 8 + [""]
    unit = {"start": 0, "end": 8, "text": "".join(pieces[:8]), "value": 1.0}
    method = plain([0.0] * 7 + [1.0, 0.0]) | {"units": [unit], "hierarchy": [], "trees": None}
    record = write_record(tmp_path / "r", [row_of(pieces, {"scar:span": method})])
    axes = figure1(record).axes[0]
    first, second = axes.patches[:2]
    assert second.get_y() - first.get_y() == pytest.approx(LINE)
    assert first.get_x() == second.get_x()
    assert len(axes.get_lines()) == 3 + 3  # top, bottom and one side each
    assert [text.get_text() for text in axes.texts].count("+1.00") == 1


def test_everything_is_inside_a_column_and_legible(record):
    figure = figure1(record)
    assert figure.get_size_inches()[0] == WIDTH == 5.5
    height = figure.get_size_inches()[1]
    for text in figure.axes[0].texts:
        assert text.get_fontsize() >= 7
        x, y = text.get_position()
        wide = width_of(max(text.get_text().split("\n"), key=len), text.get_fontsize())
        assert x + (wide / 2 if text.get_ha() == "center" else wide) <= WIDTH + 1e-6
        assert 0 <= y <= height


def test_texts_that_look_like_mathematics_are_shown_as_they_are(tmp_path):
    record = write_record(
        tmp_path / "r", [row_of([" $x^2$", " a_b"], {"sparse": plain([0, 1.0])}, finished=False, prompt="$\\frac$")]
    )
    png_bytes(figure1(record))
    assert "$x^2$" in texts(figure1(record))


def test_control_characters_have_a_sign_of_their_own(tmp_path):
    method = plain([0, 1.0])
    record = write_record(
        tmp_path / "r", [row_of([" a\x01", " \x1bb"], {"sparse": method}, finished=False, prompt="\x00")]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png_bytes(figure1(record))
    assert {"a\ufffd", "\ufffdb", "Prompt: \u201c\ufffd\u201d"} <= set(texts(figure1(record)))


def test_caption_and_prompt_say_what_is_shown(record):
    shown = " ".join(texts(figure1(record)))
    assert shown.startswith("Prompt: \u201cThe film\u201d")
    for part in (
        "Raw reward +2.00",
        "scale local",
        "imdb-reward-b2",
        "not comparable",
        "space token",
        "sampled Shapley values",
    ):
        assert part in shown
    assert "SCAR" not in " ".join(texts(figure1(record, methods=["abc"])))


def test_a_long_prompt_shows_its_end(tmp_path):
    record = write_record(tmp_path / "r", [example_row(prompt="x" * 50 + " word" * 100 + " end.")])
    shown = " ".join(texts(figure1(record)))
    assert shown.startswith("Prompt: \u201c\u2026 ")
    assert "end.\u201d" in shown
    assert "xxx" not in shown


def test_items_and_methods_that_are_not_there_are_named(record):
    assert "it" in texts(figure1(record, item=1))
    with pytest.raises(ValueError, match="allowed: 0 to 1"):
        figure1(record, item=2)
    with pytest.raises(ValueError, match=r"has no magic; it has sparse, abc, scar:token, scar:span"):
        figure1(record, methods=["magic"])


def test_the_same_record_gives_the_same_bytes(record):
    for as_bytes, start in ((png_bytes, b"\x89PNG"), (pdf_bytes, b"%PDF")):
        first = as_bytes(figure1(record))
        assert first.startswith(start)
        assert as_bytes(figure1(record)) == first
    assert b"CreationDate" not in pdf_bytes(figure1(record))


def test_the_example_is_what_the_tests_say():
    assert "".join(PIECES) == example_row()["response"] == " a greatly sad, film"
