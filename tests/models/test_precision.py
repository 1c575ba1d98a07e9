"""How models are held: adapters and 4-bit weights start as the model, recomputed activations give the same gradients."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scar.config import LoadConfig, LoraSettings
from scar.models.loading import load_policy_model
from scar.models.policy import CausalPolicy, new_value_head
from scar.models.precision import HostParking, add_lora, has_adapters, weight_options
from tests.models.tiny import (
    ARCHITECTURES,
    EOS,
    PAD,
    PROMPTS,
    RESPONSES,
    language_model,
    left_padded,
    right_padded,
)

CPU = torch.device("cpu")


def policy_on(model: Any, **options: Any) -> CausalPolicy:
    head = new_value_head(16, torch.Generator().manual_seed(1))
    return CausalPolicy(model, temperature=0.7, min_new_tokens=3, eos_id=EOS, pad_id=PAD, value_head=head, **options)


def outputs(policy: CausalPolicy) -> Any:
    ids, mask = right_padded(RESPONSES)
    return policy.evaluate(left_padded(PROMPTS), ids, mask)


def loss(policy: CausalPolicy) -> torch.Tensor:
    found = outputs(policy)
    return found.logprobs.sum() + found.values.square().sum()


def gradients(policy: CausalPolicy) -> dict[str, torch.Tensor]:
    policy.zero_grad(set_to_none=True)
    loss(policy).backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


# Adapters.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fresh_adapters_change_nothing_and_trained_ones_leave_the_reference_alone(architecture: str) -> None:
    plain = outputs(policy_on(language_model(architecture)))
    model = language_model(architecture)
    add_lora(model, LoraSettings(rank=4, alpha=8), seed=3)
    policy = policy_on(model)
    reference = policy.reference()
    assert has_adapters(model)
    assert torch.equal(outputs(policy).logprobs, plain.logprobs)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    assert not torch.allclose(outputs(policy).logprobs, plain.logprobs, atol=1e-2)
    with torch.no_grad():
        assert torch.equal(outputs(reference).logprobs, plain.logprobs)
    assert not torch.allclose(outputs(policy).logprobs, plain.logprobs, atol=1e-2)  # they are on again


def test_only_adapters_and_the_head_are_trained_and_the_seed_draws_them() -> None:
    drawn = []
    for seed in (3, 3, 4):
        model = language_model("llama")
        state = torch.random.get_rng_state()
        add_lora(model, LoraSettings(rank=4, alpha=8), seed=seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        policy = policy_on(model)
        trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        # 2 layers, q_proj and v_proj, A [4,16] and B [16,4]; the head has 16 weights and a bias
        assert sum(p.numel() for p in trained.values()) == 2 * 2 * 2 * 64 + 17
        assert set(gradients(policy)) == set(trained)
        drawn.append(torch.cat([p.detach().flatten() for name, p in trained.items() if "lora_A" in name]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_scale_of_the_adapters_is_alpha_over_rank() -> None:
    model = language_model("llama")
    add_lora(model, LoraSettings(rank=4, alpha=8), seed=3)
    projection = model.model.layers[0].self_attn.q_proj
    with torch.no_grad():
        projection.lora_B["default"].weight.copy_(torch.randn(16, 4, generator=torch.Generator().manual_seed(1)))
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
    a, b = projection.lora_A["default"].weight, projection.lora_B["default"].weight
    assert torch.allclose(projection(x), projection.base_layer(x) + 8 / 4 * x @ a.T @ b.T, atol=1e-5)


@pytest.fixture
def small_llama(tmp_path: Path) -> Path:
    """The folder of a Llama whose linear layers are large enough for 4 bits."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes)).save_pretrained(tmp_path)
    return tmp_path


def test_four_bit_weights_are_near_the_models_and_take_an_eighth(small_llama: Path) -> None:
    narrow = load_policy_model(small_llama, device=CPU, weights="nf4")
    wide = load_policy_model(small_llama, device=CPU)
    held = narrow.model.layers[0].mlp.up_proj.weight
    assert held.numel() * held.element_size() * 8 == wide.model.layers[0].mlp.up_proj.weight.numel() * 4
    assert narrow.lm_head.weight.dtype == torch.float32
    ids = torch.arange(10)[None]
    with torch.no_grad():
        near, exact = narrow(ids).logits, wide(ids).logits
    assert 0 < float((near - exact).norm() / exact.norm()) < 0.2


def test_gradients_pass_through_four_bit_layers_after_sampling_on_every_cpu(
    small_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampling is a forward pass without gradients, which on a CPU with AVX512-BF16 makes bitsandbytes repack the weights."""
    from bitsandbytes.nn import modules

    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    model = load_policy_model(small_llama, device=CPU, weights="nf4")
    add_lora(model, LoraSettings(rank=4, alpha=8), seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)  # A has a gradient only where B is not 0
    policy = CausalPolicy(model, temperature=0.7, min_new_tokens=3, eos_id=EOS, pad_id=PAD)
    fresh = gradients(policy)
    with torch.no_grad():
        outputs(policy)
    after = gradients(policy)
    assert len(fresh) == 8  # 2 layers, q_proj and v_proj, A and B
    assert all(bool(gradient.any()) for gradient in fresh.values())
    assert after.keys() == fresh.keys()
    assert all(torch.equal(after[name], fresh[name]) for name in fresh)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "nf4"}, "weights=nf4 with lora=null; allowed: float32 weights are trained whole, others by lora"),
        ({"weights": "bfloat16", "lora": {"rank": 1, "alpha": 1}}, "weights=bfloat16 with compute=float32"),
        ({"lora": {"rank": 0, "alpha": 1}}, "models.policy.load.lora.rank=0; allowed: 1 or more"),
        ({"lora": {"rank": 2, "alpha": 0}}, "models.policy.load.lora.alpha=0; allowed: 1 or more"),
        (
            {"lora": {"rank": 2, "alpha": 2, "dropout": 0.1}},
            "models.policy.load.lora with dropout; allowed: rank and alpha",
        ),
    ],
)
def test_wrong_ways_to_hold_a_policy_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        LoadConfig(**settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("peft", lambda: add_lora(language_model("llama"), LoraSettings(rank=1, alpha=1), seed=1)),
        ("bitsandbytes", lambda: weight_options("nf4", CPU)),
    ],
)
def test_a_missing_package_is_one_line_with_the_command(
    module: str, use: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else found(name))
    with pytest.raises(FileNotFoundError, match=rf"needs the package {module}, .*pip install 'scar\[paper\]'`"):
        use()


# Number types.


def test_bfloat16_passes_give_float32_results_near_the_others() -> None:
    wide, narrow = (outputs(policy_on(language_model("gpt_neox"), compute=c)) for c in (torch.float32, torch.bfloat16))
    assert narrow.logprobs.dtype == narrow.values.dtype == narrow.entropy.dtype == torch.float32
    assert 0 < float((narrow.logprobs - wide.logprobs).abs().max()) < 0.2
    assert 0 < float((narrow.values - wide.values).abs().max()) < 0.1


# Recomputed activations.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_recomputed_activations_give_the_same_gradients(architecture: str) -> None:
    usual, again = (gradients(policy_on(language_model(architecture), recompute=r)) for r in (False, True))
    assert usual.keys() == again.keys()
    assert all(torch.equal(usual[name], again[name]) for name in usual)


# Parking.


class Where(torch.nn.Linear):
    """Notes every place that it is moved to; "meta" stands for the device."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.places: list[str] = []

    def to(self, device: Any) -> Any:
        self.places.append(str(device))
        return super().to("meta") if str(device) == "meta" else self.to_empty(device=device)


def test_models_are_on_the_device_for_their_stages_alone() -> None:
    reference, scorer = Where(), Where()
    parking = HostParking({"rollout": [reference], "score": [scorer], "credit": [scorer]}, torch.device("meta"))
    assert (reference.places, scorer.places) == (["cpu"], ["cpu"])
    with parking.during("rollout"):
        assert (reference.places[-1], scorer.places[-1]) == ("meta", "cpu")
        with parking.during("score"), parking.during("credit"):
            assert scorer.places[-1] == "meta"
        assert scorer.places == ["cpu", "meta", "cpu"]  # moved once for both
    with parking.during("update"):
        assert (reference.places[-1], scorer.places[-1]) == ("cpu", "cpu")


def test_a_failing_stage_parks_its_models_too() -> None:
    scorer = Where()
    parking = HostParking({"score": [scorer]}, torch.device("meta"))
    with pytest.raises(RuntimeError), parking.during("score"):
        raise RuntimeError
    assert scorer.places[-1] == "cpu"
