"""Prompt batches: which texts, how many of their first tokens, left padding. Random access by batch number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from scar.seeding import generator
from scar.types import PromptBatch


def left_pad(rows: Sequence[Sequence[int]], *, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack token rows into ids i64[B,P] and mask b[B,P], padding on the left."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows], dtype=torch.int64)
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return ids, mask


class TextPrefixPrompts:
    """The first k tokens of texts, k ~ U{min_tokens..max_tokens} a prompt (Table 3 text: "the first 4 to 8 tokens").

    Each pass over the texts is one permutation (stream "prompts", update = pass); an incomplete last batch is dropped.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        tokenizer: Any,
        batch_size: int,
        min_tokens: int,
        max_tokens: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        whole = isinstance(min_tokens, int) and isinstance(max_tokens, int)
        if not whole or not 1 <= min_tokens <= max_tokens:
            raise ValueError(
                f"task.prompt.min_tokens={min_tokens}, max_tokens={max_tokens}; allowed: whole numbers, 1 <= min <= max"
            )
        self._texts = texts
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._lengths = (min_tokens, max_tokens)
        self._seed = seed
        self._device = device
        self._batches_a_pass = len(texts) // batch_size
        if not self._batches_a_pass:
            raise ValueError(
                f"{len(texts)} texts do not fill one batch of {batch_size} prompts; use a smaller batch size"
            )

    def batch(self, number: int) -> PromptBatch:
        """Batch `number` (0-based); equal numbers give equal batches."""
        passes, place = divmod(number, self._batches_a_pass)
        order = torch.randperm(len(self._texts), generator=generator(self._seed, "prompts", passes))
        chosen = order[place * self._batch_size : (place + 1) * self._batch_size].tolist()
        low, high = self._lengths
        lengths = torch.randint(
            low, high + 1, (len(chosen),), generator=generator(self._seed, "prompt_lengths", number)
        ).tolist()
        rows = [self._first_tokens(self._texts[i], k) for i, k in zip(chosen, lengths, strict=True)]
        ids, mask = left_pad(rows, pad_id=self._tokenizer.pad_token_id)
        texts = [self._tokenizer.decode(row) for row in rows]
        return PromptBatch(ids.to(self._device), mask.to(self._device), texts)

    def _first_tokens(self, text: str, count: int) -> list[int]:
        # A token never spans 40 characters here, so the head of the text is enough and much cheaper to encode.
        return self._tokenizer.encode(text[: 40 * count], add_special_tokens=False)[:count]
