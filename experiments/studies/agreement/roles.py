"""Which words of a text stand for negation, contrast or repetition. Words are in lower case. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from scar.text import word_set

NEGATORS = word_set("not n't 't never no")
CONNECTIVES = word_set("but although though however")
SMALL = word_set(
    "a an the this that these those it its he she they we you i his her their my your is are was were be been being am "
    "do does did have has had will would can could should so very too as at by for from in into of on or and to with "
    "really just quite much more most any all some there what who which when than then them him me us if up out about"
)
"""Words that are no negated word and no repetition."""
REACH = 4
"""A negated word is the first one, not small, among so many words behind the negator in the same clause."""

Roles = dict[int, str]
"""The role of each word that has one, by its place."""


def negation(words: Sequence[str]) -> Roles:
    """Negators and the words that they negate."""
    roles: Roles = {}
    for index in (index for index, word in enumerate(words) if word in NEGATORS):
        for target in range(index + 1, min(index + 1 + REACH, len(words))):
            if not is_word(words[target]) or words[target] in CONNECTIVES:
                break
            if words[target] not in SMALL | NEGATORS:
                roles |= {index: "negator", target: "negated word"}
                break
    return roles


def contrast(words: Sequence[str]) -> Roles:
    """The first "but" (or the like) that has words on both sides, and those words."""
    for index, word in enumerate(words):
        before = [i for i in range(index) if is_word(words[i])]
        after = [i for i in range(index + 1, len(words)) if is_word(words[i])]
        if word in CONNECTIVES and len(before) > 1 and len(after) > 1:
            return dict.fromkeys(before, "before") | {index: "connective"} | dict.fromkeys(after, "after")
    return {}


def repetition(words: Sequence[str]) -> Roles:
    """Words of four letters or more that occur again: the first time, and later."""
    roles: Roles = {}
    first: dict[str, int] = {}
    for index, word in enumerate(words):
        if is_word(word) and len(word) >= 4 and word not in SMALL:
            if word in first:
                roles |= {first[word]: "first occurrence", index: "later occurrence"}
            first.setdefault(word, index)
    return roles


CASES: dict[str, Callable[[Sequence[str]], Roles]] = {
    "negation": negation,
    "contrast": contrast,
    "repetition": repetition,
}


def is_word(text: str) -> bool:
    """Letters, and perhaps an apostrophe or a hyphen."""
    return re.fullmatch(r"[a-z'][a-z'-]*", text) is not None and any(letter.isalpha() for letter in text)
