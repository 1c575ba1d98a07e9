"""Words: every character that is no white space in exactly one, whatever the text; close to the Penn Treebank."""

from __future__ import annotations

import pytest
from hypothesis import given

from scar.text import word_offsets
from tests.segmentation.samples import TEXTS

ASTRONAUT, FLAG = "\U0001f469\U0001f3fd\u200d\U0001f680", "\U0001f1fa\U0001f1f8"


def words_of(text: str) -> list[str]:
    return [text[start:end] for start, end in word_offsets(text)]


@given(text=TEXTS)
def test_words_hold_every_character_but_white_space_once(text: str) -> None:
    offsets = word_offsets(text)
    covered = [place for start, end in offsets for place in range(start, end)]
    assert covered == [place for place, character in enumerate(text) if not character.isspace()]
    assert all(start < end for start, end in offsets)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don't.", ["I", "do", "n't", "."]),
        ("it\u2019s can't won't shouldn't've", ["it", "\u2019s", "ca", "n't", "wo", "n't", "should", "n't", "'ve"]),
        ("I CAN'T, you'll see", ["I", "CA", "N'T", ",", "you", "'ll", "see"]),
        ("cannot gonna", ["can", "not", "gon", "na"]),
        ("the dogs' bowl, O'Brien's", ["the", "dogs", "'", "bowl", ",", "O'Brien", "'s"]),
        ("'s n't", ["'s", "n't"]),
        ("well-known and/or AT&T", ["well-known", "and/or", "AT&T"]),
        ("Dr. J. Smith of the U.S. (e.g. me)", ["Dr.", "J.", "Smith", "of", "the", "U.S.", "(", "e.g.", "me", ")"]),
        ("drama. drew.", ["drama", ".", "drew", "."]),  # neither starts with an abbreviation
        ("$3.50 is 3,000 % v1.2.3.", ["$", "3.50", "is", "3,000", "%", "v1.2.3", "."]),
        ("end.Next word,word 10:30:", ["end", ".", "Next", "word", ",", "word", "10:30", ":"]),
        ("wait...what?! no -- yes--no!!!", ["wait", "...", "what", "?!", "no", "--", "yes", "--", "no", "!!!"]),
        ('"Hi," he said.', ['"', "Hi", ",", '"', "he", "said", "."]),
        ("see http://a.org/b?c=1, or", ["see", "http://a.org/b?c=1", ",", "or"]),
        ("r/aww TL;DR", ["r/aww", "TL", ";", "DR"]),
        ("cafe\u0301s na\u00efve", ["cafe\u0301s", "na\u00efve"]),
        (f"{ASTRONAUT}ok {FLAG}!", [ASTRONAUT, "ok", FLAG, "!"]),
        ("a\ufffd\ufffdb", ["a", "\ufffd\ufffd", "b"]),
        ("a\r\n\u00a0b", ["a", "b"]),
        ("", []),
        (" \n", []),
    ],
)  # fmt: skip
def test_words_by_hand(text: str, words: list[str]) -> None:
    assert words_of(text) == words
