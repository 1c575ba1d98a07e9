"""What the stages of an update cost, beside every step traced, PyTorch's counter and its profiler on real models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from experiments.benchmarks.planning import measure, real_work
from experiments.benchmarks.update import ppo_config
from scar.planning import tracing as stages
from scar.planning.models import Models, fake_models, policy_shape, reward_shape
from scar.planning.tracing import fake_tensors, real_tensors, trace
from tests.planning.tiny import GPT2, LLAMA, counted_flops, held, models

SIZES = {"prompt": 10, "response": 7}


def build(**changes: object) -> Models:
    nodes = models(LLAMA, GPT2)
    with fake_tensors():
        return fake_models(policy_shape(nodes), reward_shape(nodes), held(**changes))


def test_generation_is_the_sum_of_all_its_steps() -> None:
    policy = build().policy
    with fake_tensors(), torch.no_grad():
        found = stages.generation_cost(policy, rows=3, **SIZES)
        every, _ = trace(lambda: stages.generate(policy, stages.made_up_prompts(3, 10), 7))
    assert found.flops == every.flops
    assert found.product_bytes == every.product_bytes
    for name in ("operations", "other_bytes", "peak_bytes"):  # the made-up prompts enter once more
        assert getattr(found, name) == pytest.approx(getattr(every, name), rel=0.01)


def test_keys_and_values_at_the_end_by_hand() -> None:
    with fake_tensors():
        found = stages.generation_cost(build().policy, rows=3, **SIZES)
    layers, tokens = 2, 10 + 7 - 2  # the last step's are made within it, the last token's never
    keys_and_values = 4 * 2 * layers * 3 * tokens * 64
    logits, hidden, mask = 4 * 3 * 2048, 0, 3 * tokens
    assert keys_and_values <= found.kept_bytes <= keys_and_values + 2 * (logits + hidden) + 20 * mask


def test_log_probabilities_some_at_a_time_cost_the_same_and_hold_less() -> None:
    policy = build().policy
    with fake_tensors():
        whole, parts = (stages.evaluation_cost(policy, rows=8, rows_a_pass=rows, **SIZES) for rows in (8, 2))
    assert parts.flops == whole.flops
    assert parts.peak_bytes < whole.peak_bytes / 2


def test_flops_are_those_of_pytorchs_counter() -> None:
    policy = build().policy
    with fake_tensors():
        found = stages.evaluation_cost(policy, rows=4, rows_a_pass=4, prompt=10, response=13)
    work = real_work(reward_shape(models(LLAMA, LLAMA)), rows=4, prompt=10, response=13)
    assert found.flops == counted_flops(work["logprobs"]) > 0


def test_an_update_is_its_passes_and_steps() -> None:
    ppo = replace(ppo_config(8), minibatch_size=4, microbatch_size=2, ppo_epochs=3)
    policy = build().policy
    with fake_tensors():
        update, optimizer = stages.update_costs(policy, ppo, **SIZES)
        small = replace(ppo, batch_size=2, minibatch_size=2, ppo_epochs=1)
        one_pass, one_step = stages.update_costs(policy, small, **SIZES)
    assert update.flops == 3 * 4 * one_pass.flops > 0
    assert optimizer.other_bytes == 3 * 2 * one_step.other_bytes > 0
    assert all(p.grad is None for p in policy.parameters())


def test_gradients_are_inside_the_only_pass_and_before_one_of_several() -> None:
    policy = build().policy
    numbers = sum(p.numel() for p in policy.parameters())
    with fake_tensors():
        alone, _ = stages.update_costs(policy, ppo_config(2), **SIZES)
        among, step = stages.update_costs(policy, replace(ppo_config(4), microbatch_size=2), **SIZES)
    assert alone.kept_bytes == 4 * numbers
    assert abs(among.kept_bytes) < 100
    assert among.peak_bytes < alone.peak_bytes
    assert step.peak_bytes == pytest.approx(4 * numbers, rel=0.01)  # the roots of the squares' means, all at once
    assert abs(step.kept_bytes) < 100


@pytest.mark.slow
@pytest.mark.parametrize("shape", [LLAMA, GPT2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("stage", ["generate", "logprobs", "score", "update"])
def test_peaks_are_those_of_pytorchs_profiler(shape: dict[str, object], stage: str) -> None:
    nodes = models(shape, shape)
    with fake_tensors():
        fakes = fake_models(policy_shape(nodes), reward_shape(nodes), held())
        lengths = {"prompt": 40, "response": 20}
        costs = {
            "generate": lambda: stages.generation_cost(fakes.policy, rows=4, **lengths),
            "logprobs": lambda: stages.evaluation_cost(fakes.policy, rows=4, rows_a_pass=4, **lengths),
            "score": lambda: stages.reading_cost(fakes.reward_model.score, rows=4, length=60),
            "update": lambda: stages.update_costs(fakes.policy, ppo_config(4), **lengths)[0],
        }
        predicted = costs[stage]().peak_bytes / 2**20
    with real_tensors():
        _, measured = measure(real_work(reward_shape(nodes), rows=4, **lengths)[stage])
    assert predicted == pytest.approx(measured, rel=0.1)
