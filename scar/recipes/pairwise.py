"""Reward models from preferences: one better and several worse responses to a prompt, Bradley-Terry loss.

The prompt of a group runs once; its keys and values serve all its responses, in training too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from scar.models.policy import positions
from scar.supervised import ProgressCallback, TrainingConfig, fit, pad_right
from scar.tasks.prompts import left_pad


@dataclass(frozen=True)
class Group:
    """Token rows: a prompt, and responses of which the first is better than each of the others."""

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]


def group_scores(model: Any, groups: Sequence[Group], *, pad_id: int) -> Tensor:
    """f32[R]: the scalar head at the last token of every response, group after group."""
    device = next(model.parameters()).device
    ids, mask = (x.to(device) for x in left_pad([group.prompt for group in groups], pad_id=pad_id))
    cache = DynamicCache(config=model.config)
    model.base_model(
        input_ids=ids, attention_mask=mask.long(), position_ids=positions(mask), past_key_values=cache, use_cache=True
    )
    owner = torch.tensor([number for number, group in enumerate(groups) for _ in group.responses], device=device)
    cache.batch_select_indices(owner)
    rows = [row for group in groups for row in group.responses]
    row_ids, row_mask = (x.to(device) for x in pad_right(rows, pad_id=pad_id))
    seen = torch.cat([mask[owner], row_mask], 1)
    hidden = model.base_model(
        input_ids=row_ids,
        attention_mask=seen.long(),
        position_ids=positions(seen)[:, ids.shape[1] :],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return model.score(hidden[torch.arange(len(rows), device=device), row_mask.sum(1) - 1]).squeeze(-1)


def margins(scores: Tensor, groups: Sequence[Group]) -> Tensor:
    """f32[pairs]: the better response's score less that of each worse one, for scores f32[R] of `group_scores`."""
    parts = scores.split([len(group.responses) for group in groups])
    return torch.cat([part[0] - part[1:] for part in parts])


def train_pairwise(
    model: Any,
    draw: Callable[[list[int]], list[Group]],
    count: int,
    *,
    config: TrainingConfig,
    pad_id: int,
    generator: torch.Generator,
    progress: ProgressCallback,
) -> None:
    """Train `model` in place: mean over pairs of -log sigmoid(better - worse).

    `draw` gives the groups of a batch of row numbers below `count`, drawn anew each time.
    """

    def loss_of(chosen: list[int]) -> Tensor:
        groups = draw(chosen)
        return -nn.functional.logsigmoid(margins(group_scores(model, groups, pad_id=pad_id), groups)).mean()

    fit(model, loss_of, count, config=config, generator=generator, progress=progress)


@torch.no_grad()
def score_groups(model: Any, groups: Sequence[Group], *, pad_id: int, groups_a_batch: int = 64) -> Tensor:
    """f32[R]: `group_scores` of many groups, without gradients."""
    batches = [groups[start : start + groups_a_batch] for start in range(0, len(groups), groups_a_batch)]
    return torch.cat([group_scores(model, batch, pad_id=pad_id) for batch in batches])
