"""Unlabelled bracket F1, and the Penn sample that it is measured on.

Empty elements (-NONE-) and nodes over nothing else are taken out of the gold trees. Punctuation (the tags of evalb's standard
parameters) is then left out of both trees, so that brackets are ranges of the other words. Brackets over one word do not
count, and of several over the same words (unary chains) one does. Matches are summed over all sentences.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from nltk.tree import Tree

PUNCTUATION = {",", ":", "``", "''", "."}
ARCHIVE = Path(__file__).resolve().parents[3] / "shared" / "data" / "treebank" / "treebank.zip"


def without_empty(tree: Tree) -> Tree | None:
    """The tree without its -NONE- leaves; None if nothing is left."""
    if isinstance(tree[0], str):
        return None if tree.label() == "-NONE-" else tree
    kept = [child for child in map(without_empty, tree) if child is not None]
    return Tree(tree.label(), kept) if kept else None


def brackets(tree: Tree, counted: list[bool]) -> set[tuple[int, int]]:
    """Ranges of at least two counted leaves."""
    before = [sum(counted[:place]) for place in range(len(counted) + 1)]
    found = set()

    def walk(node: Tree | str, start: int) -> int:
        if isinstance(node, str):
            return start + 1
        end = start
        for child in node:
            end = walk(child, end)
        if before[end] - before[start] >= 2:
            found.add((before[start], before[end]))
        return end

    assert walk(tree, 0) == len(counted)
    return found


def bracket_f1(pairs: Iterable[tuple[Tree, Tree]], *, whole_sentence: bool) -> float:
    """F1 over (gold, predicted); `whole_sentence`: whether the bracket over everything, right by definition, counts."""
    matched = counted = 0
    for gold, predicted in pairs:
        words = [tag not in PUNCTUATION for _, tag in gold.pos()]
        trivial = set() if whole_sentence else {(0, sum(words))}
        found, wanted = brackets(predicted, words) - trivial, brackets(gold, words) - trivial
        matched += len(found & wanted)
        counted += len(found) + len(wanted)
    return 2 * matched / counted


def penn_sample(archive: Path = ARCHIVE) -> list[Tree]:
    """Gold trees of 4 to 40 words (punctuation counts as words, empty elements do not), in the order of the files."""
    trees = []
    with zipfile.ZipFile(archive) as files:
        for name in sorted(name for name in files.namelist() if name.endswith(".mrg")):
            text = files.read(name).decode()
            trees += [without_empty(tree[0]) for tree in Tree.fromstring(f"(FILE {text})")]
    return [tree for tree in trees if tree is not None and 4 <= len(tree.leaves()) <= 40]


def penn_words(tree: Tree) -> list[str]:
    """The words of a gold tree without the treebank's escapes."""
    return [word.replace("\\/", "/").replace("\\*", "*") for word in tree.leaves()]
