"""How credit is shown: words, the pieces that carry a number, names and notes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scar.report.credit import (
    credit_of,
    load_credit,
    number,
    pieces_of,
    text_of,
    words_of,
)
from tests.report.credit_records import PIECES, example_row, on_units, plain, row_of, write_record


def words(*pieces: str, finished: bool = False) -> list[str]:
    """The pieces of each word."""
    row = row_of(pieces, {"sparse": plain([0.0] * len(pieces))}, finished=finished)
    return ["|".join(pieces[start:end]) for start, end in words_of(row)]


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ((" initially", " dist", "urbing", ","), [" initially", " dist|urbing|,"]),
        (("a", " ", " b"), ["a| ", " b"]),  # white space goes with the word before
        ((" ", "\n", "a", " b"), [" |\n|a", " b"]),  # at the start with the one behind
        ((" a", "\n", "b"), [" a|\n", "b"]),
        (("a ", "b"), ["a ", "b"]),
        ((" a", "", "", " \U0001f600", "!"), [" a", "|| \U0001f600|!"]),  # bytes of a character that begins a word
        ((" a", "", "\u00e9", " b"), [" a||\u00e9", " b"]),  # and of one inside a word
        ((" a", ""), [" a|"]),
        (("", ""), ["|"]),
        ((" ", " "), [" | "]),
        ((), []),
    ],
)
def test_words_are_what_stands_between_white_space(pieces, found):
    assert words(*pieces) == found


def test_eos_is_a_word_of_its_own():
    assert words("a", " b", "", finished=True) == ["a", " b", ""]
    assert words("", finished=True) == [""]


@given(
    st.lists(st.sampled_from(["", " ", "\n", "a", " a", "b ", ",", " \u05e9", "\U0001f600"]), min_size=1), st.booleans()
)
def test_words_are_a_partition_whose_credit_sums_to_the_methods(pieces, finished):
    pieces = [*pieces, ""] if finished else pieces
    credit = [0.25 * place - 1 for place in range(len(pieces))]
    method = plain(credit)
    row = row_of(pieces, {"sparse": method}, finished=finished)
    found = words_of(row)
    assert [place for word in found for place in range(*word)] == list(range(len(pieces)))
    assert "".join("".join(pieces[start:end]) for start, end in found) == row["response"]
    assert sum(credit_of(method, word) for word in found) == sum(credit) == method["sum"]


def test_pieces_join_words_into_units_and_units_into_words():
    row = example_row()
    found = words_of(row)
    assert found == [(0, 1), (1, 3), (3, 5), (5, 6), (6, 7)]
    assert pieces_of(found, row["methods"]["sparse"]) == found
    assert pieces_of(found, row["methods"]["scar:token"]) == found  # several units in a word: the word
    assert pieces_of(found, row["methods"]["scar:span"]) == [
        (0, 3),
        (3, 6),
        (6, 7),
    ]  # several words in a unit: the unit
    tokens = [(k, k + 1) for k in range(7)]
    assert pieces_of(tokens, row["methods"]["scar:span"]) == [(0, 3), (3, 6), (6, 7)]
    across = on_units(PIECES, [2, 6], [1.0, 1.0], [[0, 1]])  # a border inside a word: what holds both
    assert pieces_of(found, across) == [(0, 6), (6, 7)]
    assert [text_of(row, piece) for piece in found] == ["a", "greatly", "sad,", "film", "<EOS>"]
    assert [credit_of(row["methods"]["scar:token"], piece) for piece in found] == [0.25, 2.5, -1.25, 0.5, 0.0]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.004, "0.00"), (-0.004, "0.00"), (1.236, "+1.24"), (-2.5, "\u22122.50")]
)
def test_numbers_have_signs_but_for_zero(value, shown):
    assert number(value) == shown


def test_rows_of_red_under_its_former_name_are_reds(tmp_path):
    row = row_of(PIECES, {"sparse": plain([0, 0, 0, 0, 0, 0, 2.0]), "prefix": plain([2.0, 0, 0, 0, 0, 0, 0])})
    record = load_credit(write_record(tmp_path / "r", [row]).path)
    assert list(record.manifest["methods"]) == list(record.rows[0]["methods"]) == ["sparse", "red"]


def test_a_record_without_all_its_rows_is_refused(tmp_path):
    write_record(tmp_path / "r", [example_row()], responses=2)
    with pytest.raises(ValueError, match="holds 1 of 2 responses"):
        load_credit(tmp_path / "r")
    with pytest.raises(ValueError, match="give the folder of a credit record"):
        load_credit(tmp_path / "none")
