"""Segmenters: from sampled responses to units. They see the content tokens only, never padding or EOS."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

from scar.interfaces import Parser
from scar.segmentation.hierarchies import Nested, hierarchy_of
from scar.segmentation.offsets import token_offsets
from scar.segmentation.trees import (
    bounded_hierarchy,
    check_bounds,
    cut_trees,
    least_coalitions,
    word_count,
)
from scar.segmentation.units import TextUnits, token_tree, token_units, units_of_spans
from scar.text import is_mark, sentence_offsets, word_offsets
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

    name: ClassVar[str] = "token"

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
        pieces = [[t.text[start:end] for start, end in t.offsets] for t in _texts(rollout, self._tokenizer)]
        return token_units(content, [hierarchy_of(token_tree(response)) for response in pieces])


def _word_units(text: _Text) -> TextUnits:
    starts = [0, *[start for start, _ in word_offsets(text.text)][1:]] if text.text else []
    pieces = [text.text[start:end] for start, end in zip(starts, [*starts[1:], len(text.text)], strict=False)]
    return TextUnits(text.text, text.offsets, starts, hierarchy_of(token_tree(pieces)))


Rule = Literal["forward"]
"""How constituents become units. Records without a rule have the first one, by which loose words joined the unit before
(docs/decisions.md#spans)."""
SentenceRule = Literal["any_case"]
"""How sentences end. Records without a rule have the first one, which no small letter followed (docs/decisions.md#sentences)."""


class SpanSegmenter:
    """Constituents are the players (paper 3.4, "span-level"): the cut of `cut_trees` through each sentence's tree.

    The tree above the cut, sentences joined by mid-split, is the hierarchy, of at most `max_units` units and
    `max_coalitions` coalitions (`bounded_hierarchy`). A sentence of which `parser` gives no usable tree, and a batch for
    which it takes more than `timeout_seconds`, are errors: other units would be other credit. `rule` has one value; it
    is there to name the units in a run's record.
    """

    name: ClassVar[str] = "span"

    def __init__(
        self,
        *,
        tokenizer: Any,
        parser: Parser,
        rule: Rule = "forward",
        max_words: int = 4,
        max_units: int = 16,
        max_coalitions: int = 256,
        timeout_seconds: float = 60.0,
    ) -> None:
        if rule not in get_args(Rule):
            raise ValueError(f"segmentation.rule={rule}; allowed: {', '.join(get_args(Rule))}")
        if max_words < 1:
            raise ValueError(f"segmentation.max_words={max_words}; allowed: 1 or more")
        if not timeout_seconds > 0:
            raise ValueError(f"segmentation.timeout_seconds={timeout_seconds}; allowed: a number above 0")
        check_bounds(max_units=max_units, max_coalitions=max_coalitions)
        self._tokenizer = tokenizer
        self._parser = parser
        self._timeout_seconds = timeout_seconds
        self._max_words = max_words
        self._max_units = max_units
        self._max_coalitions = max_coalitions

    def load(self) -> None:
        """Load the parser's model; FileNotFoundError says how to get it."""
        self._parser.load()

    def segment(self, rollout: Rollout) -> Units:
        """Units of every response of the batch; one call of the parser. Diagnostics: `scar/words_per_unit_mean`, words that
        are no marks, and `scar/units_over_cap_frac`, the share of units with more than `max_words` + 1 of them."""
        texts = _texts(rollout, self._tokenizer)
        words = [_sentence_words(text.text) for text in texts]
        trees = iter(self._parse(texts, words))
        units = units_of_spans(
            rollout.content_mask,
            [
                self._units(text, sentences, [next(trees) for _ in sentences])
                for text, sentences in zip(texts, words, strict=True)
            ],
        )
        return replace(units, diagnostics=self._diagnose(units, texts, words))

    def _diagnose(self, units: Units, texts: list[_Text], words: list[list[list[tuple[int, int]]]]) -> dict[str, float]:
        counts = []
        for row, (text, sentences) in enumerate(zip(texts, words, strict=True)):
            ends = [end for _, end in text.offsets]
            starts = [start for words in sentences for start, end in words if not is_mark(text.text[start:end])]
            unit = units.unit_index[row, [bisect_right(ends, start) for start in starts]]
            counts += unit.bincount(minlength=int(units.count[row])).tolist()
        total = max(len(counts), 1)
        return {
            "scar/words_per_unit_mean": sum(counts) / total,
            "scar/units_over_cap_frac": sum(count > self._max_words + 1 for count in counts) / total,
        }

    def trees(self, rollout: Rollout) -> list[list[Any]]:
        """The tree of each sentence of each response, an `nltk.Tree` over its words: what `segment` cuts."""
        texts = _texts(rollout, self._tokenizer)
        words = [_sentence_words(text.text) for text in texts]
        trees = iter(self._parse(texts, words))
        return [[next(trees) for _ in sentences] for sentences in words]

    def _parse(self, texts: list[_Text], ranges: list[list[list[tuple[int, int]]]]) -> list[Any]:
        """The trees of all sentences."""
        words = [
            [text.text[start:end] for start, end in sentence]
            for text, sentences in zip(texts, ranges, strict=True)
            for sentence in sentences
        ]
        return parse_in_time(self._parser, words, timeout_seconds=self._timeout_seconds)

    def _units(self, text: _Text, sentences: list[list[tuple[int, int]]], trees: list[Any]) -> TextUnits:
        words = [start for sentence in sentences for start, _ in sentence]
        cut = cut_trees(trees, max_words=self._max_words)
        return _bounded(text, [words[first] for first in cut.starts], cut.tree, self._max_units, self._max_coalitions)


def parse_in_time(parser: Parser, sentences: Sequence[Sequence[str]], *, timeout_seconds: float) -> list[Any]:
    """The parser's tree of each sentence (its words), with as many leaves as words.

    ValueError names the sentence for which the parser raises or gives no such tree, TimeoutError the longest sentence of a
    batch that takes more than `timeout_seconds`.
    """
    if not sentences:
        return []
    outcome: list[list[Any] | Exception] = []

    def ask() -> None:
        try:
            outcome.append(_checked_trees(parser, sentences))
        except Exception as error:  # raised where the caller waits
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)  # the process can end while the parser hangs
    thread.start()
    thread.join(timeout_seconds)
    if not outcome:
        longest = max((" ".join(words) for words in sentences), key=len)
        raise TimeoutError(
            f"parser={parser.name} took more than {timeout_seconds} s for {len(sentences)} sentences, the longest of them "
            f'"{longest}"; raise segmentation.timeout_seconds or choose another parser (parser=chunk takes any text)'
        )
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _checked_trees(parser: Parser, sentences: Sequence[Sequence[str]]) -> list[Any]:
    try:
        trees = list(parser.parse(sentences))
    except Exception as error:
        if len(sentences) > 1:
            for words in sentences:  # which one is it?
                _checked_trees(parser, [words])
        raise _unparsed(parser, sentences, f"{type(error).__name__}: {error}") from error
    if len(trees) != len(sentences):
        raise _unparsed(parser, sentences, f"{len(trees)} trees for {len(sentences)} sentences")
    for tree, words in zip(trees, sentences, strict=True):
        leaves = 0 if tree is None else word_count(tree)
        if leaves != len(words):
            raise _unparsed(parser, [words], f"a tree of {leaves} words for {len(words)}" if leaves else "no tree")
    return trees


def _unparsed(parser: Parser, sentences: Sequence[Sequence[str]], problem: str) -> ValueError:
    text = " ".join(sentences[0]) + (f" ... ({len(sentences)} sentences)" if len(sentences) > 1 else "")
    return ValueError(
        f'parser={parser.name} cannot parse "{text}" ({problem}); choose another parser (parser=chunk takes any text)'
    )


def _sentence_words(text: str) -> list[list[tuple[int, int]]]:
    """The character ranges of the words of each sentence; sentences without a word (white space only) are left out."""
    sentences = []
    for start, end in sentence_offsets(text):
        words = word_offsets(text[start:end])
        if words:
            sentences.append([(start + first, start + last) for first, last in words])
    return sentences


def _bounded(text: _Text, starts: Sequence[int], tree: Nested, max_units: int, max_coalitions: int) -> TextUnits:
    """Units of text that start at `starts` (the first one at 0 in any case), within the bounds."""
    if not text.text:
        return TextUnits("", text.offsets, [], hierarchy_of([]))
    starts = [0, *starts[1:]]
    bounded = bounded_hierarchy(tree, max_units=max_units, max_coalitions=max_coalitions)
    groups = bounded.group.tolist()
    firsts = [start for index, start in enumerate(starts) if index == 0 or groups[index] != groups[index - 1]]
    return TextUnits(text.text, text.offsets, firsts, bounded.hierarchy)


class SentenceSegmenter:
    """Sentences are the players (paper 3.4, "sentence-level"; the rules of `sentence_offsets`), joined by mid-split.

    Above `max_units` sentences neighbours share a unit: the deepest pairs of the mid-split tree, the leftmost first. `rule`
    has one value; it is there to name the units in a run's record.
    """

    name: ClassVar[str] = "sentence"

    def __init__(self, *, tokenizer: Any, rule: SentenceRule = "any_case", max_units: int = 12) -> None:
        if rule not in get_args(SentenceRule):
            raise ValueError(f"segmentation.rule={rule}; allowed: {', '.join(get_args(SentenceRule))}")
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


class PunctuationSegmenter:
    """The players are what stands between marks: the text is cut behind each of `. , ; ? !`, as the authors' released code
    cuts its spans (docs/decisions.md#spans-as-released).

    Nothing is spared: "3.5" and "e.g." are two players each, "..." adds two of a point. What follows the last mark is a
    player. The hierarchy groups players in sentences, which end at `. ? !`, mid-split, within `max_units` units and
    `max_coalitions` coalitions as for spans (`bounded_hierarchy`).
    """

    name: ClassVar[str] = "punctuation"

    def __init__(self, *, tokenizer: Any, max_units: int = 16, max_coalitions: int = 256) -> None:
        check_bounds(max_units=max_units, max_coalitions=max_coalitions)
        self._tokenizer = tokenizer
        self._max_units = max_units
        self._max_coalitions = max_coalitions

    def load(self) -> None:
        """Nothing to load."""

    def segment(self, rollout: Rollout) -> Units:
        """Units of every response of the batch."""
        return units_of_spans(rollout.content_mask, [self._units(t) for t in _texts(rollout, self._tokenizer)])

    def _units(self, text: _Text) -> TextUnits:
        starts, sentences = [0], [[0]]
        for end, mark in enumerate(text.text.rstrip()[:-1], start=1):
            if mark in ".,;?!":
                if mark not in ",;":
                    sentences.append([])
                sentences[-1].append(len(starts))
                starts.append(end)
        return _bounded(text, starts, sentences, self._max_units, self._max_coalitions)
