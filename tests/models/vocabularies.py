"""Tokenizers that really differ, trained here in milliseconds, and rollouts of their tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

import torch
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from scar.models.loading import train_tokenizer
from scar.types import PromptBatch, Rollout
from tests.builders import EOS, PAD, rollout_of

PARTS = (
    "un",
    "believ",
    "able",
    "ly",
    "the",
    "naïve",
    "café",
    "🙂",
    "\r\n",
    "  ",
    "don't",
    "3.50",
    "!",
    "ing",
    "日本",
    "—",
)
ENGLISH = "The unbelievable film was good, naïve and not café-like at all!\r\n\r\nIt cost  3.50 dollars; don't they? 🙂"
OTHER = (
    "unbelievably able, she believed in un-American crêpes \U0001f469\U0001f3fd\u200d\U0001f680 and naïve thethethe ..."
)


@lru_cache(maxsize=1)
def policy_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of small pieces; EOS and PAD are those of the builders."""
    tokenizer = train_tokenizer([ENGLISH] * 3, vocab_size=300)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (EOS, PAD)
    return tokenizer


@lru_cache(maxsize=1)
def long_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of other texts, whole words are tokens."""
    return train_tokenizer([OTHER, ENGLISH] * 20, vocab_size=600)


@lru_cache(maxsize=1)
def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """Unigram with a mark before each word, as sentencepiece has it; a prompt gets a BOS and (T5's habit) an EOS."""
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    inner.train_from_iterator([OTHER, ENGLISH] * 5, trainer)
    inner.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


@lru_cache(maxsize=1)
def word_piece_tokenizer() -> PreTrainedTokenizerFast:
    """BERT's kind: lower case, no accents, white space is in no token."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    inner.train_from_iterator([OTHER, ENGLISH] * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, cls_token="[CLS]", eos_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )


REWARD_TOKENIZERS = {"bytes": long_tokenizer, "metaspace": metaspace_tokenizer, "word pieces": word_piece_tokenizer}

TEXTS = st.lists(
    st.one_of(st.sampled_from(PARTS), st.sampled_from(" \n\tabé'\U0001f469\U0001f3fd\u200d"), st.text(max_size=4)),
    max_size=10,
).map("".join)


def encode(text: str) -> list[int]:
    """Policy tokens of a text."""
    return policy_tokenizer().encode(text, add_special_tokens=False)


RESPONSES = st.one_of(
    TEXTS.map(encode),
    st.tuples(TEXTS.map(encode), st.integers(0, 8)).map(lambda cut: cut[0][cut[1] :]),  # may start inside a character
    st.lists(st.integers(PAD, 299), max_size=12),  # most bytes complete no character
)
"""Content tokens of the policy: of texts, and any at all."""


@lru_cache(maxsize=1)
def policy_bytes() -> list[bytes]:
    """The bytes that each policy token stands for."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + k): byte for k, byte in enumerate(others)}
    names = policy_tokenizer().convert_ids_to_tokens(list(range(len(policy_tokenizer()))))
    return [bytes(table[character] for character in name) for name in names]


def sampled(
    contents: Sequence[Sequence[int]],
    finished: Sequence[bool] | None = None,
    *,
    prompts: Sequence[str] | None = None,
    reward_texts: Sequence[str] | None = None,
    response_padding: int = 0,
    prompt_padding: int = 0,
) -> Rollout:
    """A rollout of policy tokens behind these prompts; a response without content is finished."""
    prompts = ["The prompt:"] * len(contents) if prompts is None else prompts
    finished = [True] * len(contents) if finished is None else finished
    rollout = rollout_of(
        contents,
        [done or not ids for done, ids in zip(finished, contents, strict=True)],
        prompts=[encode(prompt) for prompt in prompts],
        response_padding=response_padding,
        prompt_padding=prompt_padding,
    )
    batch = rollout.prompts
    texts = PromptBatch(
        batch.prompt_ids, batch.prompt_mask, list(prompts), None if reward_texts is None else list(reward_texts)
    )
    decoded = [policy_tokenizer().decode(list(ids)) for ids in contents]
    return dataclasses.replace(rollout, prompts=texts, texts=decoded)


def real(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """The ids of each row under its mask."""
    return [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
