"""Hierarchies, the token tree and token units: by hand, and what holds for every input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scar.segmentation.hierarchies import balanced_hierarchy, coalition_count, hierarchy_of
from scar.segmentation.units import token_tree, token_units
from tests.builders import check_hierarchy


def numbered(shape: Any) -> Any:
    """A tree of this shape with its leaves numbered from left to right."""
    counter = iter(range(10_000))

    def visit(node: Any) -> Any:
        return next(counter) if node is None else [visit(child) for child in node]

    return visit(shape)


def leaves_of(tree: Any) -> list[int]:
    return [tree] if isinstance(tree, int) else [leaf for child in tree for leaf in leaves_of(child)]


TREES = st.recursive(st.none(), lambda children: st.lists(children, min_size=1, max_size=5), max_leaves=25).map(
    numbered
)

# Emoji with modifiers, halves of characters, line ends, quotes, white space only, nothing at all, plain words.
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "",
                " ",
                "  ",
                "\n",
                "\r\n",
                "\t",
                ".",
                ",",
                "...",
                "?!",
                '"',
                " '",
                "\u2019",
                "\u201c",
                "\ufffd",
                "😀",
                "👩🏽",
                "e\u0301",
            ]
        ),
        st.sampled_from([" the", "film", " un", "watch", "able", "n't", " good.", "bad,", " 3", "\u00a0", "<br />"]),
        st.text(max_size=6),
    ),
    max_size=30,
)


# Hierarchies.


@given(tree=TREES)
def test_hierarchies_of_nested_trees_are_binary_and_keep_the_order(tree: Any) -> None:
    check_hierarchy(hierarchy_of(tree), len(leaves_of(tree)))


@given(tree=TREES)
def test_groups_of_the_tree_stay_together(tree: Any) -> None:
    """Every subtree of the input is the set of leaves below some node of the hierarchy."""
    hierarchy, count = hierarchy_of(tree), len(leaves_of(tree))
    below = {leaf: {leaf} for leaf in range(count)}
    for node, (left, right) in enumerate(hierarchy.tolist(), start=count):
        below[node] = below[left] | below[right]
    blocks = [tuple(sorted(block)) for block in below.values()]

    def visit(node: Any) -> None:
        assert tuple(leaves_of(node)) in blocks
        if not isinstance(node, int):
            for child in node:
                visit(child)

    visit(tree)


def test_mid_split_by_hand() -> None:
    # Five children: first half 0, 1, 2 (itself 0, 1 | 2), second half 3, 4.
    assert hierarchy_of([0, 1, 2, 3, 4]).tolist() == [[0, 1], [5, 2], [3, 4], [6, 7]]
    # A right-branching chain would cost 2^5 = 32 coalitions, this 20.
    assert coalition_count(hierarchy_of([0, 1, 2, 3, 4])) == 20
    assert coalition_count(hierarchy_of([0, [1, [2, [3, 4]]]])) == 32


def test_given_groups_are_kept_by_hand() -> None:
    assert hierarchy_of([0, [[1, 2], 3]]).tolist() == [[1, 2], [4, 3], [0, 5]]


@pytest.mark.parametrize("tree", [[], 0, [0], [[0]]])
def test_fewer_than_two_leaves_have_no_hierarchy(tree: Any) -> None:
    assert hierarchy_of(tree).shape == (0, 2)


@pytest.mark.parametrize("count", range(40))
def test_balanced_hierarchies_are_as_flat_as_can_be(count: int) -> None:
    hierarchy = balanced_hierarchy(count)
    check_hierarchy(hierarchy, count)
    if count > 1:
        depth = dict.fromkeys(range(count), 0)
        for node, (left, right) in enumerate(hierarchy.tolist(), start=count):
            depth[node] = 1 + max(depth[left], depth[right])
        assert depth[2 * count - 2] == math.ceil(math.log2(count))


# The token tree.


def test_token_tree_by_hand() -> None:
    pieces = ["The", " film", " was", " un", "watch", "able", ",", " but", " short", ".", " See", " it"]
    # Word pieces 3, 4, 5 form one word; the comma ends a clause, the point a sentence.
    assert token_tree(pieces) == [[[[0], [1], [2], [3, 4, 5], [6]], [[7], [8], [9]]], [[[10], [11]]]]


@pytest.mark.parametrize(
    ("pieces", "tree"),
    [
        ([], []),
        (["word"], [[[[0]]]]),
        (["."], [[[[0]]]]),
        (["Well", ".", " ", "Yes"], [[[[0], [1]]], [[[2], [3]]]]),
        (["a", "\r\n", "b"], [[[[0], [1]]], [[[2]]]]),
        (["so", "; ", "then"], [[[[0], [1]], [[2]]]]),  # spaces behind the mark do not hide it
        ([" it", "'s", " ok"], [[[[0], [1], [2]]]]),  # an apostrophe starts a word
        (["\ufffd", "\ufffd"], [[[[0], [1]]]]),
        (
            [" caf", "", "\u00e9", "s", ",", "", "\U0001f600", ""],
            [[[[0, 1, 2, 3], [4]], [[5, 6, 7]]]],
        ),  # parts of a character
        (["", "a", "", ""], [[[[0, 1, 2, 3]]]]),
        (["", ""], [[[[0, 1]]]]),
    ],
)
def test_token_tree_of_short_texts_by_hand(pieces: list[str], tree: Any) -> None:
    assert token_tree(pieces) == tree


@given(pieces=PIECES)
def test_token_trees_have_every_token_once_in_order(pieces: list[str]) -> None:
    tree = token_tree(pieces)
    assert leaves_of(tree) == list(range(len(pieces)))
    check_hierarchy(hierarchy_of(tree), len(pieces))


@given(pieces=PIECES)
def test_sentences_and_clauses_end_where_a_mark_is(pieces: list[str]) -> None:
    sentences = token_tree(list(filter(None, pieces)))
    pieces = list(filter(None, pieces))
    for sentence in sentences[:-1]:  # type: ignore[index]
        assert pieces[leaves_of(sentence)[-1]].rstrip(" ").endswith((".", "?", "!", "\n"))
    for sentence in sentences:  # type: ignore[union-attr]
        for clause in sentence[:-1]:
            assert pieces[leaves_of(clause)[-1]].rstrip(" ").endswith((",", ";", ":"))


# Token units.


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    finished=st.lists(st.booleans(), min_size=5, max_size=5),
    padding=st.integers(0, 3),
)
def test_token_units_partition_the_content(counts: list[int], finished: list[bool], padding: int) -> None:
    # EOS may follow the content, then padding: both are no players.
    width = max(n + int(done) for n, done in zip(counts, finished, strict=False)) + padding + 1
    mask = torch.arange(width)[None] < torch.tensor(counts)[:, None]
    units = token_units(mask, [balanced_hierarchy(n) for n in counts])
    assert units.count.tolist() == counts
    for row, count in enumerate(counts):
        assert units.unit_index[row].tolist() == list(range(count)) + [-1] * (width - count)
        ends = units.end_step[row].tolist()
        assert ends == list(range(count)) + [-1] * (max(counts) - count)
        check_hierarchy(units.hierarchies[row], count)
