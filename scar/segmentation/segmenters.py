"""Segmenters: from sampled responses to units. They see the content tokens only, never padding or EOS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from scar.interfaces import Parser
from scar.segmentation.chunks import GuardedParser
from scar.segmentation.hierarchies import Nested, hierarchy_of
from scar.segmentation.offsets import token_offsets
from scar.segmentation.text import sentence_offsets, word_offsets
from scar.segmentation.trees import Cut, bounded_hierarchy, check_bounds, cut_tree, join_cuts, least_coalitions
from scar.segmentation.units import TextUnits, token_tree, token_units, units_of_spans
from scar.types import Rollout, Units


@dataclass(frozen=True)
class _Text:
    """The decoded content of one response and the character range of each of its tokens."""

    text: str
    offsets: list[tuple[int, int]]


def _texts(rollout: Rollout, tokenizer: Any) -> list[_Text]:
    lengths = rollout.content_mask.sum(1).tolist()
    rows = rollout.response_ids.tolist()
    return [_Text(*token_offsets(ids[:length], tokenizer)) for ids, length in zip(rows, lengths, strict=True)]


class TokenSegmenter:
    """Each response token except EOS is a player; the hierarchy groups word pieces, words, clauses and sentences.

    With `merge_subwords` each word is a player (`word_offsets`; punctuation counts as words).
    """

    def __init__(self, *, tokenizer: Any, merge_subwords: bool = False) -> None:
        self._tokenizer = tokenizer
        self._merge_subwords = merge_subwords

    def load(self) -> None:
        """Nothing to load."""

    def segment(self, rollout: Rollout) -> Units:
        """Units of every response of the batch."""
        content = rollout.content_mask
        if self._merge_subwords:
            return units_of_spans(content, [_word_units(text) for text in _texts(rollout, self._tokenizer)])
        hierarchies = []
        for ids, mask in zip(rollout.response_ids.tolist(), content.tolist(), strict=True):
            pieces = [self._tokenizer.decode([token]) for token, real in zip(ids, mask, strict=True) if real]
            hierarchies.append(hierarchy_of(token_tree(pieces)))
        return token_units(content, hierarchies)


def _word_units(text: _Text) -> TextUnits:
    starts = [0, *[start for start, _ in word_offsets(text.text)][1:]] if text.text else []
    pieces = [text.text[start:end] for start, end in zip(starts, [*starts[1:], len(text.text)], strict=False)]
    return TextUnits(text.text, text.offsets, starts, hierarchy_of(token_tree(pieces)))


class SpanSegmenter:
    """Constituents are the players (paper 3.4, "span-level"): the cut of `cut_tree` through each sentence's tree.

    The tree above the cut, sentences joined by mid-split, is the hierarchy, of at most `max_units` units and
    `max_coalitions` coalitions (`bounded_hierarchy`). Where `parser` gives no usable tree, or after it has once taken more
    than `timeout_seconds` for a batch, chunks by rules stand in; `diagnostics` has the share of sentences.
    """

    def __init__(
        self,
        *,
        tokenizer: Any,
        parser: Parser,
        max_words: int = 4,
        max_units: int = 12,
        max_coalitions: int = 256,
        timeout_seconds: float = 60.0,
    ) -> None:
        if max_words < 1:
            raise ValueError(f"segmentation.build.max_words={max_words}; allowed: 1 or more")
        check_bounds(max_units=max_units, max_coalitions=max_coalitions)
        self._tokenizer = tokenizer
        self._parser = GuardedParser(parser, timeout_seconds=timeout_seconds)
        self._max_words = max_words
        self._max_units = max_units
        self._max_coalitions = max_coalitions

    def load(self) -> None:
        """Load the parser's model; FileNotFoundError says how to get it. (In `segment` it would become a fallback.)"""
        self._parser.load()

    def segment(self, rollout: Rollout) -> Units:
        """Units of every response of the batch; one call of the parser."""
        texts = _texts(rollout, self._tokenizer)
        places = [_sentence_words(text.text) for text in texts]
        trees, fallbacks = self._parse(texts, places)
        cuts = iter([cut_tree(tree, max_words=self._max_words, max_depth=self._max_units) for tree in trees])
        units = units_of_spans(
            rollout.content_mask,
            [
                self._units(text, sentences, [next(cuts) for _ in sentences])
                for text, sentences in zip(texts, places, strict=True)
            ],
        )
        return replace(units, diagnostics={"scar/parse_fallback_frac": fallbacks / max(len(trees), 1)})

    def trees(self, rollout: Rollout) -> list[list[Any]]:
        """The tree of each sentence of each response, an `nltk.Tree` over its words: what `segment` cuts."""
        texts = _texts(rollout, self._tokenizer)
        places = [_sentence_words(text.text) for text in texts]
        trees = iter(self._parse(texts, places)[0])
        return [[next(trees) for _ in sentences] for sentences in places]

    def _parse(self, texts: list[_Text], places: list[list[list[tuple[int, int]]]]) -> tuple[list[Any], int]:
        """The trees of all sentences, and how many of them are cut by rules."""
        return self._parser.parse(
            [
                [text.text[start:end] for start, end in sentence]
                for text, sentences in zip(texts, places, strict=True)
                for sentence in sentences
            ]
        )

    def _units(self, text: _Text, sentences: list[list[tuple[int, int]]], cuts: list[Cut]) -> TextUnits:
        starts = [words[first][0] for words, cut in zip(sentences, cuts, strict=True) for first in cut.starts]
        return _bounded(text, starts, join_cuts(cuts), self._max_units, self._max_coalitions)


def _sentence_words(text: str) -> list[list[tuple[int, int]]]:
    """The places of the words of each sentence; sentences without a word (white space only) are left out."""
    found = []
    for start, end in sentence_offsets(text):
        words = word_offsets(text[start:end])
        if words:
            found.append([(start + first, start + last) for first, last in words])
    return found


def _bounded(text: _Text, starts: Sequence[int], tree: Nested, max_units: int, max_coalitions: int) -> TextUnits:
    """Units of text that start at `starts` (the first one at 0 in any case), within the bounds."""
    if not text.text:
        return TextUnits("", text.offsets, [], hierarchy_of([]))
    starts = [0, *starts[1:]]
    bounded = bounded_hierarchy(tree, max_units=max_units, max_coalitions=max_coalitions)
    groups = bounded.group.tolist()
    firsts = [start for place, start in enumerate(starts) if place == 0 or groups[place] != groups[place - 1]]
    return TextUnits(text.text, text.offsets, firsts, bounded.hierarchy)


class SentenceSegmenter:
    """Sentences are the players (paper 3.4, "sentence-level"; the rules of `sentence_offsets`), joined by mid-split.

    Above `max_units` sentences neighbours share a unit: the deepest pairs of the mid-split tree, the leftmost first.
    """

    def __init__(self, *, tokenizer: Any, max_units: int = 12) -> None:
        self._tokenizer = tokenizer
        self._max_units = max_units
        self._max_coalitions = least_coalitions(max_units)  # merged, a mid-split tree costs no more than a new one

    def load(self) -> None:
        """Nothing to load."""

    def segment(self, rollout: Rollout) -> Units:
        """Units of every response of the batch."""
        return units_of_spans(rollout.content_mask, [self._units(t) for t in _texts(rollout, self._tokenizer)])

    def _units(self, text: _Text) -> TextUnits:
        starts = [start for start, _ in sentence_offsets(text.text)]
        return _bounded(text, starts, list(range(len(starts))), self._max_units, self._max_coalitions)
