"""From units of text to units of tokens, and units that lose their last token."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scar.segmentation.hierarchies import balanced_hierarchy, coalition_count, drop_leaves, hierarchy_of
from scar.segmentation.units import TextUnits, merge_empty_units, units_of_spans
from tests.builders import check_hierarchy, hand_units, random_hierarchy


def text_units(pieces: list[str], starts: list[int]) -> TextUnits:
    ends = np.cumsum([0, *map(len, pieces)]).tolist()
    return TextUnits("".join(pieces), list(pairwise(ends)), starts, balanced_hierarchy(len(starts)))


def index_of(pieces: list[str], starts: list[int]) -> list[int]:
    units = units_of_spans(torch.ones(1, len(pieces), dtype=torch.bool), [text_units(pieces, starts)])
    return units.unit_index[0].tolist()


# The rules, on the words "ab" at 0, "cd" at 3, "ef" at 6.


@pytest.mark.parametrize(
    ("pieces", "starts", "index"),
    [
        (["ab", " cd", " ef"], [0, 3, 6], [0, 1, 2]),  # a leading space does not count
        (["ab ", "cd ", "ef"], [0, 3, 6], [0, 1, 2]),
        (["ab", " cd", " ef"], [0, 2, 5], [0, 1, 2]),  # wherever the boundary lies in the space
        (["a", "b", " c", "d", " ef"], [0, 3, 6], [0, 0, 1, 1, 2]),
        (["ab", " ", "cd", " ", "ef"], [0, 3, 6], [0, 0, 1, 1, 2]),  # white space goes with the unit before
        (["  ", "\n", "ab", " "], [0, 4], [0, 0, 0, 0]),  # or, at the start, with the first one
        (["ab c", "d ef"], [0, 3, 6], [0, 1]),  # "ab c" is of "ab", "d ef" of "cd"; "ef" is left with no token
        (["ab cd ef"], [0, 3, 6], [0]),
        (["ab", " cd ef"], [0, 3, 6], [0, 1]),
        (["ab", "", "", " cd", " ef"], [0, 3, 6], [0, 1, 1, 1, 2]),  # without a character: with the one behind
        (["", "ab", "", " ", "cd", ""], [0, 3], [0, 0, 0, 0, 1, 1]),  # which may be white space, or missing
        ([" ", "\n", "\t"], [0], [0, 0, 0]),  # white space only
        ([" ", "\n", "\t"], [0, 1, 2], [0, 0, 0]),
        (["", ""], [], [0, 0]),  # not even that
    ],
)
def test_whose_a_token_is_by_hand(pieces: list[str], starts: list[int], index: list[int]) -> None:
    assert index_of(pieces, starts) == index


def test_a_batch_by_hand() -> None:
    mask = torch.tensor([[True] * 5, [True, True, False, False, False], [False] * 5])
    first = replace(
        text_units(["ab", " cd ef", " ", "gh", "."], [0, 3, 6, 9]), hierarchy=hierarchy_of([0, [1, [2, 3]]])
    )
    units = units_of_spans(mask, [first, text_units(["a", " b"], [0, 2]), text_units([], [])])
    assert units.unit_index.tolist() == [[0, 1, 1, 2, 2], [0, 1, -1, -1, -1], [-1] * 5]
    assert units.count.tolist() == [3, 2, 0]
    assert units.end_step.tolist() == [[0, 2, 4], [0, 1, -1], [-1, -1, -1]]
    # Unit 2 ("ef") left the tree: (0 (1 (2 3))) became (0 (1 3)).
    assert [h.tolist() for h in units.hierarchies] == [[[1, 2], [0, 3]], [[0, 1]], []]


@given(
    pieces=st.lists(st.sampled_from(["a", "b c", " d", "e ", " ", "\n", "", "", "f g h"]), min_size=1, max_size=15),
    data=st.data(),
)
def test_every_token_is_where_the_rules_put_it(pieces: list[str], data: Any) -> None:
    text = "".join(pieces)
    starts = [0, *sorted(data.draw(st.sets(st.integers(1, max(len(text) - 1, 1)))))] if text else []
    starts = [start for start in starts if start < max(len(text), 1)]
    index = index_of(pieces, starts)
    assert index == sorted(index)
    assert sorted(set(index)) == list(range(max(index) + 1))
    of_character = [sum(start <= place for start in starts) - 1 for place in range(len(text))]
    place, anchors = 0, {}
    for token, piece in enumerate(pieces):
        solid = [k for k in range(place, place + len(piece)) if not text[k].isspace()]
        if solid:
            anchors[token] = of_character[solid[0]]
        place += len(piece)
    for left in anchors:
        for right in anchors:
            assert (anchors[left] == anchors[right]) == (index[left] == index[right])
    for token, piece in enumerate(pieces):
        if piece == "" and token + 1 < len(pieces):
            assert index[token] == index[token + 1]
        elif token not in anchors and token > 0:
            before = [k for k in range(token) if pieces[k]]  # tokens without a character may stand between
            assert not before or index[token] == index[before[-1]]


def test_wrong_spans_are_refused() -> None:
    with pytest.raises(ValueError, match="ascend from 0"):
        text_units(["ab"], [1])
    with pytest.raises(ValueError, match="ascend from 0"):
        TextUnits("ab", [(0, 2)], [0, 1, 1], balanced_hierarchy(3))
    with pytest.raises(ValueError, match=r"hierarchy of shape \(2, 2\) does not fit 2 units"):
        TextUnits("ab", [(0, 2)], [0, 1], balanced_hierarchy(3))
    with pytest.raises(ValueError, match=r"\[1\] token offsets for \[2\] content tokens"):
        units_of_spans(torch.ones(1, 2, dtype=torch.bool), [text_units(["ab"], [0])])


# Leaves that leave.


@pytest.mark.parametrize(
    ("tree", "kept", "left"),
    [
        ([0, [1, 2]], [True, True, True], [0, [1, 2]]),
        ([0, [1, 2]], [True, False, True], [0, 1]),
        ([0, [1, 2]], [False, True, True], [0, 1]),
        ([[0, 1], [[2, 3], 4]], [True, True, True, False, True], [[0, 1], [2, 3]]),
        ([[0, 1], [[2, 3], 4]], [False, False, True, True, True], [[0, 1], 2]),
        ([[0, 1], [[2, 3], 4]], [False, True, False, False, True], [0, 1]),
        ([0, [1, 2]], [False, True, False], 0),
        ([0, [1, 2]], [False, False, False], []),
        (0, [True], 0),
    ],
)
def test_dropping_leaves_by_hand(tree: Any, kept: list[bool], left: Any) -> None:
    assert drop_leaves(hierarchy_of(tree), np.array(kept)).tolist() == hierarchy_of(left).tolist()


@given(kept=st.lists(st.booleans(), min_size=1, max_size=12), seed=st.integers(0, 1000))
def test_dropping_leaves_keeps_the_groups_of_the_others(kept: list[bool], seed: int) -> None:
    hierarchy = random_hierarchy(len(kept), np.random.default_rng(seed))
    dropped = drop_leaves(hierarchy, np.array(kept))
    count = sum(kept)
    check_hierarchy(dropped, count, in_order=False)
    if count > 1:
        assert coalition_count(dropped) <= coalition_count(hierarchy)
    number = dict(zip(np.flatnonzero(kept).tolist(), range(count), strict=True))
    groups = {frozenset(number[leaf] for leaf in block if leaf in number) for block in blocks(hierarchy)}
    assert set(blocks(dropped)) <= groups
    assert {group for group in groups if len(group) > 1} <= set(blocks(dropped))


def blocks(hierarchy: np.ndarray) -> list[frozenset[int]]:
    """The leaves below each inner node."""
    count = len(hierarchy) + 1
    below = [frozenset([leaf]) for leaf in range(count)]
    for left, right in hierarchy.tolist():
        below.append(below[left] | below[right])
    return below[count:]


# Units without a token of the reward model.


def test_empty_units_are_merged_by_hand() -> None:
    units = hand_units(
        [[1, 2, 1, 1], [2, 1], [1], []], 6, [hierarchy_of([0, [1, [2, 3]]]), *map(balanced_hierarchy, (2, 1, 0))]
    )
    occupied = torch.tensor([[False, True, False, True], [False, True, True, True], [False] * 4, [True] * 4])
    merged = merge_empty_units(units, occupied)
    # Row 0: unit 0 joins the one behind, unit 2 the one before. Row 1: the first joins the second. Row 2 keeps its one.
    assert merged.unit_index.tolist() == [[0, 0, 0, 0, 1, -1], [0, 0, 0, -1, -1, -1], [0, *[-1] * 5], [-1] * 6]
    assert merged.count.tolist() == [2, 1, 1, 0]
    assert merged.end_step.tolist() == [[3, 4], [2, -1], [0, -1], [-1, -1]]
    assert [h.tolist() for h in merged.hierarchies] == [[[0, 1]], [], [], []]
    assert occupied.tolist()[2] == [False] * 4  # the arguments stay as they were
    assert units.count.tolist() == [4, 2, 1, 0]


@given(
    groups=st.lists(st.lists(st.integers(1, 3), max_size=6), min_size=1, max_size=3),
    bits=st.lists(st.booleans(), min_size=18, max_size=18),
    seed=st.integers(0, 1000),
)
def test_merging_keeps_a_partition(groups: list[list[int]], bits: list[bool], seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = hand_units(groups, 20, [random_hierarchy(len(group), rng) for group in groups])
    width = units.end_step.shape[1]
    occupied = torch.tensor(bits[: len(groups) * width], dtype=torch.bool).reshape(len(groups), width)
    merged = merge_empty_units(units, occupied)
    assert torch.equal(merged.unit_index >= 0, units.unit_index >= 0)
    for row, group in enumerate(groups):
        check_hierarchy(merged.hierarchies[row], int(merged.count[row]), in_order=False)
        full = occupied[row, : len(group)].tolist()
        assert int(merged.count[row]) == max(sum(full), min(len(group), 1))
        new = 0
        for unit, (size, is_full) in enumerate(zip(group, full, strict=True)):
            new += bool(is_full and any(full[:unit]))
            start = sum(group[:unit])
            assert merged.unit_index[row, start : start + size].tolist() == [new] * size
            if unit == len(group) - 1 or (full[unit + 1] and any(full[: unit + 1])):
                assert int(merged.end_step[row, new]) == start + size - 1


@pytest.mark.parametrize("occupied", [torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 3)])
def test_occupied_must_fit(occupied: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="occupied is"):
        merge_empty_units(hand_units([[1, 1, 1]], 3, [balanced_hierarchy(3)]), occupied)
