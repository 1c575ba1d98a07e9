"""Segmenters: every content token in exactly one unit, in order, whatever the text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st

from scar.segmentation.hierarchies import hierarchy_of
from scar.segmentation.segmenters import TokenSegmenter
from scar.segmentation.units import token_tree
from scar.types import Rollout, Units
from tests.builders import EOS, PAD, check_hierarchy, rollout_of
from tests.models.vocabularies import metaspace_tokenizer
from tests.segmentation.samples import byte_tokenizer, encode, token_bytes

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


def test_words_of_a_metaspace_tokenizer() -> None:
    """Decoded alone, no piece has the space in front of it, and the whole text would be one word."""
    tokenizer = metaspace_tokenizer()
    ids = tokenizer.encode("unbelievably good film and the naive dollars was not able, cost", add_special_tokens=False)
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert len(pieces) > 22
    words: list[list[int]] = []
    for index, piece in enumerate(pieces):
        if piece.startswith("\u2581") or not piece.isalpha() or not pieces[index - 1].strip("\u2581").isalpha():
            words.append([])
        words[-1].append(index)
    comma = next(k for k, word in enumerate(words) if "".join(pieces[i] for i in word) == ",")
    units = TokenSegmenter(tokenizer=tokenizer).segment(rollout_of([ids], [False]))
    assert units.hierarchies[0].tolist() == hierarchy_of([words[: comma + 1], words[comma + 1 :]]).tolist()


ASCII = st.text(st.sampled_from([*"aB c.,!?\n'\"-(5"]), max_size=40)


@given(text=ASCII)
def test_trees_of_byte_tokenizers_are_those_of_tokens_decoded_alone(text: str) -> None:
    ids = encode(text)
    units = TokenSegmenter(tokenizer=byte_tokenizer()).segment(rollout_of([ids], [True]))
    alone = token_tree([byte_tokenizer().decode([token]) for token in ids])
    assert units.hierarchies[0].tolist() == hierarchy_of(alone).tolist()


def test_a_character_of_several_tokens_is_in_one_word() -> None:
    ids = [token for byte in "caf\u00e9s".encode() for token in [token_bytes().index(bytes([byte]))]]
    units = TokenSegmenter(tokenizer=byte_tokenizer()).segment(rollout_of([ids], [True]))
    assert len(ids) == 6
    assert units.hierarchies[0].tolist() == hierarchy_of([[[[0, 1, 2, 3, 4, 5]]]]).tolist()
