"""The evaluation summary by hand, from responses that are given."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from scar.config import EvaluationConfig
from scar.ppo.evaluation import distinct_bigrams, evaluate_policy
from scar.seeding import stream_seed
from scar.types import PromptBatch, Rollout
from tests.builders import FakeRewardModel, lexicon, rollout_of

CPU = torch.device("cpu")
BATCHES = [
    rollout_of([[10, 10, 10], [11]], [True, False], logprobs=[[1.0, 0.5, 0.0, 0.5], [1.0]]),
    rollout_of([[10, 11, 10, 11], [12, 12]], [False, False], logprobs=[[0.0] * 4, [3.0, 0.0]]),
]
"""Rewards 3, 5, 12, 0 with the weights below; sequence KLs 2, 1, 0, 3; lengths 4, 1, 4, 2."""
WEIGHTS = {10: 1.0, 11: 5.0}


class GivenPrompts:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def batch(self, number: int) -> PromptBatch:
        self.asked.append(number)
        return BATCHES[number].prompts


COOLER = [
    rollout_of([[10, 10], [12]], [True, True]),
    rollout_of([[11, 11, 11], [12, 10, 12]], [True, False]),
]
"""What is drawn at the evaluation's own temperature: rewards 2, 0, 15, 1; lengths 3, 2, 4, 3. KLs would be 0."""


class GivenResponses:
    """Gives the next batch and keeps the seeds of the generators, and of responses the temperatures."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.cooler: list[tuple[int, float]] = []

    def sample(self, prompts: PromptBatch, *, generator: torch.Generator) -> Rollout:
        self.seeds.append(generator.initial_seed())
        return BATCHES[len(self.seeds) - 1]

    def respond(self, prompts: PromptBatch, *, generator: torch.Generator, temperature: float) -> Rollout:
        assert prompts is BATCHES[len(self.cooler)].prompts
        self.cooler.append((generator.initial_seed(), temperature))
        return COOLER[len(self.cooler) - 1]


class SumScoring:
    """The sum of the weights, and one less after the task's rules."""

    def score(self, rollout: Rollout) -> Any:
        scores = FakeRewardModel(lexicon(WEIGHTS)).score_rollout(rollout)
        return dataclasses.replace(scores, final=scores.raw - 1)


def evaluated(
    prompts: int, seed: int = 7, temperature: float | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]], GivenResponses, GivenPrompts]:
    sampler, stream = GivenResponses(), GivenPrompts()
    summary, samples = evaluate_policy(
        sampler,  # type: ignore[arg-type]
        stream,
        SumScoring(),
        EvaluationConfig(prompts=prompts, batch_size=2, seed=seed, temperature=temperature),
        device=CPU,
    )
    return summary, samples, sampler, stream


def test_summary_by_hand() -> None:
    summary, samples, _, stream = evaluated(4)
    assert stream.asked == [0, 1]
    assert summary == {
        "reward_mean": 5.0,
        "reward_std": pytest.approx(math.sqrt((4 + 0 + 49 + 25) / 3)),  # ddof 1
        "score_mean": 4.0,
        "kl_mean": 1.5,
        "length_mean": 11 / 4,
        "eos_frac": 0.25,
        "distinct_bigrams_mean": (2 + 0 + 2 + 1) / 4,  # EOS counts as a token
        "prompts": 4,
    }
    assert [sample["reward"] for sample in samples] == [3.0, 5.0, 12.0, 0.0]
    assert [sample["response"] for sample in samples] == [text for batch in BATCHES for text in batch.texts]
    assert [sample["prompt"] for sample in samples] == [text for batch in BATCHES for text in batch.prompts.texts]
    assert [sample["reward_prompt"] for sample in samples] == [None] * 4
    assert [sample["response_ids"][:-1] for sample in samples[:1]] == [[10, 10, 10]]  # and EOS
    assert [sample["response_ids"] for sample in samples[1:]] == [[11], [10, 11, 10, 11], [12, 12]]  # no padding
    for sample, ids, mask in zip(
        samples[:2], BATCHES[0].prompts.prompt_ids, BATCHES[0].prompts.prompt_mask, strict=True
    ):
        assert sample["prompt_ids"] == ids[mask].tolist()


def test_at_its_own_temperature_kl_alone_is_of_the_trainings_samples() -> None:
    summary, samples, sampler, stream = evaluated(4, temperature=0.01)
    assert stream.asked == [0, 1]
    assert summary == {
        "reward_mean": 4.5,
        "reward_std": pytest.approx(math.sqrt((2.5**2 + 4.5**2 + 10.5**2 + 3.5**2) / 3)),
        "score_mean": 3.5,
        "kl_mean": 1.5,
        "length_mean": 12 / 4,
        "eos_frac": 0.75,
        "distinct_bigrams_mean": (2 + 1 + 2 + 2) / 4,
        "prompts": 4,
    }
    assert [sample["reward"] for sample in samples] == [2.0, 0.0, 15.0, 1.0]
    assert [sample["response"] for sample in samples] == [text for batch in COOLER for text in batch.texts]
    assert sampler.seeds == [stream_seed(7, "evaluation_sampling", number) for number in (0, 1)]  # as without one
    assert sampler.cooler == [(stream_seed(7, "evaluation_responses", number), 0.01) for number in (0, 1)]


def test_prompts_beyond_the_number_asked_for_do_not_count() -> None:
    summary, samples, _, stream = evaluated(3)
    assert stream.asked == [0, 1]
    assert summary["reward_mean"] == pytest.approx(20 / 3)
    assert summary["prompts"] == len(samples) == 3


def test_every_batch_has_its_own_stream_of_the_evaluation_seed() -> None:
    assert evaluated(4)[2].seeds == [stream_seed(7, "evaluation_sampling", number) for number in (0, 1)]
    assert evaluated(4, seed=8)[2].seeds != evaluated(4)[2].seeds


@pytest.mark.parametrize(("tokens", "count"), [([], 0), ([4], 0), ([4, 4, 4], 1), ([4, 5, 4, 5], 2), ([4, 5, 6], 2)])
def test_distinct_bigrams_by_hand(tokens: list[int], count: int) -> None:
    assert distinct_bigrams(tokens) == count
