"""Policies and reward models of full size on fake tensors: built on the meta device, held as the config says."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from scar.config import LoadConfig
from scar.models.policy import CausalPolicy
from scar.models.precision import FLOATS, add_lora
from scar.models.reward import SequenceRewardModel
from scar.planning.tracing import real_tensors

SAMPLING: dict[str, Any] = {"temperature": 1.0, "min_new_tokens": 0, "eos_id": 0, "pad_id": 0}
"""Values that change no shape."""
BLOCK, BLOCKS = 64, 256
"""nf4 with double quantisation (bitsandbytes): an 8-bit constant for 64 weights, a 32-bit one for 256 of those."""


@dataclass(frozen=True)
class Held:
    """How models are held: `load` of the policy, its `value_net` (see PPOConfig), whether it computes activations twice, the
    type of the reward model's weights and how many rows it reads at once."""

    load: LoadConfig
    value_net: str
    recompute: bool
    reward_weights: str
    rows_a_batch: int


@dataclass(frozen=True)
class Models:
    """The models of a run: `reference` is a frozen copy of the policy, or the policy itself without its adapters."""

    policy: CausalPolicy
    reference: CausalPolicy
    reward_model: SequenceRewardModel


def fake_models(policy_shape: Any, reward_shape: Any, settings: Held) -> Models:
    """The models of two Hugging Face configurations, inside `fake_tensors`."""
    with real_tensors(), torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(reward_shape, dtype=FLOATS[settings.reward_weights])
        reward_model = SequenceRewardModel(model, space_id=0, rows_a_batch=settings.rows_a_batch)
        policy = _meta_policy(policy_shape, reward_model, settings)
        reference = policy.reference()
    return Models(*(_to_fake(model) for model in (policy, reference, reward_model)))


def _meta_policy(shape: Any, reward_model: SequenceRewardModel, settings: Held) -> CausalPolicy:
    load = settings.load
    model = AutoModelForCausalLM.from_config(
        shape, dtype=FLOATS["bfloat16" if load.weights == "bfloat16" else "float32"]
    )
    if load.weights == "nf4":
        _quantise(model)
    if load.adapters is not None:
        add_lora(model, load.adapters, seed=0)
    trunk = None
    if settings.value_net == "separate":  # what SequenceRewardModel.as_value_net makes
        trunk = copy.deepcopy(reward_model.model.base_model).float().requires_grad_(True)
    head = nn.Linear((trunk or model).config.hidden_size, 1)
    value = {"value_head": head, "value_trunk": trunk}
    return CausalPolicy(model, **SAMPLING, **value, compute=FLOATS[load.compute], recompute=settings.recompute)


def _to_fake(model: Any) -> Any:
    """Put fake tensors in place of those on the meta device (peft and others cannot be run on fake ones); ties stay."""
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            if isinstance(tensor, nn.Parameter):
                empty = nn.Parameter(empty, tensor.requires_grad)
                empty.__dict__.update(tensor.__dict__)
            made[id(tensor)] = empty
        return made[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({name: fake(t) for name, t in tensors.items() if t is not None and t.device.type == "meta"})
    return model


def count(parameters: Iterable[Tensor]) -> int:
    """How many numbers the parameters have; 4-bit weights count as what they stand for."""
    return sum(getattr(parameter, "stands_for", parameter.numel()) for parameter in parameters)


def held_bytes(*modules: nn.Module | None) -> int:
    """Bytes of all parameters and buffers, each storage once."""
    tensors = [t for module in modules if module is not None for t in (*module.parameters(), *module.buffers())]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def largest_layer(module: nn.Module) -> int:
    """Numbers of the parameters that one layer has itself, at most."""
    return max(count(layer.parameters(recurse=False)) for layer in module.modules())


def _quantise(model: Any) -> None:
    """Put 4-bit layers in place of all linear ones but the last, which transformers keeps."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    for name, layer in layers:
        if layer is not model.get_output_embeddings():
            model.set_submodule(name, FourBitLinear(layer))


class FourBitLinear(nn.Linear):
    """The shapes of a frozen 4-bit layer of bitsandbytes: bfloat16 weights are made for each product and kept for none."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        weights = layer.weight.numel()
        packed = torch.empty(weights // 2, dtype=torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.weight.stands_for = weights
        self.register_buffer("constants", torch.empty(weights // BLOCK, dtype=torch.uint8))
        self.register_buffer("second_constants", torch.empty(-(-weights // (BLOCK * BLOCKS))))

    def forward(self, x: Tensor) -> Tensor:
        """As bitsandbytes: computed in bfloat16, returned in the type of `x`."""
        shape = (self.out_features, self.in_features)
        return _FourBitProduct.apply(x.to(torch.bfloat16), self.weight, shape).to(x.dtype)


class _FourBitProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.packed, ctx.shape = packed, shape
        return nn.functional.linear(x, _dequantised(packed, shape))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad @ _dequantised(ctx.packed, ctx.shape), None, None


def _dequantised(packed: Tensor, shape: tuple[int, int]) -> Tensor:
    weights = packed.new_empty(shape, dtype=torch.bfloat16)
    weights.view(2, -1).copy_(packed)  # the values are none; this reads and writes what dequantising does
    return weights


# Which architectures a config names: Hugging Face configurations of its policy and its reward model, without their weights.


ModelNodes = Mapping[str, Any]
"""`cfg.models` as plain Python."""


def policy_shape(models: ModelNodes) -> Any:
    """The configuration of the policy."""
    if models["source"] == "scratch":
        return _scratch(models, "policy")
    return _named(models, "policy")


def reward_shape(models: ModelNodes) -> Any:
    """The configuration of the reward model, with its number of labels."""
    shape = _scratch(models, "reward") if models["source"] == "scratch" else _named(models, "reward")
    shape.num_labels = models["reward"].get("labels", 1)
    return shape


def _named(models: ModelNodes, kind: str) -> Any:
    """Of a checkpoint by name, or of the pretrained one that both models start from: a local folder tells its own shape."""
    where = kind if models["source"] == "hub" else "pretrained"
    node = models[where]
    name = str(node.get("name"))  # a packaged model has none
    if (Path(name) / "config.json").is_file():
        return AutoConfig.from_pretrained(name)
    if not node.get("shape"):
        raise ValueError(f"models.{where}.shape is not there; give the model's architecture as conf/models does")
    return _checked(dict(node["shape"]), f"models.{where}.shape")


def _checked(shape: dict[str, Any], group: str) -> Any:
    architecture = shape.pop("model_type", None)
    if architecture not in CONFIG_MAPPING:
        raise ValueError(
            f"{group}.model_type={architecture}; allowed: an architecture of transformers, as gpt2 or llama"
        )
    known = AutoConfig.for_model(architecture)
    unknown = [f"{group}.{key}" for key in shape if not hasattr(known, key)]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such setting of a {architecture} model")
    return AutoConfig.for_model(architecture, **shape)


def _scratch(models: ModelNodes, kind: str) -> Any:
    """Of a small GPT-2 that is trained here; on tldr and hh both models stand on one base."""
    sizes = models[kind].get("architecture") or models["base"]["architecture"]
    return AutoConfig.for_model(
        "gpt2",
        vocab_size=models["tokenizer"]["vocab_size"],
        n_positions=sizes["context"],
        n_embd=sizes["width"],
        n_layer=sizes["layers"],
        n_head=sizes["heads"],
    )
