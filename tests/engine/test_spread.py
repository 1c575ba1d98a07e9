"""Stages over several processes give what one gives: samples, scores, coalitions; processes are threads here."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from scar.coalitions.backends import PlainScorer
from scar.engine.spread import Ranks, SpreadPolicy, SpreadRewardModel, SpreadScorer
from scar.models.reward import SequenceRewardModel
from scar.ppo.rollout import Sampler
from scar.types import CoalitionRows, Rollout
from tests.engine.threads import on_ranks
from tests.models.tiny import PROMPTS, left_padded, sequence_model, tiny_policy
from tests.test_rollout import FREQUENT, NumberTokenizer, generation_of

COUNTS = [1, 2, 3, 4]


def spread(policy: Any, ranks: Ranks) -> SpreadPolicy:
    return SpreadPolicy(policy, ranks, whole=nullcontext, evaluating=nullcontext)


def sampled(policy: Any, reference: Any, rows_a_pass: int | None = None) -> Rollout:
    sampler = Sampler(
        policy, reference, tokenizer=NumberTokenizer(), generation=generation_of(), rows_a_pass=rows_a_pass
    )
    return sampler.sample(left_padded([*PROMPTS, *PROMPTS, PROMPTS[0]]), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("rows_a_pass", [None, 2])
def test_same_seed_gives_the_same_samples_on_any_number_of_processes(count: int, rows_a_pass: int | None) -> None:
    policies = [tiny_policy(min_new_tokens=3, eos_id=FREQUENT) for _ in range(count)]

    def work(ranks: Ranks) -> Rollout:
        policy = policies[ranks.rank]
        return sampled(spread(policy, ranks), spread(policy.reference(), ranks), rows_a_pass)

    expected = sampled(policies[0], policies[0].reference())
    assert len({len(text) for text in expected.texts}) > 1  # some end early, and 7 rows do not come out even
    for found in on_ranks(count, work):
        assert torch.equal(found.response_ids, expected.response_ids)
        assert torch.equal(found.finished, expected.finished)
        assert found.texts == expected.texts
        for name in ("logprobs", "ref_logprobs", "values"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6)


def test_another_temperature_reaches_every_process() -> None:
    policies = [tiny_policy(min_new_tokens=3, eos_id=FREQUENT) for _ in range(2)]

    def responses(policy: Any) -> list[str]:
        sampler = Sampler(policy, policy, tokenizer=NumberTokenizer(), generation=generation_of())
        seeded = torch.Generator().manual_seed(3)
        return sampler.respond(left_padded([*PROMPTS, *PROMPTS]), generator=seeded, temperature=3.0).texts

    for found in on_ranks(2, lambda ranks: responses(spread(policies[ranks.rank], ranks))):
        assert found == responses(policies[0])


def test_a_row_is_drawn_from_its_own_noise() -> None:
    """The draw of torch.multinomial, row by row."""
    probabilities = torch.randn(5, 11, generator=torch.Generator().manual_seed(1)).softmax(-1)
    whole = torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(2)).squeeze(1)
    noise = torch.empty(5, 11).exponential_(generator=torch.Generator().manual_seed(2))
    assert torch.equal((probabilities[3:] / noise[3:]).argmax(-1), whole[3:])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("read", ["score", "score_prefixes", "last_layer_attention"])
def test_reward_model_reads_the_same(count: int, read: str) -> None:
    models = [SequenceRewardModel(sequence_model(), space_id=2) for _ in range(count)]
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 20, (5, 9), generator=generator)
    mask = torch.arange(9) < torch.tensor([9, 4, 7, 1, 6])[:, None]
    expected = getattr(models[0], read)(ids, mask)

    def work(ranks: Ranks) -> torch.Tensor:
        return getattr(SpreadRewardModel(models[ranks.rank], ranks, reading=nullcontext), read)(ids, mask)

    for each in on_ranks(count, work):
        torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("prompts", [1, 3, 5])
def test_coalitions_are_scored_once_and_come_back_in_order(count: int, prompts: int) -> None:
    model, rng = SequenceRewardModel(sequence_model(), space_id=2), np.random.default_rng(0)
    batch = [
        CoalitionRows(rng.integers(0, 20, 3 + n), rng.integers(0, 20, (2 + n, 4)), rng.integers(1, 5, 2 + n))
        for n in range(prompts)
    ]
    asked: list[int] = []

    class Counting(PlainScorer):
        def score(self, batch: Any) -> list[np.ndarray]:
            asked.append(len(batch))
            return super().score(batch)

    scorer = Counting(model, device=torch.device("cpu"))
    expected = PlainScorer(model, device=torch.device("cpu")).score(batch)
    for found in on_ranks(count, lambda ranks: SpreadScorer(scorer, ranks, whole=nullcontext).score(batch)):
        for each, value in zip(found, expected, strict=True):
            np.testing.assert_allclose(each, value, rtol=1e-5, atol=1e-6)
    assert sum(asked) == prompts


@pytest.mark.parametrize(
    ("rows", "count", "shares"), [(4, 2, [[0, 1], [2, 3]]), (5, 2, [[0, 1, 2], [3, 4, 4]]), (1, 3, [[0], [0], [0]])]
)
def test_shares(rows: int, count: int, shares: list[list[int]]) -> None:
    assert on_ranks(count, lambda ranks: ranks.share(rows).tolist()) == shares


def test_lost_process_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*arguments: Any) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234")

    monkeypatch.setattr("torch.distributed.all_gather_object", closed)
    ranks = Ranks.__new__(Ranks)
    ranks.rank, ranks.count = 0, 2
    with pytest.raises(ConnectionError, match="another process of this run has ended"):
        ranks.objects(None)
