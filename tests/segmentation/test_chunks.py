"""The parser by rules, and the guard around parsers that fail."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.tree import Tree

from scar.segmentation.chunks import ChunkParser, GuardedParser, clauses
from scar.segmentation.trees import cut_tree
from tests.builders import property_test
from tests.segmentation.samples import FunctionParser

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
    found = cut_tree(tree, max_words=4, max_depth=12)
    assert (found.starts, found.tree) == ([0, 2, 5, 8], [[0, 1], [2, 3]])


@property_test
@given(sentences=st.lists(WORDS, max_size=4), max_words=st.integers(1, 6))
def test_chunks_take_anything(sentences: list[list[str]], max_words: int) -> None:
    trees = ChunkParser(max_words).parse(sentences)
    assert [tree.leaves() for tree in trees] == sentences
    for words in sentences:
        for clause in clauses(words, max_words):
            for chunk in clause:
                assert sum(any(c.isalnum() for c in word) for word in chunk) <= max_words
                assert 0 < len(chunk) <= 3 * max_words


def test_chunk_length_is_checked() -> None:
    with pytest.raises(ValueError, match="max_words=0"):
        ChunkParser(0)


# The guard.

SENTENCES = [["a", "b"], ["c"], ["d", "e", "f"]]


def flat(words: Sequence[str]) -> Tree:
    return Tree("GOOD", list(words))


def labels(trees: Sequence[Tree]) -> list[str]:
    return [tree.label() for tree in trees]


def guarded(parser: Any, timeout_seconds: float = 60.0) -> GuardedParser:
    return GuardedParser(parser, timeout_seconds=timeout_seconds)


def test_a_good_parser_is_asked_once_and_believed(caplog: pytest.LogCaptureFixture) -> None:
    parser = FunctionParser(flat)
    trees, fallbacks = guarded(parser).parse(SENTENCES)
    assert labels(trees) == ["GOOD"] * 3
    assert fallbacks == 0
    assert parser.batches == [SENTENCES]
    assert caplog.records == []


def test_no_sentences_ask_nothing() -> None:
    parser = FunctionParser(flat)
    assert guarded(parser).parse([]) == ([], 0)
    assert parser.batches == []


def test_other_words_are_no_problem() -> None:
    trees, fallbacks = guarded(FunctionParser(lambda words: Tree("GOOD", ["-LRB-"] * len(words)))).parse(SENTENCES)
    assert labels(trees) == ["GOOD"] * 3
    assert fallbacks == 0


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda words: None, "no tree for a sentence"),
        (lambda words: Tree("BAD", [*words, "more"]), "2 words for 1"),
        (lambda words: Tree("BAD", []), "0 words for 1"),
        (lambda words: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_bad_sentence_gets_chunks_and_one_warning(bad: Any, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    parser = guarded(FunctionParser(lambda words: bad(words) if words == ["c"] else flat(words)))
    for _ in range(3):
        trees, fallbacks = parser.parse(SENTENCES)
        assert labels(trees) == ["GOOD", "S", "GOOD"]
        assert trees[1].leaves() == ["c"]
        assert fallbacks == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert reason in record.getMessage()


class Stubborn:
    """Answers every batch with the same thing."""

    name = "stubborn"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [RuntimeError("no model"), None, [], [flat(["a", "b"])], 5])
def test_a_bad_batch_gets_chunks_and_one_warning(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    parser = guarded(Stubborn(answer))
    for _ in range(2):
        trees, fallbacks = parser.parse(SENTENCES)
        assert [tree.leaves() for tree in trees] == SENTENCES
        assert fallbacks == 3
    assert len(caplog.records) == 1


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()  # lets the hung thread end


def test_a_hanging_parser_is_given_up_for_good(release: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())
    hanging = FunctionParser(lambda words: release.wait(60))
    parser = guarded(hanging, timeout_seconds=0.05)
    start = time.perf_counter()
    for _ in range(4):
        trees, fallbacks = parser.parse(SENTENCES)
        assert labels(trees) == ["S"] * 3
        assert fallbacks == 3
    assert time.perf_counter() - start < 30  # does not wait for the thread
    assert len(hanging.batches) == 1  # nor asks again
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert len(left) == 1
    assert left[0].daemon  # the process can end
    (record,) = caplog.records
    assert "did not answer within 0.05 s" in record.getMessage()
    assert "from here on" in record.getMessage()


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_the_time_limit_is_checked(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout_seconds"):
        guarded(FunctionParser(flat), timeout)
