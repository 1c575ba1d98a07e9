"""PPO raises the reward, and by a margin: the smoke policy against a reward that counts tokens with the letter e."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scar import parts
from scar.models.loading import space_token
from tests.smoke_scale import SmokeScale

METHODS = ("sparse", "uniform", "scar")
MARGIN = 5.0
"""Tokens. The untrained policy writes 4.4 +- 2.0 such tokens (standard deviation over prompts) of 20, so the mean of 256
prompts has a standard error of 0.12, after training of 0.2. Over seeds 1-3 the mean rose by 11.0 to 11.8 (sparse), 6.7 to
8.1 (uniform) and 14.2 to 14.7 (SCAR)."""


class LetterCount:
    """The number of tokens with an e: an additive game, of which SCAR's credit is exact."""

    max_tokens = 512

    def __init__(self, tokenizer: Any) -> None:
        self.space_id = space_token(tokenizer)
        self._weights = torch.tensor([float("e" in tokenizer.decode([token])) for token in range(len(tokenizer))])

    def score(self, ids: Tensor, mask: Tensor) -> Tensor:
        return (self._weights[ids] * mask).sum(1)


@pytest.fixture(scope="module")
def evaluations(smoke: SmokeScale, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Evaluations of the policy before and after 40 updates of 32 episodes, for each method."""
    runs: Path = tmp_path_factory.mktemp("learning")
    sizes = [f"ppo.{name}=32" for name in ("batch_size", "minibatch_size", "microbatch_size")]
    settings = [
        *sizes,
        "ppo.updates=40",
        "ppo.learning_rate=1e-3",
        "evaluation.prompts=256",
        "evaluation.batch_size=128",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.Parts, "_build_reward_model", lambda found: LetterCount(found.tokenizer))
        return {name: smoke.run(f"shaping={name}", *settings, runs=runs).evaluation for name in METHODS}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_reward_rises_by_the_margin(evaluations: dict[str, dict[str, Any]], method: str) -> None:
    initial, final = evaluations[method]["initial"], evaluations[method]["final"]
    assert final["reward_mean"] - initial["reward_mean"] > MARGIN
    assert final["kl_mean"] > 1.0  # it moved away from the SFT policy,
    assert final["length_mean"] == pytest.approx(initial["length_mean"], abs=0.5)  # not into longer responses


@pytest.mark.slow
def test_exact_token_credit_learns_more_than_one_reward_at_the_end(evaluations: dict[str, dict[str, Any]]) -> None:
    """The paper's claim on an additive reward. Over seeds 1-3 SCAR ended 2.8 to 3.5 tokens above sparse."""
    assert evaluations["scar"]["final"]["reward_mean"] - evaluations["sparse"]["final"]["reward_mean"] > 1.0
