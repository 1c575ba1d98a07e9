"""Measurements of credit, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from scar.report import credit as credit_stats_module
from scar.report.credit import credit_stats, position_shares, rank_correlation, rated_words
from scar.report.credit_items import credit_files
from tests.report.credit_records import example_row, on_units, plain, row_of, write_record


@pytest.fixture(autouse=True)
def few_resamples(request, monkeypatch):
    if "intervals" not in request.node.name:
        monkeypatch.setattr(credit_stats_module, "RESAMPLES", 50)


STATS = ["credit_stats.md", "credit_stats.csv", "credit_stats.png", "credit_stats.pdf"]
LEXICON = {"good": 2.0, "great": 3.0, "bad": -2.5, "sad": -2.0}


def row(text, credit, *, finished=False, method=None):
    pieces = text.split(" ")
    pieces = [f" {piece}" for piece in pieces] + [""] * finished
    return row_of(pieces, {"abc" if method is None else "scar:span": method or plain(credit)}, finished=finished)


def the_row(tmp_path, rows, lexicon=None):
    [found] = credit_stats(write_record(tmp_path / "r", rows), lexicon=lexicon)
    return found


def test_shares_of_each_tenth_are_of_the_sum_of_sizes():
    mass, signed = position_shares([1.0, -2.0, 0.0, 1.0])  # middles at 1/8, 3/8, 5/8, 7/8
    assert mass.tolist() == [0, 0.25, 0, 0.5, 0, 0, 0, 0, 0.25, 0]
    assert signed.tolist() == [0, 0.25, 0, -0.5, 0, 0, 0, 0, 0.25, 0]
    assert position_shares([0.0, 0.0]) is None
    many = position_shares(np.ones(20))[0]
    assert many == pytest.approx([0.1] * 10)


def test_shares_are_means_over_responses_that_have_credit(tmp_path):
    rows = [row("a b", [3.0, 1.0]), row("a b", [0.0, -1.0]), row("a b", [0.0, 0.0])]
    found = the_row(tmp_path, rows)
    assert found["responses"] == 2
    assert found["mass"] == [0, 0, (0.75 + 0) / 2, 0, 0, 0, 0, (0.25 + 1) / 2, 0, 0]
    assert found["signed"] == [0, 0, (0.75 + 0) / 2, 0, 0, 0, 0, (0.25 - 1) / 2, 0, 0]


def test_the_end_is_the_last_content_token_and_eos_of_those_that_have_one(tmp_path):
    rows = [row("a b", [1.0, 2.0, -1.0], finished=True), row("a b", [1.0, 1.0])]
    found = the_row(tmp_path, rows)
    assert found["last_content"][0] == (0.5 + 0.5) / 2
    assert found["eos"] == (0.25, 0.25, 0.25)  # one response: no interval to speak of
    assert found["finished"] == 1
    assert found["negative"][0] == 0.0  # EOS does not count


def test_negative_units_are_units_where_there_are_some(tmp_path):
    pieces = [" a", " b", " c", " d"]
    rows = [
        row_of(pieces, {"scar:span": on_units(pieces, [2, 4], [1.0, -2.0], [[0, 1]])}, finished=False),
        row_of(pieces, {"scar:span": on_units(pieces, [4], [3.0], [])}, finished=False),
    ]
    found = the_row(tmp_path, rows)
    assert found["negative"][0] == (0.5 + 0.0) / 2
    tokens = the_row(tmp_path / "other", [row("a b c d", [0.0, 1.0, 0.0, -2.0])])
    assert tokens["negative"][0] == 0.25


def test_rated_words_lose_case_and_outer_punctuation_and_no_more():
    one = row("(Good), not-bad bad! film Great's sad", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    credit, ratings = rated_words(one, one["methods"]["abc"], LEXICON)
    assert credit.tolist() == [1.0, 3.0, 6.0]
    assert ratings.tolist() == [2.0, -2.5, -2.0]


def test_credit_of_a_rated_word_is_that_of_all_its_tokens():
    one = example_row()
    credit, ratings = rated_words(one, one["methods"]["scar:token"], LEXICON | {"greatly": 2.0})
    assert credit.tolist() == [2.5, -1.25]
    assert ratings.tolist() == [2.0, -2.0]


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=40), rng.integers(0, 5, 40)  # with ties
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([0.1, 5.0, 6.0])) == pytest.approx(1.0)
    assert rank_correlation(np.array([1.0, 1.0]), np.array([0.0, 1.0])) is None
    assert rank_correlation(np.array([1.0]), np.array([0.0])) is None


def test_correlations_pool_all_words_and_average_responses_of_three(tmp_path):
    rows = [
        row("great good bad", [3.0, 2.0, 1.0]),  # rho 1
        row("great good bad", [1.0, 2.0, 3.0]),  # rho -1
        row("great film bad", [9.0, 0.0, -9.0]),  # two rated words: none of its own
        row("good good good", [1.0, 2.0, 3.0]),  # one rating: none either
        row("film film", [1.0, 1.0]),
    ]
    found = the_row(tmp_path, rows, LEXICON)
    assert found["words"] == 11
    assert found["rated_responses"] == 2
    assert found["rho_response"] == (0.0, -1.0, 1.0)
    credit = [3, 2, 1, 1, 2, 3, 9, -9, 1, 2, 3]
    ratings = [3, 2, -2.5, 3, 2, -2.5, 3, -2.5, 2, 2, 2]
    assert found["rho"][0] == pytest.approx(stats.spearmanr(credit, ratings).statistic)
    assert found["rho"][1] <= found["rho"][0] <= found["rho"][2]
    assert found["positive"][0] == pytest.approx((3 + 2 + 1 + 2 + 9 + 1 + 2 + 3) / 8)
    assert found["negative_words"][0] == pytest.approx((1 + 3 - 9) / 3)


def test_what_is_not_defined_is_none(tmp_path):
    found = the_row(tmp_path, [row("film", [1.0]), row("good", [1.0])], LEXICON)
    assert found["rho"] is found["rho_response"] is found["negative_words"] is None
    assert found["positive"] == (1.0, 1.0, 1.0)
    assert found["eos"] is None
    nothing = the_row(tmp_path / "other", [row("film", [0.0])], LEXICON)
    assert nothing["words"] == nothing["responses"] == 0
    assert nothing["positive"] is None
    assert math.isnan(nothing["mass"][0])


def test_intervals_are_of_responses_not_of_words(tmp_path):
    """Means of 100 equal words each, 0 in one half of the responses and 1 in the other: a standard error of 1/2 / sqrt 20."""
    rows = [row("good " * 99 + "good", [float(k % 2)] * 100) for k in range(20)]
    value, low, high = the_row(tmp_path, rows, LEXICON)["positive"]
    assert value == 0.5
    assert (high - low) / 2 == pytest.approx(1.96 * 0.5 / 20**0.5, rel=0.2)


def test_files_of_one_response_and_of_many(tmp_path):
    one = write_record(tmp_path / "one", [example_row()])
    assert list(credit_files(one)) == ["credit.html", "figure1.png", "figure1.pdf"]
    many = write_record(tmp_path / "many", [example_row(number=k) for k in range(10)], task="tldr")
    files = credit_files(many)
    assert list(files) == ["credit.html", *STATS]
    assert b"rho, all words" not in files["credit_stats.md"]  # not a reward of sense
    with pytest.raises(ValueError, match="allowed: 0 to 9"):
        credit_files(many, item=10)
