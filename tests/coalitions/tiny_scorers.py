"""Small random classifiers, coalition rows and the scores of whole sequences, for the tests of the scorers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig

from scar.coalitions.architectures import TRUNKS
from scar.coalitions.backends import CachedScorer, PlainScorer
from scar.coalitions.fused import FusedScorer
from scar.interfaces import CoalitionScorer
from scar.models.reward import SequenceRewardModel
from scar.types import CoalitionRows

CPU = torch.device("cpu")
VOCABULARY, SPACE, ROOM = 23, 2, 64
PLENTY = 2**26

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": ROOM,
}
_CONFIGS: dict[str, tuple[type, dict[str, Any]]] = {
    "gpt2": (GPT2Config, {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "gpt_neox": (GPTNeoXConfig, {"intermediate_size": 48}),
    "llama": (LlamaConfig, {"intermediate_size": 48}),
    "opt": (OPTConfig, {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0}),
}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "gpt2-gelu-one-layer": ("gpt2", {"activation_function": "gelu", "num_hidden_layers": 1}),
    "gpt2-relu-unscaled": ("gpt2", {"activation_function": "relu", "scale_attn_weights": False}),
    "gpt2-inverse-layer": (
        "gpt2",
        {
            "activation_function": "gelu_pytorch_tanh",
            "scale_attn_by_inverse_layer_idx": True,
            "num_hidden_layers": 3,
        },
    ),
    "neox-quarter-parallel": ("gpt_neox", {"rotary_pct": 0.25, "use_parallel_residual": True}),
    "neox-whole-parallel": ("gpt_neox", {"rotary_pct": 1.0, "use_parallel_residual": True, "hidden_act": "gelu_fast"}),
    "neox-quarter-sequential": ("gpt_neox", {"rotary_pct": 0.25, "use_parallel_residual": False}),
    "llama": ("llama", {"num_key_value_heads": 4}),
    "llama-grouped-tied": ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama-wide-heads": (
        "llama",
        {"num_key_value_heads": 1, "head_dim": 16, "attention_bias": True, "hidden_act": "gelu_new"},
    ),
}


def classifier(architecture: str, *, labels: int = 1, seed: int = 1, **changes: Any) -> Any:
    """A sequence classifier whose biases and norms are random too, with weights large enough to spread the scores."""
    kind, own = _CONFIGS[architecture]
    config = kind(**(_COMMON | own | {"num_labels": labels} | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3 if parameter.dim() > 1 else 1).add_(0.2 * torch.randn_like(parameter))
    return model


def reward_model(variant: str = "gpt2", *, labels: int = 1, seed: int = 1) -> SequenceRewardModel:
    """A new reward model of one of VARIANTS or, with its defaults, of one of the architectures."""
    architecture, changes = VARIANTS.get(variant, (variant, {}))
    return SequenceRewardModel(classifier(architecture, labels=labels, seed=seed, **changes), space_id=SPACE)


@functools.cache
def shared_reward_model(variant: str = "gpt2", labels: int = 1) -> SequenceRewardModel:
    """The same, built once: for tests that change nothing in it."""
    return reward_model(variant, labels=labels)


def fused(reward: SequenceRewardModel, *, memory_bytes: int = PLENTY) -> FusedScorer:
    base = reward.model.base_model
    trunk = TRUNKS[base.config.model_type](base)
    return FusedScorer(trunk, reward.read, space_id=SPACE, memory_bytes=memory_bytes, device=CPU)


def generic(reward: SequenceRewardModel, *, memory_bytes: int = PLENTY) -> CachedScorer:
    return CachedScorer(reward, memory_bytes=memory_bytes, device=CPU)


def plain(reward: SequenceRewardModel) -> PlainScorer:
    return PlainScorer(reward, device=CPU)


SCORERS: dict[str, Callable[[SequenceRewardModel], CoalitionScorer]] = {
    "fused": fused,
    "generic": generic,
    "plain": plain,
}


def blanked(prompt_length: int, lengths: Sequence[int], *, width: int | None = None, seed: int = 0) -> CoalitionRows:
    """One random response with tokens blanked at random, cut to `lengths`; random tokens stand behind the ends.

    Every third row repeats the row before it as far as both go, so there are prefixes and duplicates among them.
    """
    rng = np.random.default_rng([seed, prompt_length])
    width = max(lengths) if width is None else width
    ids = np.tile(rng.integers(3, VOCABULARY, width), (len(lengths), 1))
    ids[rng.random(ids.shape) < 0.4] = SPACE
    ids[2::3] = ids[1::3][: len(ids[2::3])]
    length = np.array(lengths, dtype=np.int64)
    behind = np.arange(width) >= length[:, None]
    ids[behind] = rng.integers(0, VOCABULARY, ids.shape)[behind]
    return CoalitionRows(rng.integers(0, VOCABULARY, prompt_length), ids, length)


def mixed_batch() -> list[CoalitionRows]:
    """Short and long prompts in no order, on both sides of 32 tokens; ragged rows; rows without a token."""
    return [
        blanked(40, [18, 17, 18, 1, 0, 12, 12, 6, 7], seed=1),
        blanked(5, [11, 11, 11, 3, 0, 2, 10], seed=2),
        blanked(33, [1, 0, 1], seed=3),
        blanked(32, [18, 9, 18, 6, 5, 0], seed=4),
        blanked(1, [14], seed=5),
        blanked(45, [12, 12, 12, 12, 12], seed=6),
    ]


def whole_sequences(reward: SequenceRewardModel, batch: Sequence[CoalitionRows]) -> list[np.ndarray]:
    """The oracle: every row behind its prompt as one sequence without padding, through `SequenceRewardModel.score`."""
    texts = [
        [*rows.prompt_ids.tolist(), *ids[:length].tolist()]
        for rows in batch
        for ids, length in zip(rows.ids, rows.lengths, strict=True)
    ]
    found = np.zeros(len(texts))
    for length in {len(text) for text in texts}:
        places = [i for i, text in enumerate(texts) if len(text) == length]
        ids = torch.tensor([texts[i] for i in places])
        found[places] = reward.score(ids, torch.ones_like(ids, dtype=torch.bool)).double().numpy()
    return np.split(found, np.cumsum([len(rows.ids) for rows in batch], dtype=int)[:-1])


def check_scores(
    found: Sequence[np.ndarray], expected: Sequence[np.ndarray], *, tolerance: float = 1e-5, spread: float = 0.2
) -> None:
    """Assert that scores agree to `tolerance` and that there was something to tell apart."""
    assert [scores.shape for scores in found] == [scores.shape for scores in expected]
    assert all(scores.dtype == np.float64 for scores in found)
    joined = np.concatenate(expected)
    assert joined.std() >= spread, joined.std()
    np.testing.assert_allclose(np.concatenate(found), joined, rtol=0, atol=tolerance)
