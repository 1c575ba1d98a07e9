"""Segmenters: every content token in exactly one unit, in order, whatever the text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st

from scar.segmentation.segmenters import TokenSegmenter
from scar.types import Rollout, Units
from tests.builders import EOS, PAD, check_hierarchy, rollout_of

VOCABULARY = [
    " the",
    "film",
    " un",
    "able",
    ".",
    ",",
    "?!",
    "\n",
    "\r\n",
    " ",
    "",
    '"',
    "\u2019",
    "\ufffd",
    "😀",
    "\U0001f469\u200d\U0001f680",
    " 3",
    "\t",
]
FIRST = 10


class FakeTokenizer:
    """One piece of text per id from FIRST on; refuses EOS and padding, which no segmenter has a reason to decode."""

    def decode(self, token_ids: Sequence[int]) -> str:
        assert EOS not in token_ids
        assert PAD not in token_ids
        return "".join(VOCABULARY[token - FIRST] for token in token_ids)


RESPONSES = st.lists(
    st.tuples(st.lists(st.integers(FIRST, FIRST + len(VOCABULARY) - 1), max_size=15), st.booleans()).filter(
        lambda response: response[0] or response[1]  # a response has at least one token
    ),
    min_size=1,
    max_size=4,
)


def check_units(units: Units, rollout: Rollout) -> None:
    """Assert partition, order, coverage and unit ends of any segmentation."""
    content = rollout.content_mask
    assert torch.equal(units.unit_index >= 0, content)
    for row, count in enumerate(units.count.tolist()):
        index = units.unit_index[row][content[row]].tolist()
        assert index == sorted(index)
        assert sorted(set(index)) == list(range(count))
        last = [len(index) - 1 - index[::-1].index(unit) for unit in range(count)]
        assert units.end_step[row, :count].tolist() == last
        assert (units.end_step[row, count:] == -1).all()
        if count:
            assert last[-1] == int(content[row].sum()) - 1
        check_hierarchy(units.hierarchies[row], count)


@given(responses=RESPONSES, padding=st.integers(0, 2))
def test_token_segmenter_partitions_every_response(responses: list[tuple[list[int], bool]], padding: int) -> None:
    rollout = rollout_of([ids for ids, _ in responses], [done for _, done in responses], response_padding=padding)
    units = TokenSegmenter(tokenizer=FakeTokenizer()).segment(rollout)
    check_units(units, rollout)
    assert units.count.tolist() == [len(ids) for ids, _ in responses]


def test_token_segmenter_by_hand() -> None:
    # " the" "film" "." " un" "able" EOS: the second piece carries the word on; two sentences.
    rollout = rollout_of([[10, 11, 14, 12, 13], [11]], [True, False])
    units = TokenSegmenter(tokenizer=FakeTokenizer()).segment(rollout)
    assert units.unit_index.tolist() == [[0, 1, 2, 3, 4, -1], [0, -1, -1, -1, -1, -1]]
    assert units.end_step.tolist() == [[0, 1, 2, 3, 4], [0, -1, -1, -1, -1]]
    assert units.count.tolist() == [5, 1]
    # Words (0, 1) = 5, with the point (5, 2) = 6; word (3, 4) = 7; both sentences (6, 7).
    assert units.hierarchies[0].tolist() == [[0, 1], [5, 2], [3, 4], [6, 7]]
    assert units.hierarchies[1].shape == (0, 2)
