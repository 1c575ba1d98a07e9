"""The KL coefficient: fixed, or nudged towards a target (Ziegler et al. 2019, section 2.2; paper note 19)."""

from __future__ import annotations


class KLController:
    """Holds `coef`. kind "adaptive": coef *= 1 + clip(KL / target - 1, -0.2, 0.2) episodes / horizon after each update."""

    def __init__(self, *, kind: str, coef: float, target: float, horizon: float) -> None:
        self.coef = coef
        self._adaptive = kind == "adaptive"
        self._target = target
        self._horizon = horizon

    def update(self, sequence_kl: float, *, episodes: int) -> None:
        """Take in the batch mean of the per-sequence KL sum (nats) of an update of `episodes` episodes."""
        if self._adaptive:
            error = min(max(sequence_kl / self._target - 1, -0.2), 0.2)
            self.coef *= 1 + error * episodes / self._horizon
