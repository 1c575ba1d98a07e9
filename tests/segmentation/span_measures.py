"""How good units are as constituents: measured on trees, in words that are no punctuation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nltk.tree import Tree

from tests.segmentation.brackets import PUNCTUATION

CLAUSE_LABELS = ("S", "SBAR", "SBARQ", "SINV", "SQ")
Range = tuple[int, int]


@dataclass(frozen=True)
class CutSentence:
    """Constituents of two or more words, with their labels, and units, as ranges of words; a range of marks is empty."""

    constituents: list[tuple[Range, str]]
    units: list[Range]

    def over_a_closed_border(self, unit: Range) -> bool:
        """Whether a constituent begins before the unit and ends inside it."""
        return any(first < unit[0] < last < unit[1] for (first, last), _ in self.constituents)

    def clause_ends_inside(self, unit: Range) -> bool:
        """Whether a clause ends inside a unit that is no constituent."""
        whole = any(place == unit for place, _ in self.constituents)
        ends = {place[1] for place, label in self.constituents if label in CLAUSE_LABELS}
        return not whole and any(unit[0] < end < unit[1] for end in ends)


def cut_sentence(tree: Any, starts: Sequence[int], is_word: Sequence[bool]) -> CutSentence:
    """`starts` are leaves of `tree`, of which `is_word` says whether they count."""
    before = [sum(is_word[:place]) for place in range(len(is_word) + 1)]
    constituents: list[tuple[Range, str]] = []

    def walk(node: Any, start: int) -> int:
        if not isinstance(node, list):
            return start + 1
        end = start
        for child in node:
            end = walk(child, end)
        if before[end] - before[start] >= 2:
            label = node.label().split("-")[0].split("=")[0] if isinstance(node, Tree) else ""
            constituents.append(((before[start], before[end]), label))
        return end

    walk(tree, 0)
    borders = [before[start] for start in (*starts, len(is_word))]
    return CutSentence(constituents, list(pairwise(borders)))


def tagged_words(tree: Tree) -> list[bool]:
    """Which leaves the treebank's tags make words."""
    return [tag not in PUNCTUATION | {"-LRB-", "-RRB-"} for _, tag in tree.pos()]


def span_measures(sentences: Iterable[CutSentence], max_words: int) -> dict[str, float]:
    """The shares of units, and the means, of the table in docs/results_log.md (2026-11-29)."""
    cut = list(sentences)
    units = [(sentence, unit, unit[1] - unit[0]) for sentence in cut for unit in sentence.units]

    def share(hits: Iterable[bool]) -> float:
        return sum(hits) / len(units)

    return {
        "units a sentence": len(units) / len(cut),
        "words a unit": sum(size for *_, size in units) / len(units),
        "more than the cap": share(size > max_words for *_, size in units),
        "more than the cap + 1": share(size > max_words + 1 for *_, size in units),
        "over a closed border": share(sentence.over_a_closed_border(unit) for sentence, unit, _ in units),
        "clause ends inside": share(sentence.clause_ends_inside(unit) for sentence, unit, _ in units),
        "one word": share(size == 1 for *_, size in units),
    }
