"""Tiny language models and reward models from a seed, in the three architectures that the tasks use."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
)

from scar.models.policy import CausalPolicy, new_value_head
from scar.types import PromptBatch

VOCABULARY, EOS, PAD = 23, 0, 1
ARCHITECTURES = ("gpt2", "gpt_neox", "llama")
# Weights this large make distributions far from uniform, so that a wrong position or mask shows.
SPREAD = 0.4


def config_of(architecture: str, **extra: Any) -> PreTrainedConfig:
    """Two layers, width 16, dropout off."""
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "initializer_range": SPREAD,
        "bos_token_id": EOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        **extra,
    }
    if architecture == "gpt2":
        pdrop = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2Config(n_positions=64, n_embd=16, n_layer=2, n_head=2, **pdrop, **common)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    if architecture == "gpt_neox":
        return GPTNeoXConfig(max_position_embeddings=64, hidden_dropout=0.0, attention_dropout=0.0, **sizes, **common)
    return LlamaConfig(max_position_embeddings=64, num_key_value_heads=2, **sizes, **common)


def language_model(architecture: str = "gpt2", *, seed: int = 1) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config_of(architecture)).eval()


def sequence_model(architecture: str = "gpt2", *, labels: int = 1, seed: int = 1) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_config(config_of(architecture, num_labels=labels)).eval()


def tiny_policy(
    architecture: str = "gpt2",
    *,
    temperature: float = 0.7,
    min_new_tokens: int = 3,
    eos_id: int = EOS,
    pad_id: int = PAD,
    head: bool = True,
    seed: int = 1,
) -> CausalPolicy:
    model = language_model(architecture, seed=seed)
    return CausalPolicy(
        model,
        temperature=temperature,
        min_new_tokens=min_new_tokens,
        eos_id=eos_id,
        pad_id=pad_id,
        value_head=new_value_head(16, torch.Generator().manual_seed(seed)) if head else None,
    )


def left_padded(rows: list[list[int]], *, extra: int = 0, fill: int = PAD) -> PromptBatch:
    """Prompts of these tokens; `extra` more columns of padding; `fill` stands under the mask."""
    width = max(map(len, rows)) + extra
    ids = torch.tensor([[fill] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return PromptBatch(ids, mask, [str(row) for row in rows])


def right_padded(rows: list[list[int]], *, extra: int = 0, fill: int = PAD) -> tuple[torch.Tensor, torch.Tensor]:
    """Responses of these tokens and their mask."""
    width = max(map(len, rows)) + extra
    ids = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return ids, mask


PROMPTS = [[5, 9, 14, 3], [7], [20, 21, 2, 8, 11, 17]]
RESPONSES = [[4, 12, 6, 19, EOS], [13, 13, 2], [16, 5, 22, 10, 3, 18, EOS]]
