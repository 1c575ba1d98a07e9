"""Parameters and bytes of full-size models, against published counts, hand-worked numbers and real models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from scar.commands.build import plain
from scar.config import LoadConfig
from scar.planning.devices import DEVICES
from scar.planning.estimate import Planner
from scar.planning.models import Models, count, fake_models, held_bytes, policy_shape, reward_shape
from scar.planning.tracing import fake_tensors, real_tensors
from tests.planning.tiny import GPT2, LLAMA, held, models, tiny_run
from tests.smoke_scale import composed

LORA = {"rank": 32, "alpha": 32}


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with fake_tensors():
        yield


def paper(task: str, **changes: Any) -> Models:
    with real_tensors():
        nodes = plain(composed("scale=paper", f"task={task}").models)
    return fake_models(policy_shape(nodes), reward_shape(nodes), held(**changes))


def build(policy: dict[str, Any], reward: dict[str, Any], **changes: Any) -> Models:
    nodes = models(policy, reward)
    return fake_models(policy_shape(nodes), reward_shape(nodes), held(**changes))


def trained(found: Models) -> int:
    return count(p for p in found.policy.parameters() if p.requires_grad)


def test_gpt2() -> None:
    found = paper("imdb")
    assert count(found.policy.model.parameters()) == 124_439_808
    assert count(found.reward_model.parameters()) == 124_439_808 + 2 * 768  # two labels, no bias
    assert trained(found) == 124_439_808 + 768 + 1  # the value head
    assert held_bytes(found.policy.model) == 4 * 124_439_808  # the embedding is tied: it counts once


def test_pythia_1b_with_a_separate_value_net() -> None:
    found = paper("tldr", value_net="separate", reward_weights="bfloat16")
    trunk = 1_011_781_632 - 50_304 * 2048  # without the output embedding
    assert count(found.policy.model.parameters()) == 1_011_781_632
    assert count(found.reward_model.parameters()) == trunk + 2048
    assert trained(found) == 1_011_781_632 + trunk + 2048 + 1
    frequencies = 2 * 4 * 32  # a quarter of 256 dimensions turns, in pairs; as they are, and as they were
    assert held_bytes(found.reward_model) == 2 * (trunk + 2048) + frequencies
    assert held_bytes(found.policy.value_trunk) == 4 * trunk + frequencies  # trained in float32


@pytest.mark.slow
def test_llama_7b_in_4_bits_with_adapters() -> None:
    found = paper("hh", load=LoadConfig("nf4", "bfloat16", LORA), reward_weights="bfloat16")
    adapters = 32 * 2 * (32 * 4096 + 4096 * 32)  # layers x (q_proj, v_proj) x (A, B)
    assert adapters == 16_777_216
    assert count(found.policy.model.parameters()) == 6_738_415_616 + adapters
    assert trained(found) == adapters + 4096 + 1
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    rest = 6_738_415_616 - linear
    constants = linear / 64 + 4 * linear / (64 * 256)
    expected = linear / 2 + constants + 4 * (rest + adapters)
    assert held_bytes(found.policy.model) == pytest.approx(expected, rel=1e-6)
    assert (linear / 2 + constants) / linear == pytest.approx(0.5159, abs=1e-4)
    assert found.reference.model is found.policy.model


def test_bytes_of_a_small_4_bit_model_by_hand() -> None:
    found = build(LLAMA, LLAMA, load=LoadConfig("nf4", "bfloat16", {"rank": 2, "alpha": 2}))
    linear = 2 * (4 * 64 * 64 + 3 * 64 * 128)
    kept = 2 * 2048 * 64 + 5 * 64  # embeddings, norms
    adapters = 2 * 2 * 2 * (2 * 64)
    frequencies = 2 * (64 // 4 // 2)  # as they are, and as they were
    layers = [64 * 64] * 8 + [64 * 128] * 6
    packed = sum(n // 2 + n // 64 + 4 * -(-n // (64 * 256)) for n in layers)
    assert sum(layers) == linear
    assert held_bytes(found.policy.model) == packed + 4 * (kept + adapters + frequencies)


def test_a_real_model_has_as_many_parameters_and_bytes() -> None:
    for shape in (GPT2, LLAMA):
        found = build(shape, shape)
        with real_tensors():
            options = dict(shape)
            real = AutoModelForCausalLM.from_config(AutoConfig.for_model(options.pop("model_type"), **options))
        assert count(found.policy.model.parameters()) == sum(p.numel() for p in real.parameters())
        tensors = {t.data_ptr(): t.nbytes for t in (*real.parameters(), *real.buffers())}
        assert held_bytes(found.policy.model) == sum(tensors.values())


@pytest.mark.slow
def test_adapters_leave_no_second_copy_and_little_to_train() -> None:
    load = LoadConfig("nf4", "bfloat16", {"rank": 4, "alpha": 4})
    with real_tensors():
        found = Planner(DEVICES["a100-80gb"]).estimate(tiny_run(models=models(LLAMA, GPT2), load=load))
    adapters = 2 * 2 * 2 * 4 * 64
    assert found.trained == adapters + 65
    held = found.stages[0].held
    assert held["reference"] == 0
    assert held["optimizer"] == 8 * (adapters + 65)
