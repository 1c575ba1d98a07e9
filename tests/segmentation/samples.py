"""Texts, token ids and parsers for the segmentation tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st

from scar.models.loading import train_tokenizer
from tests.builders import EOS, PAD

REAL = [
    "",
    " ",
    "\n\n \t",
    "word",
    "The film was great. I'd watch it again, wouldn't you? Dr. Smith didn't.",
    "TL;DR: my girlfriend (23F) left me\r\n\r\n1. We fought\r\n2. She left... and now I",
    "caf\u00e9 na\u00efve e\u0301t\u00e9 \U0001f600\U0001f469\U0001f3fd\u200d\U0001f680 \u00a0 so  good   !!!",
    "\u201cReally?\u201d she said. \"Yes,\" I said. 'No.' (See Fig. 3.) It cost $3.50 [sic].",
    "\u4f60\u597d\u3002\u518d\u89c1\uff01 \u0417\u0434\u0440\u0430\u0432\u0441\u0442\u0432\u0443\u0439. \u05e9\u05dc\u05d5\u05dd",
    "good good good good good good good good good good good good good good good good good good good good good",
    "no. no! no? no. " * 12,
    "because the man who was in the house that stood on the hill where we had been when it rained",
]
TEXTS = st.one_of(
    st.sampled_from(REAL),
    st.text(max_size=40),
    st.lists(
        st.sampled_from([*" \n\t.,!?'\"()-\u2019", "a", "The", " it", "'s", "n't", "5", "Mr.", "\U0001f600", "\ufffd"]),
        max_size=30,
    ).map("".join),
)


@lru_cache(maxsize=1)
def byte_tokenizer() -> Any:
    """A byte-level BPE tokenizer, whose EOS and PAD are those of the builders."""
    tokenizer = train_tokenizer([*REAL, *REAL], vocab_size=400)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (EOS, PAD)
    return tokenizer


@lru_cache(maxsize=1)
def token_bytes() -> list[bytes]:
    """The bytes of each token of `byte_tokenizer`."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + k): byte for k, byte in enumerate(others)}
    tokenizer = byte_tokenizer()
    return [
        bytes(table[c] for c in tokenizer.convert_ids_to_tokens(token)) if token > PAD else b""
        for token in range(len(tokenizer))
    ]


def encode(text: str) -> list[int]:
    return byte_tokenizer().encode(text, add_special_tokens=False)


def _byte_ids() -> list[int]:
    return [token for token, data in enumerate(token_bytes()) if len(data) == 1 and data[0] >= 128]


IDS = st.one_of(
    TEXTS.map(encode),
    st.tuples(TEXTS.map(encode), st.integers(0, 20)).map(lambda cut: cut[0][cut[1] :]),  # starts within a character
    st.deferred(lambda: st.lists(st.integers(PAD + 1, len(byte_tokenizer()) - 1), max_size=40)),
    st.deferred(lambda: st.lists(st.sampled_from(_byte_ids()), max_size=40)),  # broken characters only
)
"""Token ids: of text, of text cut off anywhere, and any at all."""


def nested(words: Sequence[str], shape: Callable[[int], int]) -> Any:
    """A binary tree as lists: `shape(n)` of n words go left."""
    if len(words) == 1:
        return [words[0]]
    left = shape(len(words))
    return [nested(words[:left], shape), nested(words[left:], shape)]


def right_branching(words: Sequence[str]) -> Any:
    return nested(words, lambda count: 1)


def left_branching(words: Sequence[str]) -> Any:
    return nested(words, lambda count: count - 1)


class FunctionParser:
    """Parses every sentence with a function; keeps the batches that it was asked for."""

    name = "function"

    def __init__(self, function: Callable[[Sequence[str]], Any]) -> None:
        self.function = function
        self.batches: list[list[list[str]]] = []

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Any]:
        self.batches.append([list(words) for words in sentences])
        return [self.function(words) for words in sentences]
