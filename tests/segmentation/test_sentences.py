"""Sentences: a partition of any text, and the rules of where they end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given

from scar.text import sentence_offsets, word_offsets
from tests.segmentation.samples import TEXTS


@given(text=TEXTS)
def test_sentences_partition_the_text(text: str) -> None:
    offsets = sentence_offsets(text)
    assert "".join(text[start:end] for start, end in offsets) == text
    assert [start for start, _ in offsets] == [0, *(end for _, end in offsets)][: len(offsets)]
    if text.strip():
        assert all(text[start:end].strip() for start, end in offsets)
    else:
        assert len(offsets) == (1 if text else 0)


@pytest.mark.parametrize(
    "marked",  # "|" marks where a sentence starts
    [
        "One. |Two! |Three? |Four",
        "One.Two, one. two",  # no space, no capital
        "Really?! |Yes!!! |2 of them. |5",
        # Abbreviations that never, and that may, end a sentence.
        "Dr. Smith and Mrs. Jones, e.g. Bob, i.e. Robert vs. Tom. |They met.",
        "He joined the U.S. Army. |He left the U.S. |He came back.",
        "At 5 p.m. Tom left. |At 6 p.m. |The end. |Ice, fire, etc. |But no.",
        "Acme Inc. Boston paid Bob Jr. twice.",
        "J. R. R. Tolkien and George W. Bush met. |I did too.",
        "See Fig. 3 and No. 5 on Jan. 6. |No. |He said no. |Fig. |Leaf.",
        "Model wears size S. |Fits size. |Plan B. |Vitamin C. |By John S. Smith and my friend J. Smith. |Size L. |(M fits.)",
        # Decimals and versions.
        "It is 3.5 km or .5 or 1,000.00 in v1.2.3. |Nice.",
        "It was 1990. |Then it was 5. |6 came.",
        # Quotes and brackets.
        '"Stop." |"Why?" he asked. |\'No.\' |"I said no!" she said.',
        "\u201cHi.\u201d |\u201cYo.\u201d |(Both left.) |[They did.] |\u00abOui.\u00bb |Non.",
        "He left (at 5 p.m.). |She stayed.",
        "\u201eHallo.\u201c |\u201eWer da?\u201c fragte er. |Er sagte: \u201eIch gehe.\u201c |Dann ging er.",
        "\u00bbJa.\u00ab |Nein. |\u00bbSo!\u00ab |5",
        "\u201aGut.\u2018 |\u201eSo!\u201c |5 kamen. |\u2039Ja.\u203a |\u203aNein.\u2039 |Gut.",
        "It is **bold.** |Next.",
        # Ellipses.
        "Well... |I see. wait... what? no. . . |So\u2026 |Yes\u2026 maybe.",
        # Texts without capitalised words.
        "ok. |lol. |yes",
        "i live in the u.s. and i like it.",
        "up at 5 a.m. in the rain. |then home",
        "omg!! |it was on TV. |i liked it, e.g. the end... but why? |mr. smith left the u.s. |he did\n|no. 5 at 3.5 km. |(so",
        "the film of mr . schnitzler ( u . s . ) is good . |it . . . drags , well ... a bit . |who knows ?",
        "Mr . Smith left . |He did . . . |Well",
        "i liked it. |My mom did. not",  # one of them makes it another text
        # Lists and line ends.
        "Do this:\n|1. Go home. |Then eat.\n|2. Sleep.\n|- a\n|- b. c\n\n|* d",
        "Steps: 1. Go. |2. Eat. |(3) Run. |A. first. |IV. Fourth",
        "a\r\n|b\r|c\u2028|d\n \t\n|e",
        "\n  \nFirst\n|Second",
        # Scripts without case or without spaces.
        "\u4f60\u597d\u3002|\u518d\u89c1\uff01|\u597d",
        "\u05e9\u05dc\u05d5\u05dd. |\u05db\u05df.",
        # Unfinished ends.
        "He went. |And then he",
        "He went. |And then \u201c",
        "no ending at all",
        "trailing space. ",
        "...",
        "",
        "  ",
    ],
)
def test_sentences_by_hand(marked: str) -> None:
    text = marked.replace("|", "")
    assert [text[start:end] for start, end in sentence_offsets(text)] == (marked.split("|") if marked else [])


LONG = [
    *"!.?\u2026\"')(1 xA\u3002\n",
    *(
        "! ",
        '!"',
        '." ',
        "A.",
        "A. ",
        "a. ",
        "X.b",
        "mr. ",
        "no. ",
        "1. ",
        ": 1. ",
        ". . ",
        "size S. ",
        "n't",
        "ll'",
        "U.S. ",
    ),
    *("\u201eA.\u201c ", "http://", "a-", "e\u0301", "\u3002\u201d", "(A", "x" * 50 + ". "),
]


@pytest.mark.parametrize("piece", LONG, ids=repr)
@pytest.mark.parametrize("split", [sentence_offsets, word_offsets])
def test_long_runs_take_no_time(split: Callable[[str], list[tuple[int, int]]], piece: str) -> None:
    """100,000 characters: work in the square of that would take half an hour; in proportion to it, a second."""
    assert split((piece * 100_000)[:100_000] + "b")
