"""The parser by rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.tree import Tree

from scar.segmentation.chunks import ChunkParser, clauses
from scar.segmentation.trees import cut_trees

SPECIAL = [
    "the",
    "that",
    "was",
    "in",
    "(",
    ")",
    ",",
    ".",
    '"',
    "\u201c",
    "\u2019",
    "and",
    "n't",
    "'s",
    "$",
    "5",
    "\ufffd",
]
WORDS = st.lists(st.one_of(st.sampled_from(SPECIAL), st.text(min_size=1, max_size=3)), max_size=40)


def chunked(text: str) -> str:
    """Chunks between bars, clauses between double bars."""
    return " || ".join(" | ".join(map(" ".join, clause)) for clause in clauses(text.split(), 4))


@pytest.mark.parametrize(
    "text",
    [
        "the acting | was really good",
        "I | have been in the | house || and I liked it",  # a row of function words opens one chunk, of up to four words
        "the man | who lives | in the house",
        "one two three four | five six",  # at most four words
        "one two three four , || five",  # and the mark that closes them
        "well , || she said : || yes . || No",
        "it | was good | ( as I said ) || so far",
        "it costs $ 5 | for one",  # a sign is no mark
        "she | 'll come",
        "word",
        ". . .",
        "",
    ],
)
def test_chunks_by_hand(text: str) -> None:
    plain = " ".join(word for word in text.split() if word not in ("|", "||"))
    assert chunked(plain) == text


def test_the_tree_of_chunks_by_hand() -> None:
    words = "the acting was good , but the plot was thin ."
    (tree,) = ChunkParser().parse([words.split()])
    assert isinstance(tree, Tree)
    expected = (
        "(S (CL (CH (W the) (W acting)) (CH (W was) (W good) (W ,)))"
        " (CL (CH (W but) (W the) (W plot)) (CH (W was) (W thin) (W .))))"
    )
    assert tree == Tree.fromstring(expected)
    found = cut_trees([tree], max_words=4)  # the first clause has four words
    assert (found.starts, found.tree) == ([0, 5, 8], [0, [1, 2]])


@given(sentences=st.lists(WORDS, max_size=4), max_words=st.integers(1, 6))
def test_chunks_take_anything(sentences: list[list[str]], max_words: int) -> None:
    trees = ChunkParser(max_words).parse(sentences)
    assert [tree.leaves() for tree in trees] == sentences
    for words in sentences:
        for clause in clauses(words, max_words):
            for chunk in clause:
                assert sum(any(c.isalnum() for c in word) for word in chunk) <= max_words
                assert 0 < len(chunk) <= 3 * max_words
