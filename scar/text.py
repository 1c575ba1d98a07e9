"""Words and sentences of English text with their places, close to those of the Penn Treebank. Pure; takes any text.

The preferences made at local scale split by rules of their own (docs/decisions.md#sentences-of-training-texts).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

APOSTROPHES = "'\u2019"


def word_set(words: str) -> frozenset[str]:
    """The words of a list with spaces between them."""
    return frozenset(words.split())


OPENING_MARKS = word_set("( [ { \u201c \u2018 \u201e \u201a \u00ab \u00bf \u00a1 `` ` -LRB- -LCB- -LSB-")
"""Brackets and quotes that belong to the word behind them, also as the Penn Treebank writes them."""
BRACKETS = word_set("-LRB- -RRB- -LCB- -RCB- -LSB- -RSB-")
MARKS = frozenset(
    ".,;:!?\"'`()[]{}-\u2013\u2014\u2026\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb\u00bf\u00a1"
    "\u3001\u3002\uff0c\uff01\uff1f\uff1b\uff1a"
)


def is_mark(word: Any) -> bool:
    """Whether a word is punctuation and nothing else; `$`, `%`, `&` and emoji stand for words and are none."""
    return MARKS.issuperset(word) or word in BRACKETS


def mark_sides(words: Sequence[Any]) -> list[str | None]:
    """Of each word: "opening" or "closing" if it is a mark that belongs to the word behind or before it, None if it is none.
    Straight quotes open and close in turn."""
    sides: list[str | None] = []
    quoted = low = False  # within straight quotes, within German ones (\u201e \u201c)
    for word in words:
        opening = word in OPENING_MARKS and not (low and word == "\u201c")
        if word == '"':
            opening = quoted = not quoted
        elif word in ("\u201e", "\u201c"):
            low = word == "\u201e"
        sides.append(None if not is_mark(word) else "opening" if opening else "closing")
    return sides


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
  | (?<!\b[^\W\d_]\.)(?:[^\W\d_]\.){{2,}}(?!\w)                    # U.S.  e.g.; tried once a run of letters and points
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
    words: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        words += _split(text, *match.span())
    return words


def _split(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """A word and its contractions."""
    if text[start:end].lower() in _JOINED:
        return [(start, start + 3), (start + 3, end)]
    parts: list[tuple[int, int]] = []
    while match := _CONTRACTION.search(text, max(start + 1, end - 3), end):
        parts.append((match.start(), end))
        end = match.start()
    return [(start, end), *reversed(parts)]


# Sentences of text by rules: ends marked by `. ? !`, abbreviations, decimals, list numbers, line ends. Pure.


BEFORE_NUMBERS = word_set("no nos p pp fig figs vol ch sec eq art ca jan feb mar apr jun jul aug sep sept oct nov dec")
"""Words that are an abbreviation only in front of a number."""
OPENERS = word_set(
    "the a an i he she it we they you this that these those there here my his her our their its who what when where why "
    "how if and but or so as at in on for with after before since while because although though however then also "
    "not no yes one some many most all both another each is are was were do did can please"
)
"""Words that, with a capital, show that an abbreviation before them closed its sentence."""

SUBJECTS = word_set("he she it we they")
"""Those of them that do so without a capital, in a text that has none."""
LABELLED = word_set(
    "size sizes plan option vitamin hepatitis grade class type category group team section part point step phase level line "
    "appendix exhibit figure table column row model series generation letter"
)
"""Words behind which one capital is a label, which may close a sentence, and no initial of a name."""

_OPEN_QUOTES = "\"'\u2018\u201a\u201c\u201e\u2039\u203a\u00ab\u00bb([{\u300c\u300e"
# German quotes close with those that open English ones; with the marks of bold and italic text.
_CLOSED_QUOTES = r"\"'\u2018\u2019\u201c\u201d\u2039\u203a\u00ab\u00bb)\]}*_"
_BREAKS = r"\r\n\v\f\x85\u2028\u2029"
_LINE = re.compile(rf"[^{_BREAKS}]*(?:[{_BREAKS}]\s*|\Z)")
# The second half: Chinese and Japanese marks, which no space follows.
_MARK = r"[.?!\u2026]"
_END = re.compile(
    rf"(?<!{_MARK})({_MARK}+)[{_CLOSED_QUOTES}]*\s+|[\u3002\uff01\uff1f]+[\u2019\u201d\u300d\u300f\uff09]*\s*"
)
_OPENER = re.compile(rf"([^\W\d_]+)(?![^\s,{APOSTROPHES}])")  # a word, not an initial
_NUMBERING = re.compile(r"(?:\A|:)[(\[]?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})\Z")  # "1" of "1. item"
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]\Z")
_LETTERS = re.compile(r"[^\W\d_]+")


def sentence_offsets(text: str) -> list[tuple[int, int]]:
    """The [start, end) of the sentences: a partition of `text`, white space goes with the sentence before it.

    A sentence ends behind `. ? !` and closing quotes or brackets, if white space and a capital, a digit or an opening
    quote or bracket follow, and at every line end. No sentence ends in an abbreviation, a decimal or the number of a list
    item. In a text without capitalised words a small letter does for the capital, but not behind an ellipsis. An
    unfinished end is a sentence. No sentence is white space, unless the whole text is; an empty text has none. The work
    is linear in the length of the text.
    """
    small = not any(word[0].isupper() and word[1:2].islower() for word in _LETTERS.findall(text))
    starts = [line.start() + start for line in _LINE.finditer(text) for start in _starts(line.group(), small)]
    filled = [start for start, end in zip(starts, [*starts[1:], len(text)], strict=True) if text[start:end].strip()]
    kept = [0, *filled[1:]] if text else []
    return list(zip(kept, [*kept[1:], len(text)], strict=False))


def _starts(line: str, small: bool) -> list[int]:
    """The first characters of the sentences of one line; `small`: a small letter may open one."""
    starts = [0]
    for end in _END.finditer(line):
        mark, stop = end.group(1), end.start()
        while stop > starts[-1] and line[stop - 1].isspace():
            stop -= 1  # "mr . smith"
        inside = mark == "." and _goes_on(line, starts[-1], stop, end.end())
        pause = (
            mark is None or (mark != "." and not set(mark) <= {"?", "!"}) or line[stop - 1 : stop] == "."
        )  # "well... i"
        if _opens(line[end.end() : end.end() + 1], small and not pause) and not inside:
            starts.append(end.end())
    return starts


def _opens(character: str, small: bool) -> bool:
    """Whether a sentence may start so: capital, letter without case, digit, opening quote or bracket."""
    letter = character.isalpha() and (small or not character.islower())
    return letter or character.isdigit() or (character != "" and character in _OPEN_QUOTES + "\u00bf\u00a1")


def _goes_on(line: str, first: int, stop: int, behind: int) -> bool:
    """Whether the point behind `stop` belongs to an abbreviation or to the number of a list item; the sentence begins at
    `first`, and the text goes on at `behind`."""
    start = stop
    while start > first and not line[start - 1].isspace():
        start -= 1
    word = line[start:stop]
    before = start  # the end of the word before
    while before > first and line[before - 1].isspace():
        before -= 1
    numbered = _NUMBERING.search(word)
    if numbered and (numbered.group().startswith(":") or before == first or line[before - 1] == ":"):
        return True
    while line[behind : behind + 1] and line[behind] in _OPEN_QUOTES:
        behind += 1
    name = word.lstrip(_OPEN_QUOTES).lower()
    if name in TITLES:
        return True
    if name in BEFORE_NUMBERS:
        return line[behind : behind + 1].isdigit()
    if len(name) == 1 and line[max(first, before - 12) : before].lower().split(" ")[-1] in LABELLED:
        return False
    if name in OFTEN_LAST or _INITIALS.match(name):
        opener = _OPENER.match(line, behind)
        # Without its capital a word that may stand inside a sentence too says nothing: "the u.s. and".
        openers = SUBJECTS if opener and opener.group(1)[0].islower() else OPENERS
        return opener is None or opener.group(1).lower() not in openers
    return False
