"""Scores of responses: what the reward model says, and the one rule that a task may put in its place."""

from __future__ import annotations

import torch

from scar.config import ScoringConfig
from scar.interfaces import RewardModel, RewardReader
from scar.types import Rollout, Scores


class ResponseScoring:
    """Scores rollouts: raw r_phi(x, y), and the task's rule for responses without EOS (paper note 27)."""

    def __init__(self, reward_model: RewardModel, reader: RewardReader, config: ScoringConfig) -> None:
        self._reward_model = reward_model
        self._reader = reader
        self._missing_eos_score = config.missing_eos_score

    def score(self, rollout: Rollout) -> Scores:
        """Raw and final scores f32[B] of a rollout."""
        inputs = self._reader.read(rollout)
        raw = self._reward_model.score(inputs.sequence_ids(), inputs.sequence_mask()).float()
        if self._missing_eos_score is None:
            return Scores(raw=raw, final=raw, replaced=torch.zeros_like(rollout.finished), inputs=inputs)
        replaced = ~rollout.finished
        return Scores(raw, raw.masked_fill(replaced, self._missing_eos_score), replaced, inputs)
