"""Trees without a model: a parser by rules that takes anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scar.text import APOSTROPHES, OPENING_MARKS, is_mark, word_set

CONJUNCTIONS = word_set("and or but nor yet so plus because although though while whereas unless if since until")
"""They open a clause; the other words below open a chunk within it."""
PREPOSITIONS = word_set(
    "about above across after against along among around as at before behind below beneath beside besides between beyond by "
    "despite down during except for from in inside into like near of off on onto out outside over past per than through "
    "throughout to toward towards under up upon via with within without"
)
RELATIVES = word_set("that which who whom whose where when why how what whether whatever whoever")
AUXILIARIES = word_set(
    "am is are was were be been being have has had having do does did will would shall should can could may might must ca wo"
) | {mark + ending for mark in APOSTROPHES for ending in ("s", "m", "re", "ve", "ll", "d")}
OPENING = CONJUNCTIONS | PREPOSITIONS | RELATIVES | AUXILIARIES


class ChunkParser:
    """Flat chunks by rules: S over clauses over chunks of up to `max_words` words.

    A chunk opens before prepositions, conjunctions, relative words, auxiliaries and opening brackets (function words in a
    row open one) and behind punctuation, which closes the chunk before it; a clause before conjunctions and behind
    punctuation.
    """

    name = "chunk"

    def __init__(self, max_words: int = 4) -> None:
        if max_words < 1:
            raise ValueError(f"max_words={max_words}; allowed: 1 or more")
        self._max_words = max_words

    def load(self) -> None:
        """Nothing to load."""

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Any]:
        """An `nltk.Tree` for every sentence, of as many leaves as words."""
        from nltk.tree import Tree  # loads all of nltk

        def tree(clause: list[list[str]]) -> Tree:
            return Tree("CL", [Tree("CH", [Tree("W", [word]) for word in chunk]) for chunk in clause])

        return [Tree("S", [tree(clause) for clause in clauses(words, self._max_words)]) for words in sentences]


def clauses(words: Sequence[str], max_words: int) -> list[list[list[str]]]:
    """Words in chunks in clauses; see `ChunkParser`. Punctuation may make a chunk longer than `max_words`, up to twice."""
    split: list[list[list[str]]] = []
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        if not split or _opens_clause(word, before):
            split.append([[word]])
        elif _opens_chunk(word, split[-1][-1], max_words):
            split[-1].append([word])
        else:
            split[-1][-1].append(word)
    return split


def _opens_clause(word: str, before: str) -> bool:
    behind_mark = before != "" and is_mark(before) and before not in OPENING_MARKS
    return word.lower() in CONJUNCTIONS or (behind_mark and (word in OPENING_MARKS or not is_mark(word)))


def _opens_chunk(word: str, chunk: Sequence[str], max_words: int) -> bool:
    """Whether `word` does not belong to the chunk before it."""
    if word in OPENING_MARKS:
        return True
    if is_mark(word):
        return len(chunk) >= 2 * max_words
    if sum(not is_mark(other) for other in chunk) >= max_words:
        return True
    only_openers = all(other.lower() in OPENING or is_mark(other) for other in chunk)
    return word.lower() in OPENING and not only_openers
