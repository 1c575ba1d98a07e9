"""Units of words, constituents and sentences: partition, bounds and independence on any text; by hand on some."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.tree import Tree

from scar.interfaces import Segmenter
from scar.segmentation.chunks import ChunkParser
from scar.segmentation.hierarchies import coalition_count, hierarchy_of
from scar.segmentation.segmenters import (
    PunctuationSegmenter,
    SentenceSegmenter,
    SpanSegmenter,
    TokenSegmenter,
    parse_in_time,
)
from scar.types import Rollout, Units
from tests.builders import rollout_of
from tests.segmentation.samples import (
    IDS,
    FunctionParser,
    byte_tokenizer,
    encode,
    left_branching,
    right_branching,
)
from tests.segmentation.test_segmenters import check_units

CHUNKS = ChunkParser()


def chunk_tree(words: Sequence[str]) -> Tree:
    return CHUNKS.parse([words])[0]


def span_segmenter(parse: Callable[[Sequence[str]], Any] = chunk_tree, **settings: Any) -> SpanSegmenter:
    return SpanSegmenter(tokenizer=byte_tokenizer(), parser=FunctionParser(parse), **settings)


SEGMENTERS: dict[str, Callable[[], Segmenter]] = {
    "word": lambda: TokenSegmenter(tokenizer=byte_tokenizer(), merge_subwords=True),
    "sentence": lambda: SentenceSegmenter(tokenizer=byte_tokenizer()),
    "two sentences": lambda: SentenceSegmenter(tokenizer=byte_tokenizer(), max_units=2),
    "punctuation": lambda: PunctuationSegmenter(tokenizer=byte_tokenizer()),
    "few marks": lambda: PunctuationSegmenter(tokenizer=byte_tokenizer(), max_units=3, max_coalitions=8),
    "chunks": span_segmenter,
    "right": functools.partial(span_segmenter, right_branching, max_words=1),
    "left": functools.partial(span_segmenter, left_branching, max_words=2, max_units=5, max_coalitions=20),
}
LIMITS = {name: (16, 256) for name in ("chunks", "right", "punctuation")}
LIMITS |= {"few marks": (3, 8), "sentence": (12, 108), "two sentences": (2, 4), "left": (5, 20)}

RESPONSES = st.lists(
    st.tuples(IDS, st.booleans()).filter(lambda response: response[0] or response[1]), min_size=1, max_size=3
)


def texts_of(units: Units, rollout: Rollout, row: int = 0) -> list[str]:
    """The text of each unit, without the spaces around it."""
    ids, index = rollout.response_ids[row], units.unit_index[row]
    return [byte_tokenizer().decode(ids[index == unit].tolist()).strip() for unit in range(int(units.count[row]))]


def bytewise(text: str) -> list[int]:
    """Tokens of one character each, so that no token spans a border."""
    return [token for character in text for token in encode(character)]


def segment(segmenter: Segmenter, text: str) -> tuple[list[str], Units]:
    rollout = rollout_of([encode(text)], [True])
    units = segmenter.segment(rollout)
    check_units(units, rollout)
    return texts_of(units, rollout), units


@pytest.mark.parametrize("name", SEGMENTERS)
@given(responses=RESPONSES, padding=st.integers(0, 2))
def test_units_partition_every_response_within_bounds(
    name: str, responses: list[tuple[list[int], bool]], padding: int
) -> None:
    rollout = rollout_of([ids for ids, _ in responses], [done for _, done in responses], response_padding=padding)
    segmenter = SEGMENTERS[name]()
    units = segmenter.segment(rollout)
    check_units(units, rollout)
    for (ids, _), count, hierarchy in zip(responses, units.count.tolist(), units.hierarchies, strict=True):
        assert (count > 0) == bool(ids)
        if not byte_tokenizer().decode(ids).strip():
            assert count <= 1
        if name in LIMITS:
            assert count <= LIMITS[name][0]
            assert coalition_count(hierarchy) <= LIMITS[name][1]
    # The rest of the batch, and padding, change nothing.
    for row, (ids, done) in enumerate(responses):
        alone = segmenter.segment(rollout_of([ids], [done]))
        count = int(alone.count[0])
        assert alone.unit_index[0].tolist() == units.unit_index[row, : alone.unit_index.shape[1]].tolist()
        assert alone.end_step[0].tolist() == units.end_step[row, :count].tolist()
        assert alone.hierarchies[0].tolist() == units.hierarchies[row].tolist()


def test_words_are_players_by_hand() -> None:
    pieces, units = segment(SEGMENTERS["word"](), "Dr. Smith doesn't, caf\u00e9 \U0001f600!\nNo")
    assert pieces == ["Dr.", "Smith", "does", "n't", ",", "caf\u00e9", "\U0001f600", "!", "No"]
    # Sentence ends behind "Dr." and the line end, a clause end behind the comma; "does" and "n't" are nearest.
    assert units.hierarchies[0].tolist() == hierarchy_of([0, [[1, [2, 3], 4], [5, 6, 7]], 8]).tolist()


def test_sentences_are_players_by_hand() -> None:
    pieces, units = segment(SEGMENTERS["sentence"](), "Dr. No left. He won!\n\nDid he? Not yet; 3.5 km and")
    assert pieces == ["Dr. No left.", "He won!", "Did he?", "Not yet; 3.5 km and"]
    assert units.hierarchies[0].tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("marked", "tree"),
    [
        ("I won,| but he; |she did.| Why?|!| So it", [[0, 1, 2], 3, 4, 5]),
        ("3.|5 km, |i.|e.| far.|.|.", [0, [1, 2], 3, 4, 5, 6]),
        (" , |a: b\n", [0, 1]),
        ("no mark at all. \n", 0),
        ("!", 0),
        (" \n", 0),
    ],
)
def test_marks_cut_by_hand(marked: str, tree: Any) -> None:
    text = marked.replace("|", "")
    segmenter = SEGMENTERS["punctuation"]()
    rollout = rollout_of([bytewise(text)], [True])
    units = segmenter.segment(rollout)
    check_units(units, rollout)
    assert texts_of(units, rollout) == [piece.strip() for piece in marked.split("|")]
    assert units.hierarchies[0].tolist() == hierarchy_of(tree).tolist()


FILM = "I love this movie because the acting was really superb. Watch it (now)!"
FILM_TREES = {
    11: "(S (NP (PRP I)) (VP (VBP love) (NP (DT this) (NN movie)) (SBAR (IN because) (S (NP (DT the) (NN acting))"
    " (VP (VBD was) (ADJP (RB really) (JJ superb)))))) (. .))",
    6: "(S (VP (VB Watch) (NP (PRP it))) (PRN (-LRB- -LRB-) (RB now) (-RRB- -RRB-)) (. !))",
}


def test_constituents_are_players_by_hand() -> None:
    segmenter = span_segmenter(lambda words: Tree.fromstring(FILM_TREES[len(words)]))
    pieces, units = segment(segmenter, FILM)
    assert pieces == ["I love this movie", "because the acting", "was really superb.", "Watch it (now)!"]
    # First sentence (0 (1 2)), then the second.
    assert units.hierarchies[0].tolist() == [[1, 2], [0, 4], [5, 3]]
    assert units.diagnostics == {"scar/words_per_unit_mean": 13 / 4, "scar/units_over_cap_frac": 0}


def test_long_units_are_counted_by_hand() -> None:
    # Every word of a sentence in one node: units of 10 and 3 words, with at most two units after merging.
    segmenter = span_segmenter(lambda words: Tree("S", list(words)), max_units=2, max_coalitions=4)
    text = "I love this movie because the acting was really superb. Watch it (now)!"
    assert segment(segmenter, text)[1].diagnostics == {
        "scar/words_per_unit_mean": 6.5,
        "scar/units_over_cap_frac": 0.5,
    }
    # Three sentences of 5, 3 and 2 words: the first two, the deeper pair of the mid-split, share a unit of 8.
    rollout = rollout_of([encode("One two three four five. I do not. Ok then!"), [], encode("Yes. . .")], [True] * 3)
    units = segmenter.segment(rollout)
    assert units.count.tolist() == [2, 0, 1]
    assert units.diagnostics == {"scar/words_per_unit_mean": 11 / 3, "scar/units_over_cap_frac": 1 / 3}
    # Five words are one over the cap and not counted.
    assert segment(segmenter, "One two three four five.")[1].diagnostics["scar/units_over_cap_frac"] == 0


def test_a_batch_without_units_has_diagnostics() -> None:
    units = span_segmenter().segment(rollout_of([[]], [True]))
    assert units.diagnostics == {"scar/words_per_unit_mean": 0, "scar/units_over_cap_frac": 0}


def test_all_sentences_of_a_batch_are_one_call() -> None:
    parser = FunctionParser(chunk_tree)
    segmenter = SpanSegmenter(tokenizer=byte_tokenizer(), parser=parser)
    rollout = rollout_of([encode("It is. He didn't"), [], encode(" \n"), encode("Yes")], [True, True, True, False])
    units = segmenter.segment(rollout)
    check_units(units, rollout)
    assert parser.batches == [[["It", "is", "."], ["He", "did", "n't"], ["Yes"]]]
    assert units.count.tolist() == [2, 0, 1, 1]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (lambda words: None, "no tree"),
        (lambda words: Tree("S", ["one"]), "a tree of 1 words for 6"),
        (lambda words: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_sentence_without_a_tree_ends_in_one_line(bad: Any, problem: str) -> None:
    segmenter = span_segmenter(lambda words: bad(words) if len(words) == 6 else Tree.fromstring(FILM_TREES[len(words)]))
    with pytest.raises(ValueError, match="cannot parse") as caught:
        segment(segmenter, FILM)
    parser = "parser=function cannot parse"
    assert str(caught.value) == (
        f'{parser} "Watch it ( now ) !" ({problem}); choose another parser (parser=chunk takes any text)'
    )


def test_another_number_of_trees_ends_in_one_line() -> None:
    parser = SimpleNamespace(name="lazy", parse=lambda sentences: [])
    with pytest.raises(
        ValueError, match=r'parser=lazy cannot parse "a b \.\.\. \(2 sentences\)" \(0 trees for 2 sentences\)'
    ):
        parse_in_time(parser, [["a", "b"], ["c"]], timeout_seconds=60)


def test_a_parser_that_hangs_ends_in_one_line() -> None:
    release = threading.Event()
    parser = SimpleNamespace(name="slow", parse=lambda sentences: release.wait(60))
    with pytest.raises(
        TimeoutError, match=r'slow took more than 0\.05 s for 2 sentences, the longest of them "a b"; raise seg'
    ):
        parse_in_time(parser, [["c"], ["a", "b"]], timeout_seconds=0.05)
    release.set()  # lets the thread end


def test_a_batch_without_sentences_asks_no_parser() -> None:
    rollout = rollout_of([[], encode("  \n")], [True, False])
    assert span_segmenter(lambda words: 1 / 0).segment(rollout).count.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "backward"}, "segmentation.rule=backward; allowed: forward"),
        ({"max_words": 0}, "max_words=0"),
        ({"max_units": 1}, "max_units=1"),
        ({"max_coalitions": 100}, "max_coalitions=100"),
        ({"timeout_seconds": 0}, "timeout_seconds=0"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        span_segmenter(**settings)
    if "max_units" in settings:
        with pytest.raises(ValueError, match=message):
            SentenceSegmenter(tokenizer=byte_tokenizer(), **settings)
