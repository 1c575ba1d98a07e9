"""Mean test-set score of a policy, with the texts that it was given for (docs/decisions.md#evaluation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from scar.config import EvaluationConfig
from scar.ppo.rollout import ResponseScoring, Sampler
from scar.seeding import generator
from scar.tasks.prompts import PromptBatches
from scar.types import PromptBatch, Rollout


def distinct_bigrams(token_ids: list[int]) -> int:
    """How many different adjacent token pairs a response has: a plain measure of collapse into repetition."""
    return len(set(pairwise(token_ids)))


def _real(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    return [row[real].tolist() for row, real in zip(ids.cpu(), mask.cpu(), strict=True)]


def _rows(rollout: Rollout, rewards: list[float]) -> list[dict[str, Any]]:
    """What was evaluated, with the token ids, so that its credit can be computed later for exactly these tokens."""
    prompts = rollout.prompts
    columns: dict[str, Sequence[Any]] = {
        "prompt": prompts.texts,
        "reward_prompt": prompts.reward_texts or [None] * len(prompts.texts),
        "response": rollout.texts,
        "reward": rewards,
        "prompt_ids": _real(prompts.prompt_ids, prompts.prompt_mask),
        "response_ids": _real(rollout.response_ids, rollout.response_mask),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def evaluate_policy(
    sampler: Sampler,
    prompts: PromptBatches,
    scoring: ResponseScoring,
    config: EvaluationConfig,
    *,
    device: torch.device,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Sample on `config.prompts` test prompts; every policy sees the same prompts and streams.

    KL is measured on responses of the training's sampling settings. All else is said of these too, or, with a
    `config.temperature`, of a second response to each prompt, drawn at it (docs/decisions.md#evaluation).

    Returns a summary (reward_mean and reward_std over prompts (ddof 1) of the raw score, score_mean after the task's
    rules, kl_mean: mean per-sequence KL sum to the reference in nats, length_mean in tokens, eos_frac,
    distinct_bigrams_mean, prompts) and a row for each prompt: prompt, reward_prompt (as the reward model reads it; None:
    as the policy does), response, reward, and the token ids without padding (prompt_ids, response_ids).
    """
    rewards: list[float] = []
    finals: list[float] = []
    kls: list[float] = []
    lengths: list[int] = []
    bigrams: list[int] = []
    finished: list[bool] = []
    samples: list[dict[str, Any]] = []
    for number in range(-(-config.prompts // config.batch_size)):
        stream = generator(config.seed, "evaluation_sampling", number, device=device)
        rollout = sampler.sample(batch := prompts.batch(number), generator=stream)
        kls += (rollout.logprobs - rollout.ref_logprobs).sum(1).tolist()
        if config.temperature is not None:
            stream = generator(config.seed, "evaluation_responses", number, device=device)
            rollout = sampler.respond(batch, generator=stream, temperature=config.temperature)
        scores = scoring.score(rollout)
        raw = scores.raw.tolist()
        rewards += raw
        finals += scores.final.tolist()
        lengths += rollout.response_mask.sum(1).tolist()
        finished += rollout.finished.tolist()
        bigrams += [distinct_bigrams(ids) for ids in _real(rollout.response_ids, rollout.response_mask)]
        samples += _rows(rollout, raw)
    keep = slice(config.prompts)
    summary = {
        "reward_mean": float(np.mean(rewards[keep])),
        "reward_std": float(np.std(rewards[keep], ddof=1)) if config.prompts > 1 else 0.0,
        "score_mean": float(np.mean(finals[keep])),
        "kl_mean": float(np.mean(kls[keep])),
        "length_mean": float(np.mean(lengths[keep])),
        "eos_frac": float(np.mean(finished[keep])),
        "distinct_bigrams_mean": float(np.mean(bigrams[keep])),
        "prompts": config.prompts,
    }
    return summary, samples[keep]


# Stored samples as a rollout again, so that models can read exactly the tokens that were sampled.


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
    reward_prompts = [row.get("reward_prompt") for row in rows]
    if len({text is None for text in reward_prompts}) > 1:
        raise ValueError("some samples have a reward_prompt and some have none; give those of one run")
    batch = PromptBatch(
        prompts.flip(1).to(device),
        prompt_mask.flip(1).to(device),
        [row["prompt"] for row in rows],
        None if all(text is None for text in reward_prompts) else [str(text) for text in reward_prompts],
    )
    zeros = torch.zeros(mask.shape, device=device)
    finished = torch.tensor([row["response_ids"][-1] == eos_id for row in rows], device=device)
    texts = [row["response"] for row in rows]
    return Rollout(batch, responses.to(device), mask.to(device), zeros, zeros, zeros, finished, texts)


def _padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    return ids, torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
