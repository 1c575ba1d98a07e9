"""Prompt batches: the first 4 to 8 tokens of texts, left-padded, each text once a pass, any batch at any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from scar.interfaces import PromptText
from scar.tasks.prompts import FirstTokens, PromptBatches

PAD = 0


class WordTokenizer:
    """Token = word "w<number>", id = that number."""

    pad_token_id = PAD

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [int(word[1:]) for word in text.split() if word[1:].isdigit()]

    def decode(self, token_ids: Sequence[int]) -> str:
        return " ".join(f"w{token}" for token in token_ids)


def text_of(number: int) -> str:
    """Text `number` has the words 100 * number + 1, + 2, ... + 30."""
    return " ".join(f"w{100 * number + word}" for word in range(1, 31))


def prompts_of(
    texts: int = 40, *, batch_size: int = 8, seed: int = 1, low: int = 4, high: int = 8, drop_last: bool = True
) -> PromptBatches:
    return PromptBatches(
        [PromptText("", text_of(i), "") for i in range(texts)],
        cut=FirstTokens(low, high),
        tokenizer=WordTokenizer(),
        batch_size=batch_size,
        seed=seed,
        drop_last=drop_last,
    )


def real_rows(prompts: PromptBatches, number: int) -> list[list[int]]:
    batch = prompts.batch(number)
    return [ids[mask].tolist() for ids, mask in zip(batch.prompt_ids, batch.prompt_mask, strict=True)]


def test_lengths_are_four_to_eight_and_about_equally_frequent() -> None:
    stream = prompts_of(400, batch_size=100)
    lengths = Counter(len(row) for number in range(20) for row in real_rows(stream, number))
    assert sorted(lengths) == [4, 5, 6, 7, 8]
    # 2,000 draws: 400 a length, standard deviation 18
    assert all(abs(count - 400) < 90 for count in lengths.values())


def test_prompts_are_the_first_tokens_of_their_texts() -> None:
    for row in real_rows(prompts_of(), 0):
        number = row[0] // 100
        assert row == [100 * number + word for word in range(1, len(row) + 1)]


def test_padding_is_on_the_left_and_masked() -> None:
    batch = prompts_of().batch(3)
    assert batch.prompt_ids.shape[1] == int(batch.prompt_mask.sum(1).max())
    for ids, mask, text in zip(batch.prompt_ids, batch.prompt_mask, batch.texts, strict=True):
        padding = int((~mask).sum())
        assert not mask[:padding].any()
        assert mask[padding:].all()
        assert (ids[:padding] == PAD).all()
        assert text == " ".join(f"w{token}" for token in ids[padding:].tolist())


def test_a_batch_is_the_same_however_often_and_in_whatever_order_it_is_asked_for() -> None:
    one, other = prompts_of(), prompts_of()
    first = [one.batch(number) for number in (0, 1, 7)]
    second = [other.batch(number) for number in (7, 1, 0)][::-1]
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.prompt_ids, b.prompt_ids)
        assert torch.equal(a.prompt_mask, b.prompt_mask)
        assert a.texts == b.texts


def test_prompts_leave_global_generators_alone() -> None:
    before = torch.get_rng_state()
    prompts_of().batch(0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("texts", "batch_size"), [(40, 8), (43, 8), (15, 8)])
def test_every_text_comes_at_most_once_a_pass(texts: int, batch_size: int) -> None:
    stream, batches = prompts_of(texts, batch_size=batch_size), texts // batch_size
    passes = []
    for start in (0, batches):
        seen = [row[0] // 100 for number in range(start, start + batches) for row in real_rows(stream, number)]
        assert len(seen) == batches * batch_size == len(set(seen))
        passes.append(seen)
    assert passes[0] != passes[1]  # a new order each pass


def test_a_last_batch_that_is_kept_has_the_rest_and_the_batches_before_it_are_the_same() -> None:
    whole, kept = prompts_of(20, drop_last=True), prompts_of(20, drop_last=False)
    assert [real_rows(kept, number) for number in (0, 1)] == [real_rows(whole, number) for number in (0, 1)]
    seen = [[row[0] // 100 for row in real_rows(kept, number)] for number in range(3)]
    assert list(map(len, seen)) == [8, 8, 4]
    assert sorted(number for batch in seen for number in batch) == list(range(20))
    assert len(real_rows(prompts_of(5, drop_last=False), 0)) == 5  # fewer than one batch


def test_too_few_texts_for_one_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="7 prompts do not fill one batch of 8 prompts; use a smaller batch size"):
        prompts_of(7)
    with pytest.raises(ValueError, match="0 prompts do not fill one batch"):
        prompts_of(0, drop_last=False)


@pytest.mark.parametrize(("low", "high"), [(0, 8), (9, 8), (-1, 4)])
def test_impossible_lengths_are_refused(low: int, high: int) -> None:
    with pytest.raises(
        ValueError, match=rf"min_tokens={low}, max_tokens={high}; allowed: whole numbers, 1 <= min <= max"
    ):
        prompts_of(low=low, high=high)
