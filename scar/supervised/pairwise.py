"""Reward models from preferences: one better and several worse responses to a prompt, Bradley-Terry loss.

The prompt of a group runs once; its keys and values serve all its responses, in training too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from scar.config import require
from scar.models import loading
from scar.models.policy import positions
from scar.supervised.distractors import Distractor, blanked, row_pairs
from scar.supervised.training import ProgressCallback, TrainingConfig, encode, fit, pad_right
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
    by_group = scores.split([len(group.responses) for group in groups])
    return torch.cat([values[:1].expand(len(values) - 1) for values in by_group]), torch.cat(
        [values[1:] for values in by_group]
    )


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
        pairs_loss = pair_loss(model.score(responses).squeeze(-1), groups, center=loss.center)
        return pairs_loss + loss.label * label_loss(reader, prompts, responses, groups) if loss.label else pairs_loss

    learned = nn.ModuleList([model, reader]) if loss.label else model
    fit(learned, loss_of, count, config=config, generator=generator, progress=progress)


@torch.no_grad()
def score_groups(model: Any, groups: Sequence[Group], *, pad_id: int, groups_a_batch: int = 64) -> Tensor:
    """f32[R]: `group_scores` of many groups, without gradients."""
    batches = [groups[start : start + groups_a_batch] for start in range(0, len(groups), groups_a_batch)]
    return torch.cat([group_scores(model, batch, pad_id=pad_id) for batch in batches])


# Groups of a better and some worse responses, drawn for rows of a task and encoded as the reward model reads them.


Finish = Callable[[Sequence[list[int]], Any, np.random.Generator], list[list[int]]]
"""Given the encoded responses of one group, the tokenizer and draws: what is read of them."""

LabelOf = Callable[[int, str | None], float]
"""Given a row number and the kind of a distractor (None: the row's prompt and own response): the label, NaN if not known."""


@dataclass(frozen=True)
class GroupDrawer:
    """Draws groups for rows given by their `prompts` (tokens), better responses `texts` and `distractors`.

    `settings` are those of the reward model: kinds, pairs_a_row, blank. `fraction` is the share of every response that is
    blanked; None: as in training, on a share of the groups, up to a share of each of their responses.
    """

    prompts: Sequence[list[int]]
    texts: Sequence[str]
    distractors: Mapping[str, Distractor]
    finish: Finish
    tokenizer: Any
    draws: np.random.Generator
    settings: Mapping[str, Any]
    fraction: float | None = None
    label_of: LabelOf | None = None

    def draw(self, chosen: Sequence[int]) -> list[Group]:
        """One group a row number."""
        drawn = [[(self.texts[row], None), *self._worse(row)] for row in chosen]
        encoded = iter(encode(self.tokenizer, [text for group in drawn for text, _ in group]))
        return [
            self._group(row, [kind for _, kind in group], [next(encoded) for _ in group])
            for row, group in zip(chosen, drawn, strict=True)
        ]

    def _worse(self, row: int) -> list[tuple[str, str]]:
        kinds, per_row = self.settings["kinds"], self.settings["pairs_a_row"]
        own = self.texts[row].strip()
        pairs = row_pairs(row, own, self.distractors, kinds, per_row=per_row, generator=self.draws)
        return [(" " + worse, kind) for worse, kind in pairs]

    def _group(self, row: int, kinds: list[str | None], responses: list[list[int]]) -> Group:
        fraction = self._fraction()
        better, *worse = self.finish(responses, self.tokenizer, self.draws)
        # A cut may leave nothing of the difference.
        kept = [
            (better, None),
            *((ids, kind) for ids, kind in zip(worse, kinds[1:], strict=True) if ids != better),
        ]
        labels = [] if self.label_of is None else [self.label_of(row, kind) for kind in (None, *(k for _, k in kept))]
        return Group(self.prompts[row], [self._blank(ids, fraction) for ids, _ in kept], labels)

    def _fraction(self) -> float:
        if self.fraction is not None:
            return self.fraction
        blanks, share = self.draws.random(2)
        blank = self.settings["blank"]
        return share * blank["max_fraction"] if blanks < blank["share"] else 0.0

    def _blank(self, ids: list[int], fraction: float) -> list[int]:
        if not fraction:
            return ids
        closing = [ids[-1]] if ids[-1] == self.tokenizer.eos_token_id else []  # EOS is no player, so it is never absent
        content = ids[: len(ids) - len(closing)]
        space_id = loading.space_token(self.tokenizer)
        return blanked(content, fraction, space_id=space_id, generator=self.draws) + closing


# How good a reward model is on held-out pairs: accuracy with its interval, beside that of length alone.


def wilson_interval(successes: int, trials: int, *, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share (95 % for z = 1.96). ValueError without trials."""
    if trials < 1:
        raise ValueError("an interval needs at least one trial")
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return middle - half, middle + half


def compare(model: Any, by_kind: Mapping[str, Sequence[Group]], *, name: str, pad_id: int) -> dict[str, Any]:
    """`name`: the share of pairs whose better response scores higher (ties count as wrong), with `name`_interval,
    `name`_by_kind (share and pairs), and `name`_by_length: the share that the longer, and the shorter, of two would get."""
    correct: dict[str, np.ndarray] = {}
    lengths: list[tuple[int, int]] = []
    for kind, groups in by_kind.items():
        if not groups:
            continue
        differences = margins(score_groups(model, groups, pad_id=pad_id), groups)
        correct[kind] = (differences > 0).cpu().numpy()
        lengths += [(len(group.responses[0]), len(worse)) for group in groups for worse in group.responses[1:]]
    every = np.concatenate(list(correct.values()))
    better, worse = np.array(lengths).T
    return {
        name: float(every.mean()),
        f"{name}_interval": wilson_interval(int(every.sum()), len(every)),
        f"{name}_by_kind": {kind: {"share": float(c.mean()), "pairs": len(c)} for kind, c in correct.items()},
        f"{name}_by_length": {"longer": float((better > worse).mean()), "shorter": float((better < worse).mean())},
    }
