"""How a model is held and computed with: number types, 4-bit weights, LoRA adapters, activations computed twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from scar.config import LoraSettings
from scar.packages import require_installed

FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def weight_options(weights: str, device: torch.device) -> dict[str, Any]:
    """Options of `from_pretrained` for the type of the weights: float32, bfloat16, or nf4 (4 bits and double quantisation
    of linear layers, computed in bfloat16; the rest float32, as TRL's 4-bit preparation has it)."""
    if weights != "nf4":
        return {"dtype": FLOATS[weights]}
    require_installed("bitsandbytes", extra="paper", why="models.policy.load.weights=nf4")
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    # Quantised layers cannot be moved later, so they are loaded where they stay.
    return {"dtype": torch.float32, "quantization_config": quantisation, "device_map": {"": str(device)}}


def keep_differentiable(model: Any) -> Any:
    """Keep 4-bit layers in the layout that gradients pass through; other models are left as they are.

    On a CPU with AVX512-BF16 bitsandbytes repacks a layer's weights for inference at its first forward pass without
    gradients, and from then on no gradient comes back through that layer (`Linear4bit.forward`, bitsandbytes 0.50).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def computing_in(dtype: torch.dtype, device: torch.device) -> Any:
    """Context: forward passes use `dtype`; in float32 nothing is touched."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def add_lora(model: Any, settings: LoraSettings, *, seed: int) -> None:
    """Freeze `model` and put adapters into the modules that peft takes by default for its architecture, in float32.

    They change nothing until they are trained: A is drawn from `seed`, B is 0. FileNotFoundError says what to
    install.
    """
    require_installed("peft", extra="paper", why="models.policy.load.lora")
    from peft import LoraConfig

    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, lora_dropout=0.0, bias="none")
    with torch.random.fork_rng(devices=[]):  # peft draws from torch's global generator
        torch.manual_seed(seed)
        model.add_adapter(config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def has_adapters(model: Any) -> bool:
    """Whether `add_lora` was applied."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """Context: `model` without its adapters."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()


@contextmanager
def recomputing(*trunks: nn.Module) -> Iterator[None]:
    """Context: layers called inside keep their input alone for the backward pass and are computed again there.

    transformers does that in training mode only, which here would bring nothing else: dropout is 0 (docs/decisions.md#dropout).
    """
    layers = [m for trunk in trunks for m in trunk.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"memory.gradient_checkpointing=true is not there for {type(trunks[0]).__name__}; set it to false"
        )
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


def prepare_recomputing(model: Any) -> None:
    """Let `recomputing` work on the layers of `model`."""
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


# Where models are while a stage does not need them: on the device, or (memory.offload) in the host's memory.


class HostParking:
    """Keeps modules on the host and brings them to `device` for the stages that need them: `needed` names the modules of a
    stage. A module that is needed within an enclosing stage already stays where it is."""

    def __init__(self, needed: Mapping[str, Sequence[nn.Module]], device: torch.device) -> None:
        self._needed = needed
        self._device = device
        for module in {id(module): module for modules in needed.values() for module in modules}.values():
            module.to("cpu")

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Context of a stage."""
        brought = [module for module in self._needed.get(stage, ()) if next(module.parameters()).device.type == "cpu"]
        try:
            for module in brought:
                module.to(self._device)
            yield
        finally:
            for module in brought:
                module.to("cpu")
