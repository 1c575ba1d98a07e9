"""Tiny architectures and runs for the planner's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from experiments.benchmarks.update import ppo_config
from scar.config import GenerationConfig, LoadConfig, MemoryConfig
from scar.credit.estimators import OwenEstimator
from scar.planning.models import Held
from scar.planning.runs import Coalitions, Run

LLAMA = {
    "model_type": "llama",
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 2048, "n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2}
FLOAT32 = LoadConfig()


def models(policy: dict[str, Any], reward: dict[str, Any]) -> dict[str, Any]:
    """`cfg.models` of two checkpoints on the hub."""
    return {
        "source": "hub",
        "policy": {"name": "owner/policy", "revision": None, "shape": policy},
        "reward": {"name": "owner/reward", "revision": None, "shape": reward, "labels": 1, "rows_a_batch": 4},
    }


def held(**changes: Any) -> Held:
    """Float32 everywhere, a value head on the policy."""
    usual = Held(FLOAT32, "shared", recompute=False, reward_weights="float32", rows_a_batch=4)
    return replace(usual, **changes)


def tiny_run(**changes: Any) -> Run:
    """4 episodes of 16 + 8 tokens an update, 2 at a time, sparse reward."""
    usual = Run(
        task="tiny",
        method="sparse",
        needs=(),
        units=None,
        coalitions=None,
        models=models(GPT2, GPT2),
        load=FLOAT32,
        ppo=replace(ppo_config(4), microbatch_size=2),
        memory=MemoryConfig(gradient_checkpointing=False, offload=False),
        generation=GenerationConfig(temperature=1.0, min_new_tokens=0, max_new_tokens=8, sample_length=False),
        prompt_tokens=(16, 16),
        evaluation_rows=4,
    )
    return replace(usual, **changes)


def coalitions(**changes: Any) -> Coalitions:
    """Owen values of coalitions that take at most 64 MiB."""
    return replace(Coalitions(OwenEstimator(2048), "space", 64, "float32", None), **changes)


def counted_flops(work: Callable[[], Any]) -> int:
    """PyTorch's own count of real work; it knows no attention on a CPU unless it is told."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    told = {attention: lambda q, k, v, *args, out_shape=None, **kwargs: sdpa_flop_count(q, k, v)}
    with FlopCounterMode(display=False, custom_mapping=told) as counter:
        work()
    return counter.get_total_flops()
