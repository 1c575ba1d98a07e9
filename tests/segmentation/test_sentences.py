"""Sentences: a partition of any text, and the rules of where they end."""

from __future__ import annotations

import pytest
from hypothesis import given

from scar.text import sentence_offsets
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
        # Decimals and versions.
        "It is 3.5 km or .5 or 1,000.00 in v1.2.3. |Nice.",
        "It was 1990. |Then it was 5. |6 came.",
        # Quotes and brackets.
        '"Stop." |"Why?" he asked. |\'No.\' |"I said no!" she said.',
        "\u201cHi.\u201d |\u201cYo.\u201d |(Both left.) |[They did.] |\u00abOui.\u00bb |Non.",
        "He left (at 5 p.m.). |She stayed.",
        "It is **bold.** |Next.",
        # Ellipses.
        "Well... |I see. wait... what? no. . . |So\u2026 |Yes\u2026 maybe.",
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
