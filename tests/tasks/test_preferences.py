"""Constructed preference pairs: each kind is what its name says, drawn from the rows given, with length not deciding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scar.supervised.distractors import (
    answer_distractors,
    blanked,
    cut_together,
    length_shares,
    looped,
    pairs,
    repeated_sentence,
    shuffled_sentences,
    shuffled_words,
    summary_distractors,
)

WORDS = st.text("abc ", min_size=1).map(lambda text: " ".join(text.split()) or "a")
SUMMARY_KINDS = ("other_same", "other_opposite", "sentence", "lead", "shuffled", "repeated", "chant", "cut")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def summary_rows(count: int = 40) -> pd.DataFrame:
    """Rows whose summary and post name their number; even rows are positive."""
    rows = []
    for i in range(count):
        post = " ".join(f"Scene {j} of film {i} shows a man who walks home." for j in range(12))
        rows.append((post, f"Film {i} is a work that {' '.join(['surely'] * (i % 7))} pleases me.", (i + 1) % 2))
    return pd.DataFrame(rows, columns=["post", "summary", "label"])


def drawn(kind: str, rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    return pairs(rows["summary"], summary_distractors(rows), {kind: 1.0}, generator=rng(seed))


def number(text: str) -> int:
    """The film's number in a summary."""
    return int(text.split()[1])


@pytest.mark.parametrize("kind", SUMMARY_KINDS)
def test_every_kind_gives_the_own_summary_over_another_text_and_repeats(kind: str) -> None:
    rows = summary_rows()
    got = drawn(kind, rows)
    assert got["chosen"].tolist() == rows["summary"][got["row"]].tolist()
    assert (got["chosen"] != got["rejected"]).all()
    assert len(got) >= 30
    pd.testing.assert_frame_equal(got, drawn(kind, rows))
    assert kind == "lead" or not got.equals(drawn(kind, rows, seed=1))


@pytest.mark.parametrize(("kind", "same"), [("other_same", True), ("other_opposite", False)])
def test_other_summaries_have_the_right_sentiment_and_are_as_often_longer_as_shorter(kind: str, same: bool) -> None:
    rows = summary_rows()
    got = drawn(kind, rows)
    others = got["rejected"].map(number)
    assert ((others % 2 == got["row"] % 2) == same).all()
    assert (others != got["row"]).all()
    many = pd.concat([drawn(kind, rows, seed) for seed in range(20)])
    shares = length_shares(many["chosen"].str.split().str.len(), many["rejected"].str.split().str.len())
    assert shares["longer"] == pytest.approx(shares["shorter"], abs=0.08)


def test_excerpts_are_whole_consecutive_sentences_of_the_post() -> None:
    rows = summary_rows()
    lead = drawn("lead", rows)
    assert all(
        text.startswith(f"Scene 0 of film {row} ") for row, text in zip(lead["row"], lead["rejected"], strict=True)
    )
    anywhere = drawn("sentence", rows)
    assert all(text in rows["post"][row] for row, text in zip(anywhere["row"], anywhere["rejected"], strict=True))
    assert len({text.split()[1] for text in anywhere["rejected"]}) > 4


def test_cut_stops_a_longer_summary_in_mid_sentence_at_the_own_length() -> None:
    got = drawn("cut", summary_rows())
    for row, chosen, rejected in zip(got["row"], got["chosen"], got["rejected"], strict=True):
        assert len(chosen.split()) == len(rejected.split())
        assert rejected[-1] not in ".!?"
        assert number(rejected) % 2 == row % 2


def test_kinds_follow_their_weights_and_the_pairs_of_a_row_differ() -> None:
    rows = summary_rows(600)
    distractors = summary_distractors(rows)
    got = pairs(rows["summary"], distractors, {"lead": 3.0, "shuffled": 1.0, "cut": 0.0}, generator=rng())
    shares = got["kind"].value_counts(normalize=True).to_dict()
    assert shares == {"lead": pytest.approx(0.75, abs=0.06), "shuffled": pytest.approx(0.25, abs=0.06)}
    several = pairs(rows["summary"], distractors, dict.fromkeys(SUMMARY_KINDS, 1.0), per_row=3, generator=rng())
    assert several["row"].tolist() == [row for row in range(600) for _ in range(3)]
    assert (several.groupby("row")["rejected"].nunique() == 3).all()
    others = pairs(rows["summary"], distractors, {"other_opposite": 1.0}, per_row=3, generator=rng())
    assert others["row"].tolist() == several["row"].tolist()  # one kind gives several texts


def test_row_of_which_a_kind_cannot_be_made_gets_another_or_none() -> None:
    rows = pd.DataFrame({"turn": ["a", "b"], "answer": ["One sentence only.", "Two of them. Here."]})
    distractors = answer_distractors(rows)
    both = pairs(rows["answer"], distractors, {"sentences_shuffled": 1.0, "other": 4.0}, generator=rng())
    assert both["kind"][0] == "other"
    alone = pairs(rows["answer"], distractors, {"sentences_shuffled": 1.0}, generator=rng(1))
    assert set(alone["row"]) <= {1}


@pytest.mark.parametrize(
    ("weights", "per_row", "message"),
    [
        ({"lead": 1.0, "leed": 1.0}, 1, r"'leed'.*allowed: other_same, other_opposite, sentence"),
        ({"lead": -1.0, "cut": 2.0}, 1, r"weights 0 or more"),
        ({"lead": 0.0}, 1, r"not all 0"),
        ({}, 1, r"not all 0"),
        ({"lead": 1.0, "cut": 0.0}, 0, r"per_row=0; allowed: 1 or more"),
    ],
)
def test_wrong_kinds_say_what_is_allowed(weights: dict[str, float], per_row: int, message: str) -> None:
    rows = summary_rows(4)
    with pytest.raises(ValueError, match=message):
        pairs(rows["summary"], summary_distractors(rows), weights, per_row=per_row, generator=rng())


@given(text=WORDS, seed=st.integers(0, 99))
@pytest.mark.parametrize("corrupt", [shuffled_words, looped])
def test_corrupted_texts_keep_the_word_count_and_add_no_word(
    corrupt: Callable[[str, np.random.Generator], str], text: str, seed: int
) -> None:
    got, words = corrupt(text, rng(seed)).split(), text.split()
    assert len(got) == len(words)
    assert set(got) <= set(words)
    assert corrupt is looped or Counter(got) == Counter(words)


def test_looped_text_is_a_beginning_and_then_a_phrase_again_and_again() -> None:
    words = [f"w{i}" for i in range(40)]
    for seed in range(20):
        got = looped(" ".join(words), rng(seed)).split()
        first = next(i for i in range(40) if got[i] != words[i])
        start = words.index(got[first])
        period = first - start
        assert 1 <= period <= 6
        assert start < 20
        assert got[start:] == [words[start + i % period] for i in range(40 - start)]


def test_sentences_are_shuffled_whole_over_lines() -> None:
    text = "First one. Second one!\n\n- Third\n- Fourth"
    got = shuffled_sentences(text, rng(3))
    assert got is not None
    assert got != text
    assert sorted(got.replace("First one.", "First_one.").replace("Second one!", "Second_one!").split()) == sorted(
        ["First_one.", "Second_one!", "-", "Third", "-", "Fourth"]
    )
    assert "- Third\n" in got  # a line keeps its break
    assert shuffled_sentences("Only one.", rng()) is None


def test_repeated_sentence_keeps_the_length_and_only_the_beginning() -> None:
    text = "One two three. Four five. Six seven eight nine. Ten eleven."
    seen = {repeated_sentence(text, rng(seed)) for seed in range(30)}
    assert seen == {
        "One two three. One two three. One two three. One two",
        "One two three. Four five. Four five. Four five. Four five.",
        "One two three. Four five. Six seven eight nine. Six seven",
    }
    assert repeated_sentence("Only one.", rng()) is None


def test_chant_is_a_phrase_of_another_summary_again_and_again() -> None:
    rows = pd.DataFrame({"turn": ["a", "b"], "answer": ["One two three four five six.", "a b, c d"]})
    seen = set()
    for seed in range(60):
        got = pairs(rows["answer"], answer_distractors(rows), {"chant": 1.0}, generator=rng(seed))
        seen.add(got["rejected"][0])
    assert {"a a a a a a", ",,,,,,"} <= seen  # six words or marks, as the own answer has six words
    assert "b, b, b," in seen
    assert all(set(text) <= set("abcd, ") for text in seen)


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4), one=st.booleans(), seed=st.integers(0, 99))
def test_rows_are_cut_to_the_lengths_asked_for(lengths: list[int], one: bool, seed: int) -> None:
    rows = [range(100 * i, 100 * i + length) for i, length in enumerate(lengths)]
    got = cut_together(rows, min_tokens=4, max_tokens=16, one_length=one, generator=rng(seed))
    assert all(cut == list(row[: len(cut)]) for cut, row in zip(got, rows, strict=True))
    assert all(min(4, length) <= len(cut) <= 16 for cut, length in zip(got, lengths, strict=True) if not one)
    if one:
        assert {len(cut) for cut in got} == {len(got[0])}
        assert min(4, *lengths) <= len(got[0]) <= min(16, *lengths)


@given(length=st.integers(1, 60), fraction=st.floats(0, 1), seed=st.integers(0, 99))
def test_blanking_sets_exactly_the_fraction_to_the_space_token(length: int, fraction: float, seed: int) -> None:
    row = list(range(1, length + 1))
    got = blanked(row, fraction, space_id=0, generator=rng(seed))
    assert got.count(0) == int(fraction * length)
    assert all(token in (0, own) for token, own in zip(got, row, strict=True))
    assert row == list(range(1, length + 1))
