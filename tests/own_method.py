"""A credit method as a user writes it: one class."""

from __future__ import annotations

import numpy as np

from scar.credit.methods import credit_without_units
from scar.credit.rewards import at_last_step
from scar.types import Credit, Rollout, Scores


class HalvesMethod:
    """Half of the score on the first token, half on the last."""

    name = "halves"

    def assign(self, rollout: Rollout, scores: Scores, *, generator: np.random.Generator) -> Credit:
        """f32[B, T] that sums to the score of each response."""
        credit = at_last_step(scores.credited / 2, rollout)
        credit[:, 0] += scores.credited / 2
        return credit_without_units(credit, scores, queries=0)
