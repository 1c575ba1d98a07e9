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

from scar.config import check_numbers, require
from scar.models.policy import positions
from scar.supervised import ProgressCallback, TrainingConfig, fit, pad_right
from scar.tasks.prompts import left_pad


@dataclass(frozen=True)
class Group:
    """Token rows: a prompt, and responses of which the first is better than each of the others.

    `labels`, empty or one for the prompt and each response: what a reading of their states is taught beside the
    preferences, 0 to 1, NaN where it is not known.
    """

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]
    labels: Sequence[float] = ()


@dataclass(frozen=True)
class PairLoss:
    """Mean over pairs of -log sigmoid(better - worse), and two terms beside it.

    `center` weights the mean over pairs of (better + worse)^2. A preference leaves the level of a prompt or a length open;
    this sets it to 0 (Eisenstein et al. 2023, "Helping or Herding?"; TRL's center_rewards_coefficient).
    `label` weights the cross entropy of a linear reading of the groups' labels, half on prompts, half on responses.
    """

    center: float = 0.0
    label: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self, "loss")
        require(self.center >= 0 and self.label >= 0, f"loss.center={self.center}, label={self.label}", "0 or more")


def group_states(model: Any, groups: Sequence[Group], *, pad_id: int) -> tuple[Tensor, Tensor]:
    """f32[G,W], f32[R,W]: the last hidden state of every prompt and, group after group, of every response."""
    device = next(model.parameters()).device
    ids, mask = (x.to(device) for x in left_pad([group.prompt for group in groups], pad_id=pad_id))
    cache = DynamicCache(config=model.config)
    prompts = model.base_model(
        input_ids=ids, attention_mask=mask.long(), position_ids=positions(mask), past_key_values=cache, use_cache=True
    ).last_hidden_state[:, -1]
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
    return prompts, hidden[torch.arange(len(rows), device=device), row_mask.sum(1) - 1]


def group_scores(model: Any, groups: Sequence[Group], *, pad_id: int) -> Tensor:
    """f32[R]: the scalar head at the last token of every response, group after group."""
    return model.score(group_states(model, groups, pad_id=pad_id)[1]).squeeze(-1)


def _sides(scores: Tensor, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
    """f32[pairs] twice: the better and the worse score of every pair."""
    parts = scores.split([len(group.responses) for group in groups])
    return torch.cat([part[:1].expand(len(part) - 1) for part in parts]), torch.cat([part[1:] for part in parts])


def margins(scores: Tensor, groups: Sequence[Group]) -> Tensor:
    """f32[pairs]: the better response's score less that of each worse one, for scores f32[R] of `group_scores`."""
    better, worse = _sides(scores, groups)
    return better - worse


def pair_loss(scores: Tensor, groups: Sequence[Group], *, center: float = 0.0) -> Tensor:
    """The preference and the centering term of `PairLoss`, for scores f32[R]."""
    better, worse = _sides(scores, groups)
    return -nn.functional.logsigmoid(better - worse).mean() + center * (better + worse).square().mean()


def label_loss(reader: nn.Module, prompts: Tensor, responses: Tensor, groups: Sequence[Group]) -> Tensor:
    """The label term of `PairLoss`: `reader` gives two logits of a state, the first for prompts, the second for responses."""

    def loss_of(logits: Tensor, labels: list[float]) -> Tensor:
        wanted = torch.tensor(labels, device=logits.device)
        known = ~wanted.isnan()
        return nn.functional.binary_cross_entropy_with_logits(logits[known], wanted[known])

    of_prompts = loss_of(reader(prompts)[:, 0], [group.labels[0] for group in groups])
    return (of_prompts + loss_of(reader(responses)[:, 1], [x for group in groups for x in group.labels[1:]])) / 2


def train_pairwise(
    model: Any,
    draw: Callable[[list[int]], list[Group]],
    count: int,
    *,
    loss: PairLoss,
    config: TrainingConfig,
    pad_id: int,
    generator: torch.Generator,
    progress: ProgressCallback,
) -> None:
    """Train `model` in place on `loss`. `draw` gives the groups of a batch of row numbers below `count`, drawn anew each
    time; where `loss.label` is above 0 all have labels."""
    device = next(model.parameters()).device
    reader = nn.utils.skip_init(nn.Linear, model.config.hidden_size, 2, device=device)
    for parameter in reader.parameters():
        nn.init.zeros_(parameter)

    def loss_of(chosen: list[int]) -> Tensor:
        groups = draw(chosen)
        prompts, responses = group_states(model, groups, pad_id=pad_id)
        found = pair_loss(model.score(responses).squeeze(-1), groups, center=loss.center)
        return found + loss.label * label_loss(reader, prompts, responses, groups) if loss.label else found

    learned = nn.ModuleList([model, reader]) if loss.label else model
    fit(learned, loss_of, count, config=config, generator=generator, progress=progress)


@torch.no_grad()
def score_groups(model: Any, groups: Sequence[Group], *, pad_id: int, groups_a_batch: int = 64) -> Tensor:
    """f32[R]: `group_scores` of many groups, without gradients."""
    batches = [groups[start : start + groups_a_batch] for start in range(0, len(groups), groups_a_batch)]
    return torch.cat([group_scores(model, batch, pad_id=pad_id) for batch in batches])
