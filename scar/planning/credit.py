"""What SCAR's credit computes: the estimator's own plans, cut into tries by the fused scorer itself, traced on fake tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scar.coalitions.architectures import TRUNKS
from scar.coalitions.fused import SHORT_PROMPT, FusedScorer
from scar.coalitions.trie import Trie
from scar.coalitions.trie_attention import SharedPrompts
from scar.config import require
from scar.credit.estimators import Estimator
from scar.credit.game import BLANKS, TextGame
from scar.credit.texts import UnitTexts
from scar.models.reading import as_sampled
from scar.models.reward import SequenceRewardModel
from scar.planning.tracing import Cost, fake_tensors, real_tensors, trace
from scar.planning.workloads import Workload, random_rollout, random_units
from scar.types import Rollout, Scores, Units

SAMPLE = 1
"""Responses that are traced where prompts are long: each prompt is attended to apart, so what they cost adds up."""


@dataclass(frozen=True)
class Players:
    """Responses of a batch: `units` units in `response` tokens behind `prompt` tokens."""

    batch: int
    prompt: int
    response: int
    units: int


@dataclass(frozen=True)
class CreditCost:
    """What one batch costs, and how many coalitions each response has (v(all) is known)."""

    cost: Cost
    coalitions: float


class PlannedScorer(FusedScorer):
    """The fused scorer on fake tensors: adds up what it would have computed. `gpu`: as it works on a GPU."""

    def __init__(self, reward_model: SequenceRewardModel, *, memory_bytes: int, gpu: bool) -> None:
        architecture = reward_model.model.config.model_type
        require(architecture in TRUNKS, f"coalitions of a {architecture} model cannot be planned", ", ".join(TRUNKS))
        trunk = TRUNKS[architecture](reward_model.model.base_model)
        where = {"space_id": reward_model.space_id, "device": torch.device("cpu")}
        super().__init__(trunk, reward_model.read, memory_bytes=memory_bytes, **where)
        if gpu:
            self._usual_bytes = None
        self.cost = Cost()
        self.rows = 0
        self._cached_prompt_bytes = 0.0

    def _prefill(self, prompt_ids: list[np.ndarray]) -> SharedPrompts:
        with fake_tensors():
            cost, prompts = trace(lambda: super(PlannedScorer, self)._prefill(prompt_ids))
        self.cost += cost
        self._cached_prompt_bytes = cost.kept_bytes
        return prompts

    def _score_trie(self, trie: Trie, prompts: SharedPrompts | None) -> Tensor:
        with fake_tensors():
            cost, _ = trace(lambda: super(PlannedScorer, self)._score_trie(trie, prompts))
        prompt_bytes = self._cached_prompt_bytes if prompts is not None else 0.0
        self.cost += replace(cost, peak_bytes=prompt_bytes + cost.peak_bytes)
        self.rows += len(trie.owner)
        return torch.zeros(len(trie.owner), dtype=torch.float64)


class PlannedTexts(UnitTexts):
    """Units of one word each; nothing is tokenised."""

    def __init__(self) -> None:
        pass

    def of(self, rollout: Rollout, units: Units) -> list[list[str]]:
        """The same text for all."""
        return [[" word"] * count for count in units.count.tolist()]


def credit_cost(
    reward_model: SequenceRewardModel,
    estimator: Estimator,
    players: Players,
    *,
    memory_bytes: int,
    gpu: bool,
    traced: int = SAMPLE,
    **game: Any,
) -> CreditCost:
    """Inside `fake_tensors`: the credit of a batch, of which `traced` responses are looked at where prompts are long; `game` is
    how absent units are filled. Texts that are tokenised again count as long as the response: an upper bound."""
    if players.units < 2:
        return CreditCost(Cost(), 0)
    responses = min(players.batch, traced) if players.prompt > SHORT_PROMPT else players.batch
    with real_tensors(), torch.no_grad():
        scorer = PlannedScorer(reward_model, memory_bytes=memory_bytes, gpu=gpu)
        rollout = random_rollout(Workload("", "", players.prompt, players.response, players.units, responses))
        zeros = torch.zeros(responses)
        scores = Scores(zeros, zeros, zeros.bool(), as_sampled(rollout, reads_eos=True))
        units = random_units(rollout, players.units)
        if game["fill"] in BLANKS:
            game["fill"] = "space"
        planned = TextGame(scorer, texts=PlannedTexts(), **game).batch(scores, units, rollout)
        estimator.estimate(planned, np.random.default_rng(0))
    return CreditCost(scorer.cost.times(players.batch / responses), scorer.rows / responses)
