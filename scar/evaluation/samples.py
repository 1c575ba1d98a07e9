"""Stored samples as a rollout again, so that models can read exactly the tokens that were sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from scar.types import PromptBatch, Rollout

IDS = ("prompt_ids", "response_ids")


def rollout_of_samples(
    rows: Sequence[Mapping[str, Any]], *, pad_id: int, eos_id: int, device: torch.device | str = "cpu"
) -> Rollout:
    """Rows of samples.jsonl as a rollout; log-probabilities and values, which are not stored, are 0.

    Raises ValueError for no row, for rows without token ids (samples of earlier versions), and if only some rows have a prompt
    of the reward model's own.
    """
    if not rows:
        raise ValueError("no samples to read")
    if absent := [key for key in IDS if any(not row.get(key) for row in rows)]:
        raise ValueError(f"samples without {', '.join(absent)}: an earlier version wrote them; run that run again")
    prompts, prompt_mask = _padded([row["prompt_ids"][::-1] for row in rows], pad_id)
    responses, mask = _padded([row["response_ids"] for row in rows], pad_id)
    read = [row.get("reward_prompt") for row in rows]
    if len({text is None for text in read}) > 1:
        raise ValueError("some samples have a reward_prompt and some have none; give those of one run")
    batch = PromptBatch(
        prompts.flip(1).to(device),
        prompt_mask.flip(1).to(device),
        [row["prompt"] for row in rows],
        None if all(text is None for text in read) else [str(text) for text in read],
    )
    zeros = torch.zeros(mask.shape, device=device)
    finished = torch.tensor([row["response_ids"][-1] == eos_id for row in rows], device=device)
    texts = [row["response"] for row in rows]
    return Rollout(batch, responses.to(device), mask.to(device), zeros, zeros, zeros, finished, texts)


def _padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    return ids, torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
