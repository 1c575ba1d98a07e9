"""Which architectures a config names: Hugging Face configurations of its policy and its reward model, without their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig

Models = Mapping[str, Any]
"""`cfg.models` as plain Python."""


def policy_shape(models: Models) -> Any:
    """The configuration of the policy."""
    if models["source"] == "scratch":
        return _scratch(models, "policy")
    return _named(models, "policy")


def reward_shape(models: Models) -> Any:
    """The configuration of the reward model, with its number of labels."""
    shape = _scratch(models, "reward") if models["source"] == "scratch" else _named(models, "reward")
    shape.num_labels = models["reward"].get("labels", 1)
    return shape


def _named(models: Models, kind: str) -> Any:
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


def _scratch(models: Models, kind: str) -> Any:
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
