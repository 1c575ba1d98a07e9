"""PPO raises the reward, and by a margin: policies against a reward that counts tokens with the letter e, an additive game of
which SCAR's credit is exact. Learning from that credit beats learning from one reward at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scar.commands import build as parts
from scar.commands.train import train_run
from scar.models import loading
from scar.tracking.records import RunRecord
from tests.paper_scale.hub import imdb
from tests.smoke_scale import composed

Evaluation = dict[str, dict[str, Any]]


class LetterCount:
    """The number of tokens with an e. All that a reward model must offer to methods that ask for scores only."""

    max_tokens = 512

    def __init__(self, tokenizer: Any) -> None:
        self.space_id = loading.space_token(tokenizer)
        self._weights = torch.tensor([float("e" in tokenizer.decode([token])) for token in range(len(tokenizer))])

    def score(self, ids: Tensor, mask: Tensor) -> Tensor:
        return (self._weights[ids] * mask).sum(1)


@pytest.fixture(scope="module")
def letter_count() -> Any:
    """Every run of this module is rewarded by it; its tokenizer is that of the reward model that the config names."""

    def load(name: str, **options: Any) -> tuple[LetterCount, Any]:
        tokenizer = loading.load_tokenizer(name)
        return LetterCount(tokenizer), tokenizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "load_reward_model", load)
        yield


def settings(batch: int, updates: int, rate: float) -> list[str]:
    sizes = [f"ppo.{name}={batch}" for name in ("batch_size", "minibatch_size", "microbatch_size")]
    return [*sizes, f"ppo.updates={updates}", f"ppo.learning_rate={rate}", "checkpoint.updates=null"]


def rise(evaluation: Evaluation) -> float:
    """Tokens."""
    return evaluation["final"]["reward_mean"] - evaluation["initial"]["reward_mean"]


TINY_METHODS = ("sparse", "scar")


@pytest.fixture(scope="module")
def tiny(letter_count: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Evaluation]:
    """A random policy of 2 layers and width 16, before and after 16 updates of 32 episodes of 12 tokens.

    Over seeds 1-3 the mean of 32 prompts rose from 1.3 by 4.2 to 4.7 (sparse) and by 8.7 to 9.7 (SCAR), which ended 4.3 to
    5.5 above sparse; its standard error is about 0.3. A run takes 4 seconds of one core.
    """
    root: Path = tmp_path_factory.mktemp("learning")
    repositories = imdb(root)
    common = ["scale=paper", "task=imdb", "device=cpu", "tracker=jsonl", "parser=chunk", "estimator=permutation"]
    common += [f"paths.runs={root}/runs", f"paths.cache={root}/cache", *repositories, *settings(32, 16, 5e-3)]
    common += ["task.generation.min_new_tokens=12", "task.generation.max_new_tokens=12"]
    common += ["evaluation.prompts=32", "evaluation.batch_size=32"]
    return {name: RunRecord(train_run(composed(*common, f"shaping={name}"))).evaluation for name in TINY_METHODS}


@pytest.mark.slow
@pytest.mark.parametrize("method", TINY_METHODS)
def test_ppo_raises_the_reward_of_a_tiny_policy(tiny: dict[str, Evaluation], method: str) -> None:
    assert rise(tiny[method]) > 2.0
    assert tiny[method]["final"]["kl_mean"] > 1.0  # it moved away from where it started,
    assert tiny[method]["final"]["length_mean"] <= 12  # not into longer responses


@pytest.mark.slow
def test_exact_credit_teaches_a_tiny_policy_more_than_one_reward_at_the_end(tiny: dict[str, Evaluation]) -> None:
    assert rise(tiny["scar"]) - rise(tiny["sparse"]) > 2.0
