"""The PPO update with a policy of a few parameters: hand-worked steps, microbatches, the ratio guard."""

from __future__ import annotations

import dataclasses
import math
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scar.interfaces import Decoder, PolicyOutput
from scar.ppo.updater import PPOUpdater
from scar.types import Advantages, PromptBatch, Rollout, UpdateStats
from tests.builders import EOS, PAD, make_rollout, ppo_config, rollout_of, updater_for


class TinyPolicy(nn.Module):
    """A bigram model: the logits of a token are a table's row of the token before it, and so is the value."""

    eos_id, pad_id, vocabulary = EOS, PAD, 6

    def __init__(self, vocabulary: int, *, seed: int | None = None) -> None:
        super().__init__()
        start = torch.zeros(vocabulary, vocabulary + 1)
        if seed is not None:
            start = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed))
        self.table = nn.Parameter(start)

    def decoder(self, prompts: PromptBatch, *, temperature: float | None = None) -> AbstractContextManager[Decoder]:
        raise NotImplementedError

    def evaluate(self, prompts: PromptBatch, response_ids: Tensor, response_mask: Tensor) -> PolicyOutput:
        vocabulary = self.table.shape[0]
        before = torch.cat([prompts.prompt_ids[:, -1:], response_ids[:, :-1]], 1) % vocabulary
        rows = self.table[before]
        logprobs = rows[..., :-1].log_softmax(-1)
        taken = logprobs.gather(-1, (response_ids % vocabulary)[..., None]).squeeze(-1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        return PolicyOutput(taken * response_mask, entropy * response_mask, rows[..., -1] * response_mask)


def with_own_logprobs(policy: TinyPolicy, rollout: Rollout, log_ratio: float | Tensor = 0.0) -> Rollout:
    """`rollout` as `policy` would have sampled it; the new/old ratio is exp(log_ratio) on every token."""
    with torch.no_grad():
        own = policy.evaluate(rollout.prompts, rollout.response_ids, rollout.response_mask)
    old = (own.logprobs - log_ratio) * rollout.response_mask
    return dataclasses.replace(rollout, logprobs=old, ref_logprobs=old, values=own.values)


def run_update(
    policy: TinyPolicy, rollout: Rollout, advantages: Advantages, *, seed: int = 0, **config: Any
) -> tuple[UpdateStats, PPOUpdater]:
    updater = updater_for(policy, ppo_config(**config))
    return updater.update(rollout, advantages, generator=torch.Generator().manual_seed(seed)), updater


def random_case(policy: TinyPolicy, lengths: list[int]) -> tuple[Rollout, Advantages]:
    rollout = with_own_logprobs(policy, make_rollout(lengths))
    draws = torch.Generator().manual_seed(3)
    shape = rollout.response_mask.shape
    parts = [torch.randn(shape, generator=draws) * rollout.response_mask for _ in range(2)]
    return rollout, Advantages(*parts)


def one_token_case() -> tuple[TinyPolicy, Rollout, Advantages]:
    """Vocabulary {0, 1}, all parameters 0, prompt token 0, response token 1, advantage 1, return 2.

    By hand, at parameters 0: pi(1) = .5, ratio 1, policy loss -1 with gradient (+.5, -.5) in the two logits;
    V = 0, value loss .5 * (0 - 2)^2 = 2 with gradient -2, times value_loss_coef .1 = -.2.
    """
    policy = TinyPolicy(2)
    rollout = rollout_of([[1]], [False], prompts=[[0]], logprobs=[[math.log(0.5)]], ref_logprobs=[[math.log(0.5)]])
    return policy, rollout, Advantages(torch.tensor([[1.0]]), torch.tensor([[2.0]]))


# Adam's first step is lr * g / (|g| + eps); ppo_config has lr = eps = 1, which shows the size of the gradient:
# -.5 / 1.5 = -1/3, +.5 / 1.5 = 1/3, .2 / 1.2 = 1/6. Row 1 of the table is not used.
STEP_BY_HAND = torch.tensor([[-1 / 3, 1 / 3, 1 / 6], [0.0, 0.0, 0.0]])


def test_one_step_by_hand() -> None:
    policy, rollout, advantages = one_token_case()
    stats, updater = run_update(policy, rollout, advantages)
    torch.testing.assert_close(policy.table.data, STEP_BY_HAND)
    assert updater.optimizer_steps == 1
    expected = {
        "policy_loss": -1.0,
        "value_loss": 2.0,
        "approx_kl": 0.0,
        "clipfrac": 0.0,
        # V = V_old: clipped and plain term are equal.
        "vf_clipfrac": 0.0,
        "ratio_mean": 1.0,
        "entropy": math.log(2),
        "grad_norm": math.sqrt(0.25 + 0.25 + 0.04),
        "skipped": 0.0,
        "first_ratio_error": 0.0,
        "explained_var": 0.0,
    }
    assert stats == pytest.approx(expected, abs=1e-6)


def test_parameters_that_no_gradient_reaches_are_named_at_the_first_step_taken() -> None:
    policy, rollout, advantages = one_token_case()
    policy.other = nn.ParameterList([nn.Parameter(torch.zeros(2)) for _ in range(10)])
    with pytest.raises(ValueError) as caught:
        run_update(policy, rollout, advantages)
    shown = ", ".join(f"other.{number}" for number in range(8))
    assert f"no gradient reaches 10 of the trained parameters ({shown} and 2 more), so they" in str(caught.value)
    assert torch.equal(policy.table.data, torch.zeros(2, 3))  # nothing was learned
    skipped = with_own_logprobs(policy, rollout, 5.0)  # ratio exp(5), over the guard's limit
    assert run_update(policy, skipped, advantages, max_mean_ratio=10.0)[0]["skipped"] == 1.0


def test_gradient_of_zeros_is_a_gradient() -> None:
    policy, rollout, _ = one_token_case()
    nothing = Advantages(torch.zeros(1, 1), torch.zeros(1, 1))
    assert run_update(policy, rollout, nothing)[0]["grad_norm"] == 0.0


def test_gradients_are_means_over_tokens_by_hand() -> None:
    policy = TinyPolicy(2)
    half = [math.log(0.5)] * 2
    rollout = rollout_of([[1, 1]], [False], prompts=[[0]], logprobs=[half], ref_logprobs=[half])
    run_update(policy, rollout, Advantages(torch.ones(1, 2), torch.full((1, 2), 2.0)))
    # Each token uses a row of its own, with half the gradients of the one-token case: .25 / 1.25 and .1 / 1.1.
    torch.testing.assert_close(policy.table.data, torch.tensor([[-0.2, 0.2, 1 / 11], [-0.2, 0.2, 1 / 11]]))


def test_explained_variance_is_that_of_the_values_at_sampling_by_hand() -> None:
    rollout = rollout_of([[1, 1]], [False], prompts=[[0]], values=[[1.0, 3.0]])
    advantages = Advantages(torch.zeros(1, 2), torch.tensor([[1.0, 5.0]]))
    # Returns 1, 5: variance 4; residuals 0, 2: variance 1. (Values and returns exchanged: 1 - 1/1 = 0.)
    assert run_update(TinyPolicy(2), rollout, advantages)[0]["explained_var"] == pytest.approx(0.75)


def test_value_loss_coefficient_and_learning_rate_scale_the_hand_step() -> None:
    policy, rollout, advantages = one_token_case()
    run_update(policy, rollout, advantages, value_loss_coef=0.5, learning_rate=0.1)
    # Value gradient -2 * .5 = -1: step .1 * 1 / 2; policy steps .1 / 3.
    torch.testing.assert_close(policy.table.data[0], torch.tensor([-0.1 / 3, 0.1 / 3, 0.05]))


def test_statistics_away_from_the_rollout_by_hand() -> None:
    policy, rollout, advantages = one_token_case()
    moved = with_own_logprobs(policy, rollout, log_ratio=math.log(1.5))
    moved = dataclasses.replace(moved, values=torch.tensor([[-1.0]]))
    stats, _ = run_update(policy, moved, advantages)
    # Ratio 1.5, advantage 1: clipped at 1.2. Values: V 0, old -1, clipped to -.8: .5 * (-.8 - 2)^2 = 3.92 > .5 * 4.
    expected = {"policy_loss": -1.2, "value_loss": 3.92, "ratio_mean": 1.5, "clipfrac": 1.0, "vf_clipfrac": 1.0}
    expected["approx_kl"] = 0.5 * math.log(1.5) ** 2
    assert {name: stats[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    # Both losses are clipped, so no gradient is left and nothing moves.
    assert torch.equal(policy.table.data, torch.zeros(2, 3))


def test_gradient_clipping_by_hand() -> None:
    policy, rollout, advantages = one_token_case()
    norm = math.sqrt(0.54)
    stats, _ = run_update(policy, rollout, advantages, max_grad_norm=0.1 * norm)
    # Gradients shrink tenfold: .05 / 1.05 and .02 / 1.02; the norm is reported before clipping.
    torch.testing.assert_close(
        policy.table.data[0], torch.tensor([-0.05 / 1.05, 0.05 / 1.05, 0.02 / 1.02]), atol=1e-6, rtol=0
    )
    assert stats["grad_norm"] == pytest.approx(norm)


def test_padding_takes_no_part() -> None:
    policy = TinyPolicy(2)
    padded = rollout_of([[1]], [False], prompts=[[0]], response_padding=3, logprobs=[[math.log(0.5)]])
    # Stray numbers off the mask.
    advantages = Advantages(torch.tensor([[1.0, 9.0, -9.0, 9.0]]), torch.tensor([[2.0, 9.0, -9.0, 9.0]]))
    stats, _ = run_update(policy, padded, advantages)
    torch.testing.assert_close(policy.table.data, STEP_BY_HAND)
    assert stats["ratio_mean"] == pytest.approx(1.0)
    assert stats["entropy"] == pytest.approx(math.log(2))


@pytest.mark.parametrize("microbatch_size", [1, 2])
def test_loss_is_the_mean_over_the_tokens_of_the_minibatch(microbatch_size: int) -> None:
    policy = TinyPolicy(4, seed=1)
    rollout = with_own_logprobs(policy, make_rollout([1, 3]))
    # Ratio 1: losses are -advantage: one token of -1 and three of +1. Token mean (-1 + 3) / 4 = .5.
    signs = torch.tensor([[1.0, 0.0, 0.0], [-1.0, -1.0, -1.0]])
    stats, _ = run_update(
        policy,
        rollout,
        Advantages(signs, rollout.values),
        batch_size=2,
        minibatch_size=2,
        microbatch_size=microbatch_size,
    )
    assert stats["policy_loss"] == pytest.approx(0.5, abs=1e-6)
    # The mean of the microbatches' means, which the paper's code bases take, would be (-1 + 1) / 2 = 0.
    assert stats["policy_loss"] != pytest.approx(0.0, abs=0.1)


def test_microbatches_give_the_parameters_of_the_whole_minibatch() -> None:
    tables, steps = [], []
    for microbatch_size in (4, 2, 1):
        policy = TinyPolicy(6, seed=1)
        rollout, advantages = random_case(policy, [5, 1, 3, 2, 7, 1, 4, 2])
        _, updater = run_update(
            policy,
            rollout,
            advantages,
            batch_size=8,
            minibatch_size=4,
            microbatch_size=microbatch_size,
            ppo_epochs=3,
            learning_rate=0.05,
            adam_eps=1e-2,
            max_grad_norm=0.3,
        )
        tables.append(policy.table.data)
        steps.append(updater.optimizer_steps)
    assert steps == [6, 6, 6]
    torch.testing.assert_close(tables[1], tables[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(tables[2], tables[0], atol=1e-6, rtol=0)
    assert not torch.allclose(tables[0], TinyPolicy(6, seed=1).table.data, atol=1e-2)


def test_first_ratio_error_is_tiny_for_a_fresh_rollout_even_with_large_steps() -> None:
    policy = TinyPolicy(6, seed=1)
    rollout, advantages = random_case(policy, [5, 1, 3, 2])
    stats, _ = run_update(policy, rollout, advantages, batch_size=4, minibatch_size=2, ppo_epochs=4)
    assert stats["first_ratio_error"] < 1e-4
    assert abs(stats["ratio_mean"] - 1) > 1e-2  # it really is about the first step only


def test_first_ratio_error_does_not_cancel_over_tokens() -> None:
    policy = TinyPolicy(6, seed=1)
    ratios = torch.tensor([[1.1, 0.9]])
    rollout = with_own_logprobs(policy, make_rollout([2]), log_ratio=ratios.log())
    stats, _ = run_update(policy, rollout, Advantages(torch.zeros(1, 2), rollout.values))
    # Mean of |ratio - 1| is .1 (docs/decisions.md#temperature); the mean ratio is 1 and would hide it.
    assert stats["first_ratio_error"] == pytest.approx(0.1, rel=1e-3)


GUARDED = {"batch_size": 4, "minibatch_size": 2, "ppo_epochs": 3, "max_mean_ratio": 10.0}


def test_ratio_guard_skips_and_counts() -> None:
    policy = TinyPolicy(6, seed=1)
    rollout, advantages = random_case(policy, [5, 1, 3, 2])
    far = with_own_logprobs(policy, rollout, log_ratio=math.log(20))
    before = policy.table.data.clone()
    stats, updater = run_update(policy, far, advantages, **GUARDED)
    assert torch.equal(policy.table.data, before)
    assert stats["skipped"] == 6.0  # 3 epochs of 2 minibatches
    assert updater.optimizer_steps == 0
    assert stats["ratio_mean"] == pytest.approx(20, rel=1e-4)


def test_a_skipped_step_leaves_no_trace_in_the_optimizer() -> None:
    skipping, fresh = TinyPolicy(6, seed=1), TinyPolicy(6, seed=1)
    rollout, advantages = random_case(fresh, [5, 1, 3, 2])
    far = with_own_logprobs(fresh, rollout, log_ratio=math.log(20))
    updater = updater_for(skipping, ppo_config(**GUARDED, microbatch_size=2))
    updater.update(far, advantages, generator=torch.Generator().manual_seed(5))
    updater.update(rollout, advantages, generator=torch.Generator().manual_seed(0))
    run_update(fresh, rollout, advantages, **GUARDED, microbatch_size=2)
    assert torch.equal(skipping.table.data, fresh.table.data)


@pytest.mark.parametrize(("ratio", "limit", "skipped"), [(9.9, 10.0, 0.0), (10.1, 10.0, 1.0), (50.0, None, 0.0)])
def test_ratio_guard_limit(ratio: float, limit: float | None, skipped: float) -> None:
    policy, rollout, _ = one_token_case()
    far = with_own_logprobs(policy, rollout, log_ratio=math.log(ratio))
    # A negative advantage: the plain term is the larger one, so there is a gradient.
    advantages = Advantages(torch.tensor([[-1.0]]), torch.tensor([[2.0]]))
    stats, updater = run_update(policy, far, advantages, max_mean_ratio=limit)
    assert stats["skipped"] == skipped
    assert updater.optimizer_steps == 1 - skipped
    assert torch.equal(policy.table.data, torch.zeros(2, 3)) == bool(skipped)


@pytest.mark.parametrize(
    "microbatch_size",
    [
        1,
        2,
    ],
)
def test_ratio_guard_reads_the_mean_over_the_minibatch(microbatch_size: int) -> None:
    policy = TinyPolicy(6, seed=1)
    ratios = torch.tensor([[15.0], [1.0]])  # mean 8: below the limit of 10, however the minibatch is split
    rollout = with_own_logprobs(policy, make_rollout([1, 1]), log_ratio=ratios.log())
    stats, _ = run_update(
        policy,
        rollout,
        Advantages(-torch.ones(2, 1), rollout.values),
        batch_size=2,
        minibatch_size=2,
        microbatch_size=microbatch_size,
        max_mean_ratio=10.0,
    )
    assert stats["skipped"] == 0.0


def test_linear_schedule_by_hand() -> None:
    policy = TinyPolicy(2)
    config = ppo_config(learning_rate=8.0, learning_rate_schedule="linear", updates=4)
    updater = updater_for(policy, config)
    assert [updater.set_learning_rate(update) for update in (1, 2, 3, 4)] == pytest.approx([8.0, 6.0, 4.0, 2.0])
    # Counting from 0 would start at 8 * (1 - 1/4) = 6 and end at 0.
    assert [8.0 * (1 - update / 4) for update in (1, 2, 3, 4)] != pytest.approx([8.0, 6.0, 4.0, 2.0])


def test_the_scheduled_rate_reaches_the_optimizer() -> None:
    policy, rollout, advantages = one_token_case()
    updater = updater_for(policy, ppo_config(learning_rate_schedule="linear", updates=4))
    updater.set_learning_rate(3)  # half the rate, half the step
    updater.update(rollout, advantages, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(policy.table.data, STEP_BY_HAND / 2)


def test_minibatches_are_shuffled_by_the_given_generator_alone() -> None:
    def table(seed: int) -> Tensor:
        policy = TinyPolicy(6, seed=1)
        rollout, advantages = random_case(policy, [5, 1, 3, 2, 7, 1, 4, 2])
        run_update(policy, rollout, advantages, seed=seed, batch_size=8, minibatch_size=2, adam_eps=1e-2)
        return policy.table.data

    state = torch.get_rng_state()
    first = table(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(table(0), first)
    assert not torch.allclose(table(1), first, atol=1e-4)


def test_every_episode_is_used_once_an_epoch() -> None:
    policy = TinyPolicy(6, seed=1)
    seen: list[int] = []
    evaluate = policy.evaluate

    def record(prompts: PromptBatch, response_ids: Tensor, response_mask: Tensor) -> PolicyOutput:
        seen.extend(response_ids[:, 0].tolist())
        return evaluate(prompts, response_ids, response_mask)

    policy.evaluate = record  # type: ignore[method-assign]
    rollout, advantages = random_case(policy, [1] * 6)
    seen.clear()
    run_update(policy, rollout, advantages, batch_size=6, minibatch_size=3, ppo_epochs=2, microbatch_size=1)
    first = rollout.response_ids[:, 0].tolist()
    assert sorted(seen[:6]) == sorted(first)
    assert sorted(seen[6:]) == sorted(first)
    assert seen[:6] != seen[6:]  # a fresh permutation each epoch
