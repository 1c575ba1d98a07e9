"""From a dependency parse to a constituency tree: brackets as the Penn Treebank draws them, found from heads and relations.

A head and its dependents stand in a row; every layer of brackets around the head is an interval of that row, and the intervals
grow outwards: verb, auxiliaries, clause, clause with its subordinator; noun phrase, its modifiers behind it, its conjuncts.
Relations are those of spaCy's English models (ClearNLP labels, https://github.com/clir/clearnlp-guidelines), tags are Penn's.
No layer holds a single word, so that a pronoun is a pre-terminal of its clause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nltk.tree import Tree

SUBJECTS = {"nsubj", "nsubjpass", "csubj", "csubjpass", "expl"}
AUXILIARIES = {"aux", "auxpass"}
CLAUSE_SIGNS = SUBJECTS | AUXILIARIES | {"mark"}
LINKS = {"cc", "punct", "preconj"}
"""What stands between two conjuncts."""
TIGHT = {"nummod", "case", "compound", "amod", "quantmod", "advmod", "det"}
"""Single words behind a noun that belong to its innermost phrase: Nov. 29, the company 's."""
VERBS = {"VBZ", "VBP", "VBD", "MD", "VB", "VBG", "VBN"}
LABELS = {"IN": "PP", "TO": "PP", "UH": "INTJ", "WDT": "WHNP", "WP": "WHNP", "WRB": "WHADVP"}
LABELS |= dict.fromkeys(("JJ", "JJR", "JJS", "VBG", "VBN"), "ADJP") | dict.fromkeys(("RB", "RBR", "RBS", "RP"), "ADVP")
LABELS |= dict.fromkeys(("NN", "NNS", "NNP", "NNPS", "PRP", "CD", "DT", "EX", "$", "FW"), "NP")

VERB, AUXILIARY, CLAUSE = 1, 2, 3
"""What is coordinated with a verb: verb phrases under its auxiliaries, verb phrases with their own, whole clauses."""

Layer = tuple[str, int, int]
"""Label, first position and end of an interval of a row."""
MAX_HEIGHT = 150
"""Layers above which a phrase loses its inner brackets: "very very very ..." nests without end; the Penn sample needs 69."""


@dataclass(frozen=True)
class _Sentence:
    """Words with projective heads; `first` and `last` are the ends of the words below each, `below` their dependents."""

    words: Sequence[str]
    tags: Sequence[str]
    relations: Sequence[str]
    heads: list[int]
    below: list[list[int]]
    first: list[int]
    last: list[int]
    order: list[int]

    def alone(self, word: int) -> bool:
        """Whether nothing but conjuncts and what links them is below a word."""
        return all(self.relations[i] == "conj" or self.relations[i] in LINKS for i in self.below[word])


@dataclass(frozen=True)
class _Row:
    """A head (at position `head`) and its dependents; [start, stop) leaves out outer punctuation, conjuncts begin at `split`."""

    members: list[int]
    relations: list[str]
    head: int
    start: int
    split: int
    stop: int

    @property
    def conjuncts(self) -> list[int]:
        """Words that are coordinated with the head."""
        return [self.members[k] for k in self.find({"conj"}, self.split, self.stop)]

    def find(self, wanted: set[str], low: int, high: int) -> list[int]:
        """Positions in [low, high) with one of these relations."""
        return [k for k in range(low, high) if self.relations[k] in wanted]


def constituency_tree(
    words: Sequence[str], tags: Sequence[str], heads: Sequence[int], relations: Sequence[str]
) -> Tree:
    """The constituency tree of a parsed sentence of n >= 1 words; its leaves are `words`, in order.

    `heads[i]` is the position of the head of word i, or i itself for a root; several roots become neighbours under one S.
    Arcs that cross are lifted first (`projective`). Raises ValueError where lengths differ or heads are no forest.
    """
    sentence = _sentence(words, tags, projective(heads), relations)
    phrases: list[Tree] = [Tree(tag, [word]) for tag, word in zip(tags, words, strict=True)]
    tails: list[list[int]] = [[] for _ in words]
    heights = [1] * len(words)
    for word in reversed(sentence.order):
        row, tails[word] = _row(sentence, word, tails)
        layers = _layers(sentence, row)
        phrases[word] = _wrapped([phrases[i] for i in row.members], row.head, layers)
        heights[word] = max(heights[i] for i in row.members) + len(layers)
        if heights[word] > MAX_HEIGHT:
            pairs = phrases[word].pos()
            phrases[word], heights[word] = Tree(phrases[word].label(), [Tree(tag, [leaf]) for leaf, tag in pairs]), 1
    roots = [i for i, head in enumerate(sentence.heads) if head == i]
    return phrases[roots[0]] if len(roots) == 1 < len(words) else Tree("S", [phrases[i] for i in roots])


def projective(heads: Sequence[int]) -> list[int]:
    """Heads without crossing arcs: the shortest arc over a foreign word is lifted to its head's head until none is left.

    Lifting as in Nivre and Nilsson, 2005 (pseudo-projective parsing). A word lifted past a root becomes a root.
    Raises ValueError for a head outside the sentence or a cycle.
    """
    lifted = list(heads)
    while True:
        above = _ancestors(lifted)
        crossing = [
            (abs(head - word), word)
            for word, head in enumerate(lifted)
            if any(not above[k] >> head & 1 for k in range(min(word, head) + 1, max(word, head)))
        ]
        if not crossing:
            return lifted
        word = min(crossing)[1]
        head = lifted[word]
        lifted[word] = word if lifted[head] == head else lifted[head]


def _ancestors(heads: Sequence[int]) -> list[int]:
    """Bit mask of the words above each word."""
    masks: list[int | None] = [0 if head == word else None for word, head in enumerate(heads)]
    for word in range(len(heads)):
        path = [word]
        while masks[path[-1]] is None:
            head = heads[path[-1]]
            if not 0 <= head < len(heads) or len(path) > len(heads):
                raise ValueError(f"heads={list(heads)}: each must be a position in the sentence, without cycles")
            path.append(head)
        for below, head in zip(reversed(path[:-1]), reversed(path[1:]), strict=True):
            masks[below] = (masks[head] or 0) | 1 << head
    return [mask or 0 for mask in masks]


def _sentence(words: Sequence[str], tags: Sequence[str], heads: list[int], relations: Sequence[str]) -> _Sentence:
    if not len(words) == len(tags) == len(heads) == len(relations) or not words:
        lengths = f"{len(words)} words, {len(tags)} tags, {len(heads)} heads, {len(relations)} relations"
        raise ValueError(f"got {lengths}: one of each for every word is needed, and at least one word")
    below: list[list[int]] = [[] for _ in words]
    for word, head in enumerate(heads):
        while word < head != heads[head] and relations[head] == "compound":
            head = heads[head]  # names are flat: (NP New England Journal), not a phrase in a phrase
        if head != word:
            below[head].append(word)
    order = [i for i, head in enumerate(heads) if head == i]
    for word in order:  # grows while it is read: heads before their dependents
        order += below[word]
    first, last = list(range(len(words))), list(range(len(words)))
    for word in reversed(order):
        first[word] = min([word, *(first[i] for i in below[word])])
        last[word] = max([word, *(last[i] for i in below[word])])
    return _Sentence(words, tags, relations, heads, below, first, last, order)


def _row(sentence: _Sentence, word: int, tails: list[list[int]]) -> tuple[_Row, list[int]]:
    """The row of a head, and what it hands up: a conjunct's own conjuncts stand beside it, not below it."""
    left = [k for i in sentence.below[word] if i < word for k in (i, *tails[i])]
    right = [k for i in sentence.below[word] if i > word for k in (i, *tails[i])]
    members, head = [*left, word, *right], len(left)
    relations = ["HEAD" if i == word else sentence.relations[i] for i in members]
    split = next((k for k in range(head + 1, len(members)) if relations[k] == "conj"), len(members))
    while split > head + 1 and relations[split - 1] in LINKS:
        split -= 1
    handed: list[int] = []
    if sentence.relations[word] == "conj" and sentence.heads[word] < word:
        members, relations, handed = members[:split], relations[:split], members[split:]
    start = next(k for k in range(head + 1) if relations[k] != "punct")
    stop = next(k for k in range(len(members), head, -1) if relations[k - 1] != "punct")
    return _Row(members, relations, head, start, min(split, stop), stop), handed


def _layers(sentence: _Sentence, row: _Row) -> list[Layer]:
    """Labelled intervals of the row, inside out; the last is the whole row."""
    word = row.members[row.head]
    tag = sentence.tags[word]
    verbal = tag in VERBS and sentence.relations[word] != "amod"  # (ADJP narrowly focused) funds
    if verbal or row.find(CLAUSE_SIGNS, row.start, row.head):
        layers = list(_clause(sentence, row, verbal=verbal))
    else:
        layers = list(_phrase(sentence, row, LABELS.get(tag, "X")))
    return [*layers, (layers[-1][0], 0, len(row.members))]


def _clause(sentence: _Sentence, row: _Row, *, verbal: bool) -> Iterator[Layer]:
    opening = _opening(sentence, row)
    subjects = row.find(SUBJECTS, row.start, row.head)
    inverted = row.find(SUBJECTS, row.head + 1, row.split)
    inside = max([row.start, opening, *(k + 1 for k in subjects)])
    auxiliaries = row.find(AUXILIARIES, inside, row.head)
    levels = [CLAUSE if inverted else _level(sentence, i) for i in row.conjuncts]
    level = max(levels, default=0)
    low = row.head if verbal else max([inside, *(k + 1 for k in auxiliaries)])
    high = inverted[0] if inverted else row.split
    yield "VP", low, high
    if level == VERB:
        yield "VP", low, row.stop
    for k in reversed(auxiliaries):
        yield "VP", k, high
    if level == AUXILIARY:
        yield "VP", low, row.stop
    if level == CLAUSE:
        yield "S", opening, row.split
    if opening > row.start:
        yield "S", opening, row.stop
    yield ("SBAR" if opening > row.start else "S"), 0, len(row.members)  # (S ... .) holds its full stop


def _opening(sentence: _Sentence, row: _Row) -> int:
    """Where the clause proper begins: behind a subordinator (that, because) or a phrase with a question word (to whom)."""
    marks = row.find({"mark"}, row.start, row.head)
    if marks:
        return marks[-1] + 1
    k = next(k for k in range(row.start, row.head + 1) if row.relations[k] not in ("punct", "cc"))
    word = row.members[k]
    tags = sentence.tags[sentence.first[word] : sentence.last[word] + 1] if k < row.head else []
    lead = next((i for i, tag in enumerate(tags) if tag not in ("IN", "DT", "TO")), 0)
    return k + 1 if tags and tags[lead].startswith("W") else row.start


def _level(sentence: _Sentence, conjunct: int) -> int:
    """Which layer a conjunct of a verb is joined to, by what it repeats."""
    own = {sentence.relations[i] for i in sentence.below[conjunct]}
    return CLAUSE if own & SUBJECTS else AUXILIARY if own & AUXILIARIES else VERB


def _phrase(sentence: _Sentence, row: _Row, label: str) -> Iterator[Layer]:
    high = row.head + 1
    while label == "NP" and high < row.split and row.relations[high] in TIGHT and not sentence.below[row.members[high]]:
        high += 1
    # Single words are coordinated inside the phrase: (NP the cats and dogs).
    flat = high == row.split and all(sentence.alone(i) for i in row.conjuncts)
    if not flat:
        if label == "NP":
            yield label, row.start, high
        yield label, row.start, row.split
    yield label, row.start, row.stop


def _wrapped(items: list[Tree], head: int, layers: list[Layer]) -> Tree:
    """The items under nested labels; a layer that adds nothing, and a layer over one word, is left out."""
    tree, start, stop = items[head], head, head + 1
    for label, low, high in layers:
        low, high = min(low, start), max(high, stop)
        if (low, high) != (start, stop):
            tree = Tree(label, [*items[low:start], tree, *items[stop:high]])
            start, stop = low, high
    return tree
