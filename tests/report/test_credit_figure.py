"""Figure 1: what is written where, in which colour, and the same bytes each time."""

from __future__ import annotations

import warnings

import pytest

from scar.report.credit_figures import GAP, figure1, placed
from scar.report.style import png_bytes
from tests.report.credit_records import example_row, plain, row_of, write_record


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


def test_texts_that_look_like_mathematics_are_shown_as_they_are(tmp_path):
    record = write_record(
        tmp_path / "r", [row_of([" $x^2$", " a_b"], {"sparse": plain([0, 1.0])}, finished=False, prompt="$\\frac$")]
    )
    assert png_bytes(figure1(record)) == png_bytes(figure1(record))  # the same each time
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


def test_items_and_methods_that_are_not_there_are_named(record):
    assert "it" in texts(figure1(record, item=1))
    with pytest.raises(ValueError, match="allowed: 0 to 1"):
        figure1(record, item=2)
    with pytest.raises(ValueError, match=r"has no magic; it has sparse, abc, scar:token, scar:span"):
        figure1(record, methods=["magic"])
