"""Token offsets: against the bytes of the tokens, against decoding everything each time, by hand, for every kind of decoder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from scar.segmentation.offsets import token_offsets
from tests.segmentation.samples import IDS, byte_tokenizer, token_bytes

BROKEN = "\ufffd"


def check_ranges(text: str, offsets: list[tuple[int, int]], count: int) -> None:
    assert len(offsets) == count
    assert [0, *(end for _, end in offsets)] == [*(start for start, _ in offsets), len(text)]
    assert all(start <= end for start, end in offsets)


def characters(data: bytes) -> list[tuple[str, int, int]]:
    """Every character of broken UTF-8 and its bytes [start, end)."""
    found, place = [], 0
    while place < len(data):
        try:
            valid, bad = len(data) - place, 0
            data[place:].decode()
        except UnicodeDecodeError as error:
            valid, bad = error.start, error.end - error.start
        for character in data[place : place + valid].decode():
            found.append((character, place, place + len(character.encode())))
            place = found[-1][2]
        if bad:
            found.append((BROKEN, place, place + bad))
            place += bad
    return found


def decoded_each_time(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """How much of the text the first k tokens settle, k = 1..T: what they decode to and what all tokens begin with."""
    text, reached, ends = tokenizer.decode(ids), 0, []
    for stop in range(1, len(ids) + 1):
        part = tokenizer.decode(ids[:stop])
        same = sum(1 for k in range(1, len(part) + 1) if text[:k] == part[:k])
        reached = max(reached, same)
        ends.append(reached)
    return ends


@given(ids=IDS)
def test_a_character_belongs_to_the_token_that_has_its_last_byte(ids: list[int]) -> None:
    text, offsets = token_offsets(ids, byte_tokenizer())
    assert text == byte_tokenizer().decode(ids)
    check_ranges(text, offsets, len(ids))
    pieces = [token_bytes()[token] for token in ids]
    owner_of_byte = [token for token, piece in enumerate(pieces) for _ in piece]
    expected = characters(b"".join(pieces))
    assert text == "".join(character for character, _, _ in expected)
    owners = [token for token, (start, end) in enumerate(offsets) for _ in range(start, end)]
    for place, (owner, (character, first, last)) in enumerate(zip(owners, expected, strict=True)):
        if character.isspace() and owner != owner_of_byte[last - 1]:  # its token has begun what `owner` completes
            solid = next(k for k in range(place, len(text)) if not text[k].isspace())
            assert owner_of_byte[expected[solid][1]] == owner_of_byte[last - 1] < owner == owners[solid]
        elif character == BROKEN:  # to one of the tokens that its bytes are in
            assert owner_of_byte[first] <= owner <= owner_of_byte[last - 1]
        else:
            assert owner == owner_of_byte[last - 1]


@given(ids=IDS)
def test_short_stretches_say_what_decoding_everything_says(ids: list[int]) -> None:
    text, offsets = token_offsets(ids, byte_tokenizer())
    for (_, end), settled in zip(offsets, decoded_each_time(ids, byte_tokenizer()), strict=True):
        assert text[end:settled] in ("", BROKEN) or text[end:settled].isspace()


class Counting:
    """Counts the tokens that a tokenizer decodes."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.decoded = tokenizer, 0

    def decode(self, token_ids: Sequence[int]) -> str:
        self.decoded += len(token_ids)
        return self.tokenizer.decode(token_ids)


@pytest.mark.parametrize(
    ("low", "high"), [(2, 350), (2, 258), (130, 258)]
)  # anything, bytes, bytes that break most often
def test_long_responses_take_linear_work(low: int, high: int) -> None:
    counting, rng = Counting(byte_tokenizer()), random.Random(high)
    ids = [rng.randrange(low, high) for _ in range(256)]
    text, offsets = token_offsets(ids, counting)
    assert text == byte_tokenizer().decode(ids)
    check_ranges(text, offsets, 256)
    assert counting.decoded < 40 * 256  # decoding everything each time: 129 * 256


@pytest.mark.parametrize(
    ("pieces", "text", "offsets"),
    [
        ([], "", []),
        ([b"a", b"\xff", b"b"], "a\ufffdb", [(0, 1), (1, 2), (2, 3)]),
        ([b"\xf0", b"\x9f", b"b"], "\ufffdb", [(0, 0), (0, 1), (1, 2)]),  # two bytes of one character that never comes
        ([b"a", b"\xf0", b"\x9f"], "a\ufffd", [(0, 1), (1, 1), (1, 2)]),  # nor at the end
        ([b"\xff", b"\xf0", b"\x9f", b"\x98", b"\x80"], "\ufffd\U0001f600", [(0, 1), (1, 1), (1, 1), (1, 1), (1, 2)]),
        ([b"a", b" \xf0\x9f", b"\x98", b"\x80"], "a \U0001f600", [(0, 1), (1, 1), (1, 1), (1, 3)]),
        ([b"\xc3", b"\xc3", b"\xa9"], "\ufffd\u00e9", [(0, 1), (1, 1), (1, 2)]),
    ],
)
def test_broken_characters_by_hand(pieces: list[bytes], text: str, offsets: list[tuple[int, int]]) -> None:
    assert token_offsets([token_bytes().index(piece) for piece in pieces], byte_tokenizer()) == (text, offsets)


# Other decoders.


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """As Llama's: a leading space is stripped, other characters are bytes; a run of bytes is broken as a whole."""
    pieces = [
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "\u2581",
        "\u2581the",
        "\u2581film",
        "s",
        ".",
        "\u2581\u2581",
    ]
    backend = Tokenizer(
        models.BPE({piece: k for k, piece in enumerate(pieces)}, [], byte_fallback=True, unk_token="<unk>")
    )
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def wordpiece(clean_up: bool) -> PreTrainedTokenizerFast:
    pieces = ["[UNK]", "the", "film", "##s", "do", "n", "'", "t", "n't", ".", ",", "##less"]
    backend = Tokenizer(models.WordPiece({piece: k for k, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece("##", cleanup=clean_up)
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=clean_up)


SPACE, THE, FILM, S, POINT, SPACES = range(257, 263)


def test_a_stripped_leading_space_by_hand() -> None:
    text, offsets = token_offsets([THE, SPACE, FILM, S, POINT, SPACES, THE], sentencepiece_like())
    assert text == "the  films.   the"
    assert offsets == [(0, 3), (3, 4), (4, 9), (9, 10), (10, 11), (11, 13), (13, 17)]


def test_byte_tokens_by_hand() -> None:
    emoji = [1 + byte for byte in "\U0001f600".encode()]
    text, offsets = token_offsets([THE, *emoji, *emoji, S], sentencepiece_like())
    assert text == "the\U0001f600\U0001f600s"
    ends = [3, 3, 3, 3, 4, 4, 4, 4, 5, 6]
    assert [end for _, end in offsets] == ends


@given(
    ids=st.lists(
        st.one_of(
            st.integers(257, 262).map(lambda token: [token]),
            st.text("\u00e9\U0001f600", min_size=1).map(lambda text: [1 + byte for byte in text.encode()]),
            st.integers(1, 256).map(lambda token: [token]),
        ),
        max_size=25,
    ).map(lambda runs: [token for run in runs for token in run])
)
def test_sentencepiece_like_decoders(ids: list[int]) -> None:
    tokenizer = sentencepiece_like()
    text, offsets = token_offsets(ids, tokenizer)
    assert text == tokenizer.decode(ids)
    check_ranges(text, offsets, len(ids))


@given(ids=st.lists(st.integers(1, 11), max_size=40), clean_up=st.booleans())
def test_decoders_that_put_spaces_between_words(ids: list[int], clean_up: bool) -> None:
    tokenizer = wordpiece(clean_up)
    text, offsets = token_offsets(ids, tokenizer)
    assert text == tokenizer.decode(ids)
    check_ranges(text, offsets, len(ids))


def test_a_decoder_that_looks_far_back_is_asked_for_everything() -> None:
    class Quotes:
        """Turns every second quote, from the start, into a closing one."""

        def decode(self, token_ids: Sequence[int]) -> str:
            return "".join(
                "\u201c\u201d"[list(token_ids[:k]).count(0) % 2] if t == 0 else "ab " for k, t in enumerate(token_ids)
            )

    ids = [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1]
    text, offsets = token_offsets(ids, Quotes())
    assert text == Quotes().decode(ids)
    assert [end - start for start, end in offsets] == [1 if token == 0 else 3 for token in ids]
