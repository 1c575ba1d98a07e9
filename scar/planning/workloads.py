"""The workloads of the attribution benchmark: random models of two sizes and random responses with given units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForSequenceClassification

from scar.interfaces import RewardModel
from scar.models.reading import as_sampled
from scar.models.reward import SequenceRewardModel
from scar.segmentation.hierarchies import balanced_hierarchy
from scar.types import PromptBatch, Rollout, Scores, Units

SPACE_ID = 5
FIRST_TEXT_ID = 6
SIZES = {
    "smaller": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 2048},
    "larger": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "vocab_size": 50304},
}
"""GPT-NeoX, the architecture of the paper's TL;DR models, at 0.8M and 4.7M parameters without embeddings."""


@dataclass(frozen=True)
class Workload:
    """`responses` texts of `prompt` + `tokens` tokens whose `tokens` form `units` contiguous units."""

    name: str
    size: str
    prompt: int
    tokens: int
    units: int
    responses: int


def random_config(size: str) -> Any:
    """A GPT-NeoX configuration of one of SIZES."""
    width = SIZES[size]["hidden_size"]
    return GPTNeoXConfig(**SIZES[size], intermediate_size=4 * width, max_position_embeddings=1024, pad_token_id=0)


def random_reward_model(size: str) -> SequenceRewardModel:
    """A scalar reward model with random weights, scaled up so that its scores differ."""
    config = random_config(size)
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPTNeoXForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return SequenceRewardModel(model, space_id=SPACE_ID)


def random_prompts(count: int, length: int, *, seed: int = 0) -> PromptBatch:
    """Random prompts of equal length."""
    rng = np.random.default_rng([seed, length])
    ids = torch.from_numpy(rng.integers(FIRST_TEXT_ID, 2000, (count, length)))
    return PromptBatch(ids, torch.ones_like(ids, dtype=torch.bool), [""] * count)


def random_rollout(work: Workload) -> Rollout:
    """Random responses behind random prompts; nobody sampled them, so log-probabilities and values are 0."""
    rng = np.random.default_rng([1, work.tokens])
    ids = torch.from_numpy(rng.integers(FIRST_TEXT_ID, 2000, (work.responses, work.tokens)))
    zeros = torch.zeros(ids.shape)
    return Rollout(
        prompts=random_prompts(work.responses, work.prompt),
        response_ids=ids,
        response_mask=torch.ones_like(ids, dtype=torch.bool),
        logprobs=zeros,
        ref_logprobs=zeros,
        values=zeros,
        finished=torch.zeros(len(ids), dtype=torch.bool),
        texts=[""] * len(ids),
    )


def random_units(rollout: Rollout, count: int) -> Units:
    """`count` contiguous units of unequal length in every response, under a mid-split hierarchy."""
    batch, tokens = rollout.response_ids.shape
    rng = np.random.default_rng([2, tokens, count])
    starts = np.stack([np.sort(rng.choice(np.arange(1, tokens), count - 1, replace=False)) for _ in range(batch)])
    unit_index = (np.arange(tokens)[None, None, :] >= starts[:, :, None]).sum(1)
    ends = np.concatenate([starts - 1, np.full((batch, 1), tokens - 1)], 1)
    return Units(
        unit_index=torch.from_numpy(unit_index),
        count=torch.full((batch,), count),
        end_step=torch.from_numpy(ends),
        hierarchies=[balanced_hierarchy(count)] * batch,
    )


def score(reward_model: RewardModel, rollout: Rollout) -> Scores:
    """Raw scores of whole responses."""
    inputs = as_sampled(rollout, reads_eos=True)
    raw = reward_model.score(inputs.sequence_ids(), inputs.sequence_mask())
    return Scores(raw=raw, final=raw, replaced=torch.zeros_like(rollout.finished), inputs=inputs)
