"""Prompt batches: which texts, how much of them, left padding. Random access by batch number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from scar.config import require
from scar.interfaces import PromptText
from scar.seeding import generator
from scar.types import PromptBatch


def left_pad(rows: Sequence[Sequence[int]], *, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack token rows into ids i64[B,P] and mask b[B,P], padding on the left."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows], dtype=torch.int64)
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return ids, mask


def _opening(tokenizer: Any) -> list[int]:
    """The BOS that some tokenizers (Llama's) put before every text, or nothing (docs/decisions.md#bos)."""
    bos = getattr(tokenizer, "bos_token_id", None)
    return [bos] if bos is not None and tokenizer.encode("x", add_special_tokens=True)[0] == bos else []


def _encode(tokenizer: Any, text: str) -> list[int]:
    return _opening(tokenizer) + tokenizer.encode(text, add_special_tokens=False)


class Cut(Protocol):
    """Which part of each prompt is used."""

    def select(self, prompts: Sequence[PromptText], tokenizer: Any) -> list[PromptText]:
        """The prompts that are used at all."""
        ...

    def tokens(self, prompts: Sequence[PromptText], tokenizer: Any, generator: torch.Generator) -> list[list[int]]:
        """The token ids of a batch of prompts; `generator` is the batch's own."""
        ...


class PromptBatches:
    """Batches of prompts: each pass over them is one permutation (stream "prompts", update = pass). An incomplete last batch
    is dropped, or with `drop_last` False given as it is. `dropped` counts the prompts that `cut` does not use."""

    def __init__(
        self,
        prompts: Sequence[PromptText],
        *,
        cut: Cut,
        tokenizer: Any,
        batch_size: int,
        seed: int,
        drop_last: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self._prompts = cut.select(prompts, tokenizer)
        self.dropped = len(prompts) - len(self._prompts)
        self._cut = cut
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        count = len(self._prompts)
        self._batches_a_pass = count // batch_size if drop_last else -(-count // batch_size)
        if not self._batches_a_pass:
            raise ValueError(
                f"{len(self)} prompts do not fill one batch of {batch_size} prompts; use a smaller batch size"
            )

    def __len__(self) -> int:
        return len(self._prompts)

    def batch(self, number: int) -> PromptBatch:
        """Batch `number` (0-based); equal numbers give equal batches."""
        passes, index = divmod(number, self._batches_a_pass)
        order = torch.randperm(len(self._prompts), generator=generator(self._seed, "prompts", passes))
        rows_of_batch = order[index * self._batch_size : (index + 1) * self._batch_size].tolist()
        chosen = [self._prompts[i] for i in rows_of_batch]
        rows = self._cut.tokens(chosen, self._tokenizer, generator(self._seed, "prompt_lengths", number))
        ids, mask = left_pad(rows, pad_id=self._tokenizer.pad_token_id)
        start = len(_opening(self._tokenizer))  # no text
        texts = [self._tokenizer.decode(row[start:]) for row in rows]
        for_reward = [prompt.reward for prompt in chosen if prompt.reward is not None]
        return PromptBatch(ids.to(self._device), mask.to(self._device), texts, for_reward or None)


@dataclass(frozen=True)
class FirstTokens:
    """The first k tokens of the body, k ~ U{min_tokens..max_tokens} a prompt (paper 4.1: "the first 4 to 8 tokens")."""

    min_tokens: int
    max_tokens: int

    def __post_init__(self) -> None:
        whole = isinstance(self.min_tokens, int) and isinstance(self.max_tokens, int)
        got = f"task.prompt.min_tokens={self.min_tokens}, max_tokens={self.max_tokens}"
        require(whole and 1 <= self.min_tokens <= self.max_tokens, got, "whole numbers, 1 <= min <= max")

    def select(self, prompts: Sequence[PromptText], tokenizer: Any) -> list[PromptText]:
        """All of them."""
        return list(prompts)

    def tokens(self, prompts: Sequence[PromptText], tokenizer: Any, generator: torch.Generator) -> list[list[int]]:
        """Token ids, of a length drawn for each prompt."""
        lengths = torch.randint(self.min_tokens, self.max_tokens + 1, (len(prompts),), generator=generator).tolist()
        # A token never spans 40 characters here, so the head of the text is enough and much cheaper to encode.
        opening = len(_opening(tokenizer))
        return [
            _encode(tokenizer, prompt.body[: 40 * k])[: opening + k] for prompt, k in zip(prompts, lengths, strict=True)
        ]


@dataclass(frozen=True)
class WholePrompt:
    """Whole prompts of at most `max_tokens` tokens. A longer one has its body cut (`overlong: cut`; N+'s rule for POST:
    at its last newline, else by one character, until it fits) or is not used (`overlong: drop`; ABC's rule)."""

    max_tokens: int
    overlong: str

    def __post_init__(self) -> None:
        whole = isinstance(self.max_tokens, int) and self.max_tokens >= 1
        require(whole, f"task.prompt.max_tokens={self.max_tokens}", "a whole number, 1 or more")
        require(self.overlong in ("cut", "drop"), f"task.prompt.overlong={self.overlong}", "cut or drop")

    def select(self, prompts: Sequence[PromptText], tokenizer: Any) -> list[PromptText]:
        """All of them, or those that fit."""
        if self.overlong == "cut":
            return list(prompts)
        return [prompt for prompt in prompts if self._fits(tokenizer, prompt, prompt.body)]

    def tokens(self, prompts: Sequence[PromptText], tokenizer: Any, generator: torch.Generator) -> list[list[int]]:
        """Token ids of the prompts, cut where needed."""
        return [_encode(tokenizer, p.before + self.cut(p, tokenizer) + p.after) for p in prompts]

    def _fits(self, tokenizer: Any, prompt: PromptText, body: str) -> bool:
        return self._excess(tokenizer, prompt, body) <= 0

    def _excess(self, tokenizer: Any, prompt: PromptText, body: str) -> int:
        """How many tokens too many the prompt has with this body."""
        return len(_encode(tokenizer, prompt.before + body + prompt.after)) - self.max_tokens

    def cut(self, prompt: PromptText, tokenizer: Any) -> str:
        """The body of a prompt, cut until the prompt fits. ValueError if even an empty body does not fit.

        The result is that of the rule; heads that cannot fit are passed over without being encoded.
        """
        body, longest = prompt.body, None
        while (excess := self._excess(tokenizer, prompt, body)) > 0:
            if not body:
                raise ValueError(
                    f"a prompt without its body takes more than task.prompt.max_tokens={self.max_tokens} tokens; "
                    "raise it"
                )
            if longest is None:
                longest = self._longest(tokenizer, prompt)
            # A character is at most four tokens; 64 is a margin.
            length = max(min(len(body) - max((excess - 64) // 4, 1), longest), 0)
            first, last = body.find("\n"), body.rfind("\n", 0, length + 1)
            body = body[:length] if first < 0 else body[: max(first, last)]
        return body

    def _longest(self, tokenizer: Any, prompt: PromptText) -> int:
        """A head of the body longer than this cannot fit: it ends behind the word that holds the last token allowed."""
        whole = tokenizer(prompt.before + prompt.body, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in whole["offset_mapping"]][: self.max_tokens]
        reached = max((ends or [0])[-1] - len(prompt.before), 0)
        rest = re.match(r"\S*\s*", prompt.body[reached:])
        return reached + (rest.end() if rest else 0)
