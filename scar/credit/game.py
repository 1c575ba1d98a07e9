"""The characteristic function v(S) = r_phi(x, y_S) (Eq. 3), evaluated for a whole batch of responses at once.

Absent units are blanked, deleted or collapsed; prompt and EOS are present in every coalition; v(all) is the very score that
PPO got. Equal token rows behind equal prompts are scored once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, get_args

import numpy as np
import torch

from scar.coalitions.trie import padded, row_keys
from scar.credit.texts import UnitTexts, masked_text
from scar.interfaces import CoalitionScorer
from scar.types import CoalitionRows, Rollout, Scores, Units

Fill = Literal["space", "delete", "collapse", "dots"]
BLANKS = {"collapse": " ", "dots": "..."}
"""What stands for a run of absent units where the masked text is tokenised again."""


class TextGame:
    """Makes the game of a batch.

    fill "space" (default, paper 3.2): each token of an absent unit becomes the space token, positions stay. fill
    "delete": absent tokens are taken out and their neighbours close up (Eq. 3's "concatenating"). fill "collapse" and "dots"
    (as released): a run of absent units becomes one blank, or "...", and the text is tokenised again, for which `texts` are
    needed (docs/decisions.md#collapsed-texts).
    """

    def __init__(self, scorer: CoalitionScorer, *, fill: Fill, texts: UnitTexts | None = None) -> None:
        if fill not in get_args(Fill):
            raise ValueError(f"shaping.method.fill={fill}; allowed: {', '.join(get_args(Fill))}")
        if fill in BLANKS and texts is None:
            raise ValueError(f"fill={fill} needs the texts of units; give `texts`, or use fill=space or delete")
        self._scorer = scorer
        self._fill = fill
        self._texts = texts

    def batch(self, scores: Scores, units: Units, rollout: Rollout | None = None) -> BatchGame:
        """The game of every response of a batch. Responses whose score a rule replaced have no players.

        `rollout` is what `units` are of; only where their texts are read need it be given.
        """
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
        sampled = [
            _Response(prompt[prompt_mask], ids[read], index[read], raw)
            for prompt, prompt_mask, ids, read, index, raw in responses
        ]
        counts = units.count.masked_fill(scores.replaced.cpu(), 0).tolist()
        read = None
        if self._texts is not None and rollout is not None:
            read = partial(self._texts.of, rollout, units)
        return BatchGame(
            self._scorer, sampled, counts, units.hierarchies, fill=self._fill, texts=self._texts, read_units=read
        )


@dataclass(frozen=True)
class _Response:
    """What is read of one response: `prompt_ids` i64[P], `ids` i64[T], the unit of each token i64[T] (-1: EOS), v(all)."""

    prompt_ids: np.ndarray
    ids: np.ndarray
    unit: np.ndarray
    raw: float

    def rows(self, coalitions: np.ndarray, *, fill: Fill, space_id: int) -> CoalitionRows:
        """The texts of `coalitions` b[M,n], in the tokens that were read."""
        absent = ~coalitions[:, np.maximum(self.unit, 0)] & (self.unit >= 0)
        if fill == "space":
            lengths = np.full(len(absent), len(self.ids))
            return CoalitionRows(self.prompt_ids, np.where(absent, space_id, self.ids), lengths)
        present_first = np.argsort(absent, axis=1, kind="stable")
        return CoalitionRows(self.prompt_ids, self.ids[present_first], (~absent).sum(1))

    def rows_of_tokens(self, tokens: list[list[int]], *, max_tokens: int) -> CoalitionRows:
        """Texts that were tokenised again, each with the EOS that was read; ValueError for one over `max_tokens` in all."""
        closing = self.ids[self.unit < 0].tolist()
        lengths = np.array([len(ids) + len(closing) for ids in tokens], dtype=np.int64)
        longest = len(self.prompt_ids) + int(lengths.max(initial=0))
        if longest > max_tokens:
            raise ValueError(
                f"a prompt and a masked text, tokenised again, take {longest} tokens of the reward model, which reads "
                f"{max_tokens}; lower task.generation.max_new_tokens or task.prompt.max_tokens, or use shaping.method.fill=space"
            )
        ids = np.zeros((len(tokens), int(lengths.max(initial=0))), dtype=np.int64)
        for row, text in enumerate(tokens):
            ids[row, : lengths[row]] = text + closing
        return CoalitionRows(self.prompt_ids, ids, lengths)


class BatchGame:
    """v of the responses of one batch: `counts` units each, with their `hierarchies`. `read_units` finds the texts of units, and
    `texts` tokenises masked ones; None where no rollout was given."""

    def __init__(
        self,
        scorer: CoalitionScorer,
        responses: list[_Response],
        counts: list[int],
        hierarchies: list[np.ndarray],
        *,
        fill: Fill,
        texts: UnitTexts | None = None,
        read_units: Callable[[], list[list[str]]] | None = None,
    ) -> None:
        self.counts = counts
        self.hierarchies = hierarchies
        self._scorer = scorer
        self._responses = responses
        self._fill = fill
        self._texts = texts
        self._read_units = read_units

    @cached_property
    def texts(self) -> list[list[str]]:
        """The text of each unit of each response; ValueError where the game was made without them."""
        if self._read_units is None:
            raise ValueError("this game has no texts of units; make it by TextGame(..., texts=...).batch(..., rollout)")
        return self._read_units()

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
        rows_of = self._rows(
            {number: masks[to_score[number]] for number, masks in enumerate(coalitions) if masks is not None}
        )
        merged = [_merged([rows_of[number] for number in numbers]) for numbers in groups.values()]
        scores_by_prompt = self._scorer.score([rows for rows, _ in merged]) if merged else []
        for numbers, (_, inverse), scores in zip(groups.values(), merged, scores_by_prompt, strict=True):
            row_scores, start = scores[inverse], 0
            for number in numbers:
                target, rows = values[number], to_score[number]
                assert target is not None
                target[rows] = row_scores[start : start + len(rows)]
                start += len(rows)
        return values

    def _rows(self, coalitions: dict[int, np.ndarray]) -> dict[int, CoalitionRows]:
        """The texts of the coalitions b[M,n] of each response."""
        if self._fill not in BLANKS:
            return {
                number: self._responses[number].rows(masks, fill=self._fill, space_id=self._scorer.space_id)
                for number, masks in coalitions.items()
            }
        assert self._texts is not None  # TextGame refuses such a game
        masked = {
            number: [masked_text(self.texts[number], present, BLANKS[self._fill]) for present in masks]
            for number, masks in coalitions.items()
        }
        tokens = iter(self._texts.behind_prompt([text for texts in masked.values() for text in texts]))
        room = self._texts.max_tokens
        return {
            number: self._responses[number].rows_of_tokens([next(tokens) for _ in texts], max_tokens=room)
            for number, texts in masked.items()
        }


def _merged(parts: Sequence[CoalitionRows]) -> tuple[CoalitionRows, np.ndarray]:
    """The distinct rows behind one prompt, and which of them each row of `parts` is."""
    width = max(rows.ids.shape[1] for rows in parts)
    ids = np.concatenate([padded(rows, width) for rows in parts])
    lengths = np.concatenate([rows.lengths for rows in parts])
    _, first, inverse = np.unique(row_keys(ids), return_index=True, return_inverse=True)
    return CoalitionRows(parts[0].prompt_ids, ids[first], lengths[first]), inverse
