"""The characteristic function v(S) = r_phi(x, y_S) (Eq. 3), evaluated for a whole batch of responses at once.

Absent units are blanked or deleted; prompt and EOS are present in every coalition; v(all) is the very score that PPO
got. Equal token rows are scored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scar.interfaces import RewardModel
from scar.types import CoalitionPlan, Rollout, Scores, Units

FILLS = ("space", "delete")


@dataclass(frozen=True)
class GameValues:
    """`values`: per response f64[M] in the order of its plan, or None without a plan; `queries` i64[B]: rows asked for."""

    values: list[np.ndarray | None]
    queries: Tensor


class TextGame:
    """Evaluates coalitions with a reward model.

    fill "space" (default, paper 3.2): each token of an absent unit becomes the space token, positions stay. fill
    "delete": absent tokens are taken out and their neighbours close up (Eq. 3's "concatenating").
    """

    def __init__(self, reward_model: RewardModel, *, fill: str) -> None:
        if fill not in FILLS:
            raise ValueError(f"shaping.method.fill={fill}; allowed: {' or '.join(FILLS)}")
        self._reward_model = reward_model
        self._fill = fill

    def evaluate(
        self, rollout: Rollout, scores: Scores, units: Units, plans: Sequence[CoalitionPlan | None]
    ) -> GameValues:
        """v of every coalition of every plan; responses without a plan cost nothing."""
        ids, mask, queries = self._rows(rollout, scores, units, plans)
        found = self._score_distinct(ids, mask) if len(ids) else torch.zeros(0)
        values: list[np.ndarray | None] = []
        start = 0
        for row, plan in enumerate(plans):
            if plan is None:
                values.append(None)
                continue
            asked = int(queries[row])
            v = np.empty(len(plan.coalitions))
            v[0], v[2:] = found[start], found[start + 1 : start + asked]
            v[1] = float(scores.raw[row])  # a second pass could differ in the last digits (paper note 8)
            values.append(v)
            start += asked
        return GameValues(values=values, queries=queries)

    def _rows(
        self, rollout: Rollout, scores: Scores, units: Units, plans: Sequence[CoalitionPlan | None]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Token rows i64[R,P+T] and masks b[R,P+T] of all coalitions but the grand ones, and how many each response has."""
        device = rollout.response_ids.device
        sequence_ids, sequence_mask = rollout.sequence_ids(), rollout.sequence_mask(scores.read_mask)
        prompt_width = rollout.prompts.prompt_ids.shape[1]
        unit_index = units.unit_index.to(device)
        all_ids, all_masks, queries = [], [], torch.zeros(len(plans), dtype=torch.int64)
        for row, plan in enumerate(plans):
            if plan is None:
                continue
            coalitions = torch.from_numpy(np.delete(plan.coalitions, 1, axis=0)).to(device)
            index = unit_index[row]
            absent = ~coalitions[:, index.clamp(min=0)] & (index >= 0)
            absent = torch.nn.functional.pad(absent, (prompt_width, 0), value=False)
            ids = sequence_ids[row].expand(absent.shape)
            mask = sequence_mask[row].expand(absent.shape)
            if self._fill == "space":
                ids = ids.masked_fill(absent, self._reward_model.space_id)
            else:
                mask = mask & ~absent
            all_ids.append(ids)
            all_masks.append(mask)
            queries[row] = len(coalitions)
        if not all_ids:
            return sequence_ids[:0], sequence_mask[:0], queries
        return torch.cat(all_ids), torch.cat(all_masks), queries

    def _score_distinct(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Score each distinct (ids, mask) row once; f64 on the CPU, in the order of the rows."""
        keys = torch.where(mask, ids, torch.full_like(ids, -1))
        if self._fill == "delete":  # rows are equal when their tokens are, wherever the holes were
            keys = keys.gather(1, (~mask).long().argsort(dim=1, stable=True))
        _, inverse = torch.unique(keys, dim=0, return_inverse=True)
        first = torch.full((int(inverse.max()) + 1,), len(ids), dtype=torch.int64, device=ids.device)
        first = first.scatter_reduce(0, inverse, torch.arange(len(ids), device=ids.device), "amin")
        return self._reward_model.score(ids[first], mask[first])[inverse].double().cpu()
