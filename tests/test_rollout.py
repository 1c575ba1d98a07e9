"""Sampling: lengths, EOS, padding, texts, and agreement with what the update will compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from scar.config import GenerationConfig
from scar.models.policy import CausalPolicy
from scar.ppo.advantages import estimate_advantages
from scar.ppo.rollout import Sampler
from scar.types import PromptBatch, Rollout, UpdateStats
from tests.builders import ppo_config, updater_for
from tests.models.tiny import ARCHITECTURES, EOS, PAD, PROMPTS, VOCABULARY, left_padded, tiny_policy

FREQUENT = 2
"""A token that the tiny policy likes: as EOS it ends about half of the responses."""


class NumberTokenizer:
    """Text of ids: the numbers themselves."""

    def decode(self, token_ids: Sequence[int]) -> str:
        return " ".join(map(str, token_ids))


def generation_of(
    low: int = 3, high: int = 7, *, temperature: float = 0.7, sample_length: bool = True
) -> GenerationConfig:
    return GenerationConfig(
        temperature=temperature, min_new_tokens=low, max_new_tokens=high, sample_length=sample_length
    )


def sampled(
    policy: CausalPolicy,
    generation: GenerationConfig,
    *,
    prompts: PromptBatch | None = None,
    seed: int = 1,
    reference: CausalPolicy | None = None,
) -> Rollout:
    sampler = Sampler(policy, reference or policy.reference(), tokenizer=NumberTokenizer(), generation=generation)
    prompts = left_padded(PROMPTS * 80) if prompts is None else prompts
    return sampler.sample(prompts, generator=torch.Generator().manual_seed(seed))


def real_rows(rollout: Rollout) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(rollout.response_ids, rollout.response_mask, strict=True)]


def test_eos_never_comes_before_min_new_tokens_and_ends_its_response() -> None:
    rollout = sampled(tiny_policy(min_new_tokens=3, eos_id=FREQUENT), generation_of())
    rows = real_rows(rollout)
    ends = [FREQUENT in row for row in rows]
    assert ends == rollout.finished.tolist()
    assert 50 < sum(ends) < len(rows) - 50  # both kinds occur
    assert any(len(row) == 4 and row[-1] == FREQUENT for row in rows)  # the fourth token is the first that can be EOS
    for row in rows:
        assert 3 <= len(row) <= 7
        assert FREQUENT not in row[:-1]
        assert len(row) > 3 or row[-1] != FREQUENT


def test_limits_are_uniform_from_min_to_max_when_lengths_are_sampled() -> None:
    never_ends = tiny_policy(eos_id=VOCABULARY + 1)
    rollout = sampled(never_ends, generation_of(3, 7), prompts=left_padded(PROMPTS * 400))
    lengths = Counter(map(len, real_rows(rollout)))
    assert sorted(lengths) == [3, 4, 5, 6, 7]
    assert all(abs(count - 240) < 60 for count in lengths.values())  # 1,200 draws, standard deviation 14


def test_positions_after_a_response_hold_padding_and_zeros() -> None:
    rollout = sampled(tiny_policy(eos_id=FREQUENT), generation_of())
    off = ~rollout.response_mask
    assert off.any()
    assert (rollout.response_ids[off] == PAD).all()
    for name in ("logprobs", "ref_logprobs", "values"):
        assert (getattr(rollout, name)[off] == 0).all()
    lengths = rollout.response_mask.sum(1)
    assert torch.equal(rollout.response_mask, torch.arange(off.shape[1]) < lengths[:, None])


@pytest.mark.parametrize("pad_id", [PAD, FREQUENT])
def test_texts_hold_the_response_without_eos_also_when_padding_is_eos(pad_id: int) -> None:
    rollout = sampled(tiny_policy(eos_id=FREQUENT, pad_id=pad_id), generation_of())
    assert rollout.finished.any()
    for row, text in zip(real_rows(rollout), rollout.texts, strict=True):
        assert text == " ".join(str(token) for token in row if token != FREQUENT)
        assert row.count(FREQUENT) <= 1


def test_same_stream_same_responses_and_the_global_generator_is_left_alone() -> None:
    policy = tiny_policy()
    before = torch.get_rng_state()
    first, second, other = (sampled(policy, generation_of(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.response_ids, second.response_ids)
    assert torch.equal(first.logprobs, second.logprobs)
    assert first.texts != other.texts


def test_first_tokens_follow_the_tempered_distribution() -> None:
    policy, copies = tiny_policy(temperature=0.7), 4000
    prompts = left_padded([PROMPTS[0]] * copies)
    rollout = sampled(policy, generation_of(3, 3), prompts=prompts)
    with torch.no_grad():
        logits = policy.model(torch.tensor([PROMPTS[0]])).logits[0, -1] / 0.7
    logits[EOS] = -torch.inf
    expected = logits.softmax(-1)
    frequencies = torch.bincount(rollout.response_ids[:, 0], minlength=VOCABULARY) / copies
    # 4 standard deviations of a share p over 4,000 draws
    assert ((frequencies - expected).abs() <= 4 * (expected * (1 - expected) / copies).sqrt() + 1e-3).all()


def test_responses_at_another_temperature_follow_it_and_the_rules_of_length() -> None:
    policy, copies = tiny_policy(temperature=0.7, min_new_tokens=3), 1000
    sampler = Sampler(policy, policy.reference(), tokenizer=NumberTokenizer(), generation=generation_of(3, 7))
    prompts = left_padded([PROMPTS[0]] * copies)
    with torch.no_grad():
        logits = policy.model(torch.tensor([PROMPTS[0]])).logits[0, -1]
    logits[EOS] = -torch.inf
    for temperature in (0.01, 3.0):
        rollout = sampler.respond(prompts, generator=torch.Generator().manual_seed(1), temperature=temperature)
        expected = (logits / temperature).softmax(-1)
        frequencies = torch.bincount(rollout.response_ids[:, 0], minlength=VOCABULARY) / copies
        assert ((frequencies - expected).abs() <= 4 * (expected * (1 - expected) / copies).sqrt() + 1e-3).all()
        assert sorted(set(rollout.response_mask.sum(1).tolist())) == [3, 4, 5, 6, 7]
        for name in ("logprobs", "ref_logprobs", "values"):
            assert getattr(rollout, name).abs().sum() == 0
    own = sampler.sample(prompts, generator=torch.Generator().manual_seed(1))
    as_own = sampler.respond(prompts, generator=torch.Generator().manual_seed(1), temperature=0.7)
    assert torch.equal(own.response_ids, as_own.response_ids)
    assert own.texts == as_own.texts


def updater_of(policy: CausalPolicy, rollout: Rollout, **settings: float) -> UpdateStats:
    """One PPO update of `policy` on random rewards."""
    rewards = torch.randn(rollout.logprobs.shape, generator=torch.Generator().manual_seed(1)) * rollout.response_mask
    advantages = estimate_advantages(rewards, rollout.values, rollout.response_mask, gamma=1.0, gae_lambda=0.95)
    count = len(rollout.texts)
    config = ppo_config(batch_size=count, minibatch_size=count // 2, microbatch_size=1, **settings)
    updater = updater_for(policy, config)
    return updater.update(rollout, advantages, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_kl_is_zero_and_every_ratio_one_before_the_first_optimizer_step(architecture: str, temperature: float) -> None:
    policy = tiny_policy(architecture, temperature=temperature, min_new_tokens=3)
    rollout = sampled(policy, generation_of(temperature=temperature), prompts=left_padded([*PROMPTS, PROMPTS[0]]))
    assert (rollout.logprobs - rollout.ref_logprobs).abs().sum(1).max() <= 1e-5
    parts = PromptBatch(rollout.prompts.prompt_ids[[2]], rollout.prompts.prompt_mask[[2]], rollout.prompts.texts[2:3])
    with torch.no_grad():  # as in an update: some rows, in another order
        again = policy.evaluate(parts, rollout.response_ids[[2]], rollout.response_mask[[2]])
    assert ((again.logprobs - rollout.logprobs[[2]]).exp() - 1).abs().max() <= 1e-5
    stats = updater_of(policy, rollout, learning_rate=1e-3, ppo_epochs=2)
    assert stats["first_ratio_error"] <= 1e-5
    assert stats["ratio_mean"] != 1.0  # later steps did move the policy


def test_reference_log_probabilities_are_the_references() -> None:
    policy, reference = tiny_policy(seed=1), tiny_policy(seed=2, head=False)
    rollout = sampled(policy, generation_of(), prompts=left_padded(PROMPTS), reference=reference)
    with torch.no_grad():
        expected = reference.evaluate(rollout.prompts, rollout.response_ids, rollout.response_mask)
        own = policy.evaluate(rollout.prompts, rollout.response_ids, rollout.response_mask)
    assert torch.equal(rollout.ref_logprobs, expected.logprobs)
    assert torch.equal(rollout.logprobs, own.logprobs)
    assert torch.equal(rollout.values, own.values)
    assert rollout.values.abs().sum() > 0
    assert not rollout.logprobs.requires_grad
