"""A credit method as a user writes it: one class."""

from __future__ import annotations

import numpy as np
import torch

from scar.credit.methods import credit_without_units
from scar.types import Credit, Rollout, Scores


class FirstMethod:
    """All of the score on the first token."""

    name = "first"

    def assign(self, rollout: Rollout, scores: Scores, *, generator: np.random.Generator) -> Credit:
        """f32[B, T] that sums to the score of each response."""
        credit = torch.zeros(rollout.response_mask.shape)
        credit[:, 0] = scores.credited
        return credit_without_units(credit, scores, queries=0)
