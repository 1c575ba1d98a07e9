"""Words of English text with their places, close to those of the Penn Treebank. Pure; takes any text."""

from __future__ import annotations

import re

APOSTROPHES = "'\u2019"


def word_set(words: str) -> frozenset[str]:
    """The words of a list with spaces between them."""
    return frozenset(words.split())


TITLES = word_set(
    "mr mrs ms messrs dr prof rev fr sen rep gov gen col capt cmdr lt sgt hon pres supt e.g i.e cf vs viz approx"
)
"""Abbreviations that something always follows."""
OFTEN_LAST = word_set(
    "jr sr st ave blvd rd inc ltd co corp bros dept est etc al a.m p.m u.s u.k u.n u.s.a d.c b.c a.d ph.d m.d b.a m.a"
)
"""Abbreviations that may close a sentence; so may initials."""

_ABBREVIATION = "|".join(sorted(map(re.escape, TITLES | OFTEN_LAST), key=len, reverse=True))
_MARKS = "\u0300-\u036f\u200c\u200d\ufe00-\ufe0f"  # combining accents, joiners, variants: part of the character before
_WORD = re.compile(
    rf"""
    https?://[^\s<>"]*[^\s<>".,;:!?)\]}}{APOSTROPHES}]              # a web address without what closes the sentence
  | (?:[^\W\d_]\.){{2,}}(?!\w)                                      # U.S.  e.g.
  | (?i:{_ABBREVIATION})\.(?!\w)
  | [A-Z]\.(?=\s+[A-Z])                                             # J. Smith
  | [{APOSTROPHES}](?i:s|m|re|ve|ll|d)(?!\w)                        # 's on its own
  | \w[\w{_MARKS}]*                                                 # a word, with more behind - ' / @ & or inside 3,000.5
    (?:(?:[-{APOSTROPHES}/@&]|(?<=\d)[.,:](?=\d)|\.(?=[a-z0-9_]))(?=\w)[\w{_MARKS}]+)*
  | [?!]+
  | ([^\w\s])\1+                                                    # ...  --  ''  ====
  | [\U0001f1e6-\U0001f1ff]{{2}}                                    # a flag
  | [^\w\s](?:[{_MARKS}\U0001f3fb-\U0001f3ff]|(?<=\u200d)[^\w\s])*  # a mark or an emoji with its modifiers
    """,
    re.VERBOSE,
)
_CONTRACTION = re.compile(rf"(?i:n[{APOSTROPHES}]t|[{APOSTROPHES}](?:s|m|re|ve|ll|d))\Z")
_JOINED = word_set("cannot gonna gotta wanna gimme lemme")  # all of them split behind three letters


def word_offsets(text: str) -> list[tuple[int, int]]:
    """The [start, end) of the words of `text`, ascending: every character but white space is in exactly one.

    Contractions are split (do|n't, it|'s), punctuation stands apart except within numbers, abbreviations, web addresses
    and hyphenated words. A run of one mark is one word.
    """
    found: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        found += _split(text, *match.span())
    return found


def _split(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """A word and its contractions."""
    if text[start:end].lower() in _JOINED:
        return [(start, start + 3), (start + 3, end)]
    parts: list[tuple[int, int]] = []
    while (match := _CONTRACTION.search(text, start, end)) and match.start() > start:
        parts.append((match.start(), end))
        end = match.start()
    return [(start, end), *reversed(parts)]
