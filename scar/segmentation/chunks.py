"""Trees without a model: a parser by rules that takes anything, and the guard that puts it in where a parser fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from scar.interfaces import Parser
from scar.segmentation.text import APOSTROPHES, word_set
from scar.segmentation.trees import word_count

logger = logging.getLogger(__name__)

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
BRACKETS_OPEN = word_set("( [ { \u201c \u2018 \u00ab ``")
MARKS = frozenset(
    ".,;:!?\"'`()[]{}-\u2013\u2014\u2026\u201c\u201d\u2018\u2019\u00ab\u00bb\u3001\u3002\uff0c\uff01\uff1f\uff1b\uff1a"
)


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
    found: list[list[list[str]]] = []
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        if not found or _opens_clause(word, before):
            found.append([[word]])
        elif _opens_chunk(word, found[-1][-1], max_words):
            found[-1].append([word])
        else:
            found[-1][-1].append(word)
    return found


def _is_mark(word: str) -> bool:
    return MARKS.issuperset(word)


def _opens_clause(word: str, before: str) -> bool:
    behind_mark = before != "" and _is_mark(before) and before not in BRACKETS_OPEN
    return word.lower() in CONJUNCTIONS or (behind_mark and (word in BRACKETS_OPEN or not _is_mark(word)))


def _opens_chunk(word: str, chunk: Sequence[str], max_words: int) -> bool:
    """Whether `word` does not belong to the chunk before it."""
    if word in BRACKETS_OPEN:
        return True
    if _is_mark(word):
        return len(chunk) >= 2 * max_words
    if sum(not _is_mark(other) for other in chunk) >= max_words:
        return True
    only_openers = all(other.lower() in OPENING or _is_mark(other) for other in chunk)
    return word.lower() in OPENING and not only_openers


class GuardedParser:
    """A parser that always answers, and in time.

    Sentences for which `parser` raises, says None or gives another number of words get the trees of `ChunkParser`. If a
    batch takes more than `timeout_seconds`, that thread is left alone and all later sentences get them too. Each of the
    two is logged once.
    """

    def __init__(self, parser: Parser, *, timeout_seconds: float) -> None:
        if not timeout_seconds > 0:
            raise ValueError(f"segmentation.build.timeout_seconds={timeout_seconds}; allowed: a number above 0")
        self._parser = parser
        self._fallback = ChunkParser()
        self._timeout_seconds = timeout_seconds
        self._timed_out = False
        self._warned = False

    def load(self) -> None:
        """Load the parser's model now, so that its absence is an error."""
        self._parser.load()

    def parse(self, sentences: Sequence[Sequence[str]]) -> tuple[list[Any], int]:
        """A tree of the right number of words for each sentence, and how many of them are the fallback's."""
        trees = [None] * len(sentences) if self._timed_out or not sentences else self._in_time(sentences)
        missing = [place for place, tree in enumerate(trees) if tree is None]
        if missing:
            for place, tree in zip(missing, self._fallback.parse([sentences[place] for place in missing]), strict=True):
                trees[place] = tree
        return trees, len(missing)

    def _in_time(self, sentences: Sequence[Sequence[str]]) -> list[Any]:
        """The parser's usable trees, None elsewhere. A daemon thread: the process can end while it hangs."""
        answer: list[list[Any]] = []
        problems: list[str] = []
        thread = threading.Thread(target=lambda: answer.append(self._ask(sentences, problems)), daemon=True)
        thread.start()
        thread.join(self._timeout_seconds)
        if not answer:
            self._timed_out = True
            logger.warning(
                "parser %s did not answer within %s s (segmentation.build.timeout_seconds); "
                "from here on sentences are cut into chunks by rules",
                self._parser.name,
                self._timeout_seconds,
            )
            return [None] * len(sentences)
        if problems and not self._warned:
            self._warned = True
            logger.warning(
                "parser %s: %s; such sentences are cut into chunks by rules (scar/parse_fallback_frac)",
                self._parser.name,
                problems[0],
            )
        return answer[0]

    def _ask(self, sentences: Sequence[Sequence[str]], problems: list[str]) -> list[Any]:
        """All sentences at once; if that raises, one by one."""
        try:
            trees = list(self._parser.parse(sentences))
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
            if len(sentences) == 1:
                return [None]
            return [self._ask([words], problems)[0] for words in sentences]
        if len(trees) != len(sentences):
            problems.append(f"{len(trees)} trees for {len(sentences)} sentences")
            return [None] * len(sentences)
        return [self._checked(tree, len(words), problems) for tree, words in zip(trees, sentences, strict=True)]

    @staticmethod
    def _checked(tree: Any, count: int, problems: list[str]) -> Any:
        if tree is not None and word_count(tree) == count:
            return tree
        problems.append("no tree for a sentence" if tree is None else f"{word_count(tree)} words for {count}")
        return None
