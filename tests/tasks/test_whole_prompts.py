"""Whole prompts: at most so many tokens, too long ones cut by the rule of the TL;DR data or left out, left-padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scar.interfaces import PromptText
from scar.tasks.prompts import PromptBatches, WholePrompt
from tests.models.vocabularies import PARTS, long_tokenizer, policy_tokenizer

BEFORE, AFTER = "TITLE: t\n\nPOST: ", "\n\nTL;DR:"


TOKENIZERS: dict[str, Callable[[], Any]] = {"pieces": policy_tokenizer, "words": long_tokenizer}

BODIES = st.lists(
    st.one_of(
        st.sampled_from([*PARTS, "\n", " ", "\n\n", "the film ", "It cost 3.50; ", "x" * 30, "é" * 9, "日本" * 6]),
        st.text(max_size=6),
    ),
    max_size=14,
).map("".join)


class CharacterTokenizer:
    """A token a character."""

    pad_token_id = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]

    def __call__(self, text: str, *, add_special_tokens: bool, return_offsets_mapping: bool) -> dict[str, Any]:
        assert not add_special_tokens
        assert return_offsets_mapping
        ids = self.encode(text, add_special_tokens=False)
        return {"input_ids": ids, "offset_mapping": [(place, place + 1) for place in range(len(ids))]}

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))


class Counting:
    """A real tokenizer and a count of how often it was asked."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.asked = tokenizer, 0

    def encode(self, text: str, **options: Any) -> list[int]:
        self.asked += 1
        return self.tokenizer.encode(text, **options)

    def __call__(self, text: str, **options: Any) -> Any:
        self.asked += 1
        return self.tokenizer(text, **options)


def length_of(prompt: PromptText, body: str, tokenizer: Any) -> int:
    return len(tokenizer.encode(prompt.before + body + prompt.after, add_special_tokens=False))


def literally(prompt: PromptText, tokenizer: Any, max_tokens: int) -> str | None:
    """The rule word for word; None where even an empty body does not fit."""
    body = prompt.body
    while length_of(prompt, body, tokenizer) > max_tokens:
        if not body:
            return None
        body = body[: body.rindex("\n")] if "\n" in body else body[:-1]
    return body


# The rule.


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(
    body=BODIES,
    before=st.sampled_from(["", BEFORE]),
    after=st.sampled_from([AFTER, "\n\n### Response:", " x", "."]),
    max_tokens=st.integers(1, 60),
)
def test_cut_equals_the_literal_rule(kind: str, body: str, before: str, after: str, max_tokens: int) -> None:
    tokenizer, prompt, cut = TOKENIZERS[kind](), PromptText(before, body, after), WholePrompt(max_tokens, "cut")
    expected = literally(prompt, tokenizer, max_tokens)
    if expected is None:
        with pytest.raises(ValueError, match=f"takes more than task.prompt.max_tokens={max_tokens} tokens"):
            cut.cut(prompt, tokenizer)
        return
    assert cut.cut(prompt, tokenizer) == expected
    [ids] = cut.tokens([prompt], tokenizer, torch.Generator())
    assert ids == tokenizer.encode(before + expected + after, add_special_tokens=False)
    assert len(ids) <= max_tokens


@pytest.mark.parametrize("line", ["one line without an end to it, and café, naïve 🙂 ", "two\nlines\n\nof it "])
def test_nothing_is_cut_at_exactly_the_bound_and_only_the_post_one_above_it(line: str) -> None:
    tokenizer, prompt = policy_tokenizer(), PromptText(BEFORE, line * 3, AFTER)
    exactly = length_of(prompt, prompt.body, tokenizer)
    assert WholePrompt(exactly, "cut").cut(prompt, tokenizer) == prompt.body
    shorter = WholePrompt(exactly - 1, "cut").cut(prompt, tokenizer)
    assert prompt.body.startswith(shorter)
    assert 0 < len(shorter) < len(prompt.body)
    [ids] = WholePrompt(exactly - 1, "cut").tokens([prompt], tokenizer, torch.Generator())
    assert tokenizer.decode(ids) == BEFORE + shorter + AFTER


@pytest.mark.parametrize(
    ("body", "max_tokens", "expected"),
    [
        ("one\ntwo\nthree", 13, "one\ntwo\nthree"),
        ("one\ntwo\nthree", 12, "one\ntwo"),  # the whole last line goes, though "one\ntwo\nthre" would fit
        ("one\ntwo\nthree", 6, "one"),
        ("one\ntwo\nthree", 2, "on"),  # no line is left: one character at a time
        ("one\ntwo\nthree", 0, ""),
        ("one two three", 12, "one two thre"),
        ("\none", 3, ""),  # the newline at the very start
        ("one\n\n\n", 5, "one\n\n"),
    ],
)
def test_the_rule_by_hand_with_a_token_a_character(body: str, max_tokens: int, expected: str) -> None:
    prompt = PromptText("<", body, ">")
    assert WholePrompt(max_tokens + 2, "cut").cut(prompt, CharacterTokenizer()) == expected


def test_a_prompt_that_does_not_fit_without_its_body_is_an_error_in_one_line() -> None:
    prompt, tokenizer = PromptText("TITLE: " + "long title " * 9, "post", AFTER), policy_tokenizer()
    least = length_of(prompt, "", tokenizer)
    assert WholePrompt(least, "cut").cut(prompt, tokenizer) == ""
    with pytest.raises(ValueError, match=rf"task\.prompt\.max_tokens={least - 1} tokens; raise it") as caught:
        WholePrompt(least - 1, "cut").cut(prompt, tokenizer)
    assert "\n" not in str(caught.value)


# Time: a post is cut with few encodings.

SENTENCE = "The unbelievable film was good, and not at all like the café that they don't believe in. "


@pytest.mark.parametrize("separator", ["", "\n"])
def test_a_post_of_10_000_characters_is_cut_with_few_encodings(separator: str) -> None:
    prompt = PromptText(BEFORE, separator.join([SENTENCE] * 120)[:10_000], AFTER)
    counting = Counting(long_tokenizer())
    kept = WholePrompt(512, "cut").cut(prompt, counting)
    assert 1000 < len(kept) < 3000
    assert counting.asked <= 200


# Long prompts that are left out instead.


def test_drop_leaves_out_exactly_those_above_the_bound_and_counts_them() -> None:
    tokenizer = policy_tokenizer()
    prompts = [PromptText("Q: ", "the film " * count, "\nA:", reward=f"H: {count}") for count in range(1, 9)]
    bound = length_of(prompts[3], prompts[3].body, tokenizer)
    assert length_of(prompts[4], prompts[4].body, tokenizer) > bound
    stream = PromptBatches(prompts, cut=WholePrompt(bound, "drop"), tokenizer=tokenizer, batch_size=4, seed=1)
    assert (len(stream), stream.dropped) == (4, 4)
    batch = stream.batch(0)
    assert sorted(batch.texts) == sorted(p.before + p.body + p.after for p in prompts[:4])
    assert batch.reward_texts is not None
    assert sorted(batch.reward_texts) == ["H: 1", "H: 2", "H: 3", "H: 4"]


def test_drop_that_leaves_too_few_prompts_says_so() -> None:
    prompts = [PromptText("Q: ", "the film " * 9, "\nA:")] * 5 + [PromptText("", "a", "")] * 2
    with pytest.raises(ValueError, match="2 prompts do not fill one batch of 3 prompts; use a smaller batch size"):
        PromptBatches(prompts, cut=WholePrompt(8, "drop"), tokenizer=policy_tokenizer(), batch_size=3, seed=1)


# Batches.


def test_batches_are_padded_on_the_left_and_keep_prompt_and_reward_text_together() -> None:
    tokenizer = policy_tokenizer()
    prompts = [PromptText("Q: ", f"film {n} " * (n + 1), "\nA:", reward=f"H: {n}") for n in range(12)]
    stream = PromptBatches(prompts, cut=WholePrompt(500, "cut"), tokenizer=tokenizer, batch_size=4, seed=3)
    seen = []
    for number in range(3):
        batch = stream.batch(number)
        assert batch.reward_texts is not None
        assert batch.prompt_ids.shape[1] == int(batch.prompt_mask.sum(1).max())
        rows = zip(batch.prompt_ids, batch.prompt_mask, batch.texts, batch.reward_texts, strict=True)
        for ids, mask, text, reward in rows:
            padding = int((~mask).sum())
            assert mask[padding:].all()
            assert (ids[:padding] == tokenizer.pad_token_id).all()
            number_of_prompt = int(reward.removeprefix("H: "))
            prompt = prompts[number_of_prompt]
            assert text == prompt.before + prompt.body + prompt.after
            assert ids[padding:].tolist() == tokenizer.encode(text, add_special_tokens=False)
            seen.append(number_of_prompt)
    assert sorted(seen) == list(range(12))


@pytest.mark.parametrize(
    ("max_tokens", "overlong", "message"),
    [
        (0, "cut", r"task\.prompt\.max_tokens=0; allowed: a whole number, 1 or more"),
        (2.5, "cut", r"task\.prompt\.max_tokens=2\.5; allowed: a whole number, 1 or more"),
        (9, "shorten", r"task\.prompt\.overlong=shorten; allowed: cut or drop"),
    ],
)
def test_impossible_settings_are_refused(max_tokens: Any, overlong: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WholePrompt(max_tokens, overlong)
