"""Sentences of text by rules: ends marked by `. ? !`, abbreviations, decimals, list numbers, line ends. Pure."""

from __future__ import annotations

import re

from scar.segmentation.words import APOSTROPHES, OFTEN_LAST, TITLES, word_set

BEFORE_NUMBERS = word_set("no nos p pp fig figs vol ch sec eq art ca jan feb mar apr jun jul aug sep sept oct nov dec")
"""Words that are an abbreviation only in front of a number."""
OPENERS = word_set(
    "the a an i he she it we they you this that these those there here my his her our their its who what when where why "
    "how if and but or so as at in on for with after before since while because although though however then also "
    "not no yes one some many most all both another each is are was were do did can please"
)
"""Words that, with a capital, show that an abbreviation before them closed its sentence."""

_OPEN_QUOTES = "\"'\u2018\u201c\u00ab([{\u300c\u300e"
_CLOSED_QUOTES = r"\"'\u2019\u201d\u00bb)\]}*_"  # with the marks of bold and italic text
_BREAKS = r"\r\n\v\f\x85\u2028\u2029"
_LINE = re.compile(rf"[^{_BREAKS}]*(?:[{_BREAKS}]\s*|\Z)")
# The second half: Chinese and Japanese marks, which no space follows.
_END = re.compile(rf"([.?!\u2026]+)[{_CLOSED_QUOTES}]*\s+|[\u3002\uff01\uff1f]+[\u2019\u201d\u300d\u300f\uff09]*\s*")
_OPENER = re.compile(rf"([^\W\d_]+)(?![^\s,{APOSTROPHES}])")  # a word, not an initial
_NUMBERING = re.compile(r"(?:\A|:)\s*[(\[]?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})\Z")  # "1" of "1. item"
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]\Z")


def sentence_offsets(text: str) -> list[tuple[int, int]]:
    """The [start, end) of the sentences: a partition of `text`, white space goes with the sentence before it.

    A sentence ends behind `. ? !` and closing quotes or brackets, if white space and a capital, a digit or an opening
    quote or bracket follow, and at every line end. No sentence ends in an abbreviation, a decimal or the number of a list
    item. An unfinished end is a sentence. No sentence is white space, unless the whole text is; an empty text has none.
    """
    starts = [line.start() + place for line in _LINE.finditer(text) for place in _starts(line.group())]
    filled = [start for start, end in zip(starts, [*starts[1:], len(text)], strict=True) if text[start:end].strip()]
    kept = [0, *filled[1:]] if text else []
    return list(zip(kept, [*kept[1:], len(text)], strict=False))


def _starts(line: str) -> list[int]:
    """The first characters of the sentences of one line."""
    starts = [0]
    for end in _END.finditer(line):
        rest = line[end.end() :]
        inside = end.group(1) == "." and _goes_on(line[starts[-1] : end.start()], rest.lstrip(_OPEN_QUOTES))
        if _opens(rest[:1]) and not inside:
            starts.append(end.end())
    return starts


def _opens(character: str) -> bool:
    """Whether a sentence may start so: capital, letter without case, digit, opening quote or bracket."""
    letter = character.isalpha() and not character.islower()
    return letter or character.isdigit() or (character != "" and character in _OPEN_QUOTES + "\u00bf\u00a1")


def _goes_on(before: str, behind: str) -> bool:
    """Whether the point between these belongs to an abbreviation or to the number of a list item."""
    name = re.split(r"\s", before)[-1].lstrip(_OPEN_QUOTES).lower()
    if _NUMBERING.search(before) or name in TITLES:
        return True
    if name in BEFORE_NUMBERS:
        return behind[:1].isdigit()
    if name in OFTEN_LAST or _INITIALS.match(name):
        opener = _OPENER.match(behind)
        return opener is None or opener.group(1).lower() not in OPENERS
    return False
