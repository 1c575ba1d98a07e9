"""What the reward model reads of a response: the sampled tokens, or its own tokens of the same text.

Where both models have one tokenizer the ids are passed on as sampled (decoding and encoding again is not the identity).
Where they differ, the response's text is tokenised once and every token is mapped to the policy's tokens by the
characters that they share (docs/decisions.md#two-tokenizers). The response is always tokenised apart from the prompt, so that
no token
spans the border between what is never absent and what may be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scar.segmentation.offsets import token_offsets
from scar.types import PromptBatch, RewardInputs, Rollout

PROBE = "Two tokenizers, one text: na\u00efve \U0001f642 caf\u00e9s\n\n  cost 3.50 dollars, don't they?"


def same_tokenizer(first: Any, second: Any) -> bool:
    """Whether two tokenizers have the same vocabulary and cut a probe text alike."""
    encoded = [t.encode(PROBE, add_special_tokens=False) for t in (first, second)]
    return encoded[0] == encoded[1] and first.get_vocab() == second.get_vocab()


def as_sampled(rollout: Rollout, *, reads_eos: bool) -> RewardInputs:
    """The very tokens of a rollout, with a closing EOS or without it."""
    mask = rollout.response_mask if reads_eos else rollout.content_mask
    steps = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    step = torch.where(rollout.content_mask, steps, torch.full_like(steps, -1))
    prompts = rollout.prompts
    return RewardInputs(prompts.prompt_ids, prompts.prompt_mask, rollout.response_ids, mask, step, steps)


class RewardReader:
    """Reads rollouts for a reward model of context `max_tokens` (prompt and response together).

    `reads_eos`: a closing EOS is part of what is read (tldr), or is left out (imdb, hh).
    """

    def __init__(self, policy_tokenizer: Any, reward_tokenizer: Any, *, reads_eos: bool, max_tokens: int) -> None:
        self._policy_tokenizer = policy_tokenizer
        self._tokenizer = reward_tokenizer
        self._same = same_tokenizer(policy_tokenizer, reward_tokenizer)
        self._reads_eos = reads_eos
        self._max_tokens = max_tokens

    def read(self, rollout: Rollout) -> RewardInputs:
        """ValueError if a prompt and its response are longer than the reward model's context."""
        prompt_ids, prompt_mask = self._prompts(rollout.prompts)
        if self._same:
            inputs = replace(
                as_sampled(rollout, reads_eos=self._reads_eos), prompt_ids=prompt_ids, prompt_mask=prompt_mask
            )
        else:
            inputs = RewardInputs(prompt_ids, prompt_mask, *self._through_text(rollout))
        longest = int(inputs.sequence_mask().sum(1).max())
        if longest > self._max_tokens:
            raise ValueError(
                f"prompt and response take {longest} tokens of the reward model, which reads {self._max_tokens}; "
                "lower task.generation.max_new_tokens or task.prompt.max_tokens"
            )
        return inputs

    def _prompts(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        if self._same and prompts.reward_texts is None:
            return prompts.prompt_ids, prompts.prompt_mask
        texts = prompts.texts if prompts.reward_texts is None else prompts.reward_texts
        rows = [self._strip_eos(self._tokenizer(text)["input_ids"]) for text in texts]
        if not all(rows):
            raise ValueError("a prompt is empty for the reward model; give it at least one character")
        width = max(map(len, rows))
        ids = torch.tensor([[self._pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
        return ids.to(prompts.prompt_ids.device), mask.to(prompts.prompt_ids.device)

    @property
    def _pad(self) -> int:
        return self._tokenizer.pad_token_id

    def _strip_eos(self, ids: list[int]) -> list[int]:
        """Without the EOS that some tokenizers add behind every text."""
        return ids[:-1] if ids and ids[-1] == self._tokenizer.eos_token_id else ids

    def _through_text(self, rollout: Rollout) -> tuple[Tensor, ...]:
        """ids, mask, step, end_step, overlap in the reward model's own tokens."""
        contents = zip(rollout.response_ids.tolist(), rollout.content_mask.tolist(), strict=True)
        rows = [self._align([i for i, real in zip(ids, mask, strict=True) if real]) for ids, mask in contents]
        closed = (rollout.finished & self._reads_eos).tolist()
        width = max(max(len(row[0]) + end for row, end in zip(rows, closed, strict=True)), 1)
        batch, steps = rollout.response_ids.shape
        ids = torch.full((batch, width), self._pad)
        mask = torch.zeros(batch, width, dtype=torch.bool)
        step = torch.full((batch, width), -1)
        end_step = torch.zeros(batch, width, dtype=torch.int64)
        overlap = torch.zeros(batch, width, steps)
        for i, ((tokens, owners, ends, shares), end) in enumerate(zip(rows, closed, strict=True)):
            count = len(tokens)
            ids[i, :count], step[i, :count], end_step[i, :count] = map(torch.tensor, (tokens, owners, ends))
            overlap[i, :count, : shares.shape[1]] = shares
            if end:
                ids[i, count], end_step[i, count] = self._tokenizer.eos_token_id, rollout.last_step[i]
            mask[i, : count + end] = True
        device = rollout.response_ids.device
        return tuple(x.to(device) for x in (ids, mask, step, end_step, overlap))

    def _align(self, policy_ids: list[int]) -> tuple[list[int], list[int], list[int], Tensor]:
        """Tokens of the reward model, the policy token of each one's first non-space character, the policy token of its
        last one, and the share f32[R,T] of its characters that lie in each policy token."""
        text, spans = token_offsets(policy_ids, self._policy_tokenizer)
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        # Which policy token holds each character; a token that completes no character holds none.
        holder = [number for number, (start, end) in enumerate(spans) for _ in range(start, end)]
        tokens: list[int] = []
        owners: list[int] = []
        ends: list[int] = []
        if not holder:  # nothing but EOS, or bytes that complete no character
            return tokens, owners, ends, torch.zeros(0, len(policy_ids))
        shares = torch.zeros(len(encoded["input_ids"]), len(policy_ids))
        for row, (token, (start, end)) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)):
            end = min(max(end, 1), len(holder))  # a mark of the tokenizer's own may have no character
            start = min(start, end - 1)
            inside = range(start, end)
            solid = [c for c in inside if not text[c].isspace()] or list(inside)
            tokens.append(token)
            owners.append(holder[solid[0]])
            ends.append(holder[solid[-1]])
            for c in inside:
                shares[row, holder[c]] += 1 / len(inside)
        return tokens, owners, ends, shares
