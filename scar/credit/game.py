"""The characteristic function v(S) = r_phi(x, y_S) (Eq. 3), evaluated for a whole batch of responses at once.

Absent units are blanked or deleted; prompt and EOS are present in every coalition; v(all) is the very score that PPO
got. Equal token rows behind equal prompts are scored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from scar.coalitions.trie import padded, row_keys
from scar.interfaces import CoalitionScorer
from scar.types import CoalitionRows, Scores, Units

Fill = Literal["space", "delete"]


class TextGame:
    """Makes the game of a batch.

    fill "space" (default, paper 3.2): each token of an absent unit becomes the space token, positions stay. fill
    "delete": absent tokens are taken out and their neighbours close up (Eq. 3's "concatenating").
    """

    def __init__(self, scorer: CoalitionScorer, *, fill: Fill) -> None:
        if fill not in get_args(Fill):
            raise ValueError(f"shaping.method.fill={fill}; allowed: {' or '.join(get_args(Fill))}")
        self._scorer = scorer
        self._fill = fill

    def batch(self, scores: Scores, units: Units) -> BatchGame:
        """The game of every response of a batch. Responses whose score a rule replaced have no players."""
        inputs = scores.inputs
        # The unit of each token that the reward model reads; -1 for EOS.
        step = inputs.step.cpu()
        unit = torch.where(step >= 0, units.unit_index.gather(1, step.clamp(min=0)), -1)
        responses = zip(
            inputs.prompt_ids.cpu().numpy(),
            inputs.prompt_mask.cpu().numpy(),
            inputs.ids.cpu().numpy(),
            inputs.mask.cpu().numpy(),
            unit.numpy(),
            scores.raw.tolist(),
            strict=True,
        )
        texts = [
            _Response(prompt[prompt_mask], ids[read], index[read], raw)
            for prompt, prompt_mask, ids, read, index, raw in responses
        ]
        counts = units.count.masked_fill(scores.replaced.cpu(), 0).tolist()
        return BatchGame(self._scorer, texts, counts, units.hierarchies, fill=self._fill)


@dataclass(frozen=True)
class _Response:
    """What is read of one response: `prompt_ids` i64[P], `ids` i64[T], the unit of each token i64[T] (-1: none), v(all)."""

    prompt_ids: np.ndarray
    ids: np.ndarray
    unit: np.ndarray
    raw: float

    def rows(self, coalitions: np.ndarray, *, fill: Fill, space_id: int) -> CoalitionRows:
        """The texts of `coalitions` b[M,n]."""
        absent = ~coalitions[:, np.maximum(self.unit, 0)] & (self.unit >= 0)
        if fill == "space":
            lengths = np.full(len(absent), len(self.ids))
            return CoalitionRows(self.prompt_ids, np.where(absent, space_id, self.ids), lengths)
        present_first = np.argsort(absent, axis=1, kind="stable")
        return CoalitionRows(self.prompt_ids, self.ids[present_first], (~absent).sum(1))


class BatchGame:
    """v of the responses of one batch: `counts` units each, with their `hierarchies`."""

    def __init__(
        self,
        scorer: CoalitionScorer,
        responses: list[_Response],
        counts: list[int],
        hierarchies: list[np.ndarray],
        *,
        fill: Fill,
    ) -> None:
        self.counts = counts
        self.hierarchies = hierarchies
        self._scorer = scorer
        self._responses = responses
        self._fill = fill

    def evaluate(self, coalitions: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
        """v of the coalitions b[M,n] of each response: f64[M], in their order; None costs nothing and stays None."""
        to_score: dict[int, np.ndarray] = {}  # response -> rows that are not the grand coalition
        groups: dict[bytes, list[int]] = {}  # prompt -> responses
        for number, (masks, response) in enumerate(zip(coalitions, self._responses, strict=True)):
            if masks is not None:
                to_score[number] = np.flatnonzero(~masks.all(1))
                groups.setdefault(response.prompt_ids.tobytes(), []).append(number)
        values = [
            None
            if masks is None
            else np.full(len(masks), response.raw)  # v(all): docs/decisions.md#eos-and-the-whole-score
            for masks, response in zip(coalitions, self._responses, strict=True)
        ]
        merged = [self._merge(numbers, coalitions, to_score) for numbers in groups.values()]
        scores_by_prompt = self._scorer.score([rows for rows, _ in merged]) if merged else []
        for numbers, (_, inverse), scores in zip(groups.values(), merged, scores_by_prompt, strict=True):
            row_scores, start = scores[inverse], 0
            for number in numbers:
                target, rows = values[number], to_score[number]
                assert target is not None
                target[rows] = row_scores[start : start + len(rows)]
                start += len(rows)
        return values

    def _merge(
        self, numbers: list[int], coalitions: Sequence[np.ndarray | None], to_score: dict[int, np.ndarray]
    ) -> tuple[CoalitionRows, np.ndarray]:
        """The distinct rows behind one prompt, and which of them each coalition of these responses is."""
        parts = []
        for number in numbers:
            masks = coalitions[number]
            assert masks is not None
            response = self._responses[number]
            parts.append(response.rows(masks[to_score[number]], fill=self._fill, space_id=self._scorer.space_id))
        width = max(rows.ids.shape[1] for rows in parts)
        ids = np.concatenate([padded(rows, width) for rows in parts])
        lengths = np.concatenate([rows.lengths for rows in parts])
        _, first, inverse = np.unique(row_keys(ids), return_index=True, return_inverse=True)
        return CoalitionRows(parts[0].prompt_ids, ids[first], lengths[first]), inverse
