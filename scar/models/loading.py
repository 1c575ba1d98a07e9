"""Where models and tokenizers come from: trained here from scratch (scar/models/cache.py keeps them), or a checkpoint by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from scar.config import require
from scar.models.precision import FLOATS, keep_differentiable, weight_options
from scar.packages import not_on_hub

EOS, PAD = "<|endoftext|>", "<|pad|>"


def quiet_transformers() -> None:
    """No load bars and no hints from transformers; its errors still show."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; EOS and PAD are separate tokens, so that a real EOS is never taken for padding."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts, vocab_size=vocab_size, min_frequency=2, special_tokens=[EOS, PAD], show_progress=False
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=EOS, pad_token=PAD)


def _gpt2_config(
    tokenizer: Any, *, layers: int, width: int, heads: int, context: int, dropout: float, **extra: Any
) -> Any:
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **extra,
    )


def new_policy_model(tokenizer: Any, architecture: dict[str, Any], *, seed: int) -> Any:
    """A GPT-2-architecture causal LM with fresh weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):  # transformers initialises from torch's global generator
        torch.manual_seed(seed)
        return GPT2LMHeadModel(_gpt2_config(tokenizer, **architecture))


def new_reward_model(tokenizer: Any, architecture: dict[str, Any], *, seed: int) -> Any:
    """A GPT-2-architecture sequence scorer with one scalar head and fresh weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2ForSequenceClassification(_gpt2_config(tokenizer, **architecture, num_labels=1))


def reward_model_on(folder: str | Path, *, dropout: float, seed: int, revision: str | None = None) -> Any:
    """A one-score classifier on the trunk of a causal LM: head N(0, 1/sqrt(hidden + 1)) drawn from `seed` (N+)."""
    load = AutoModelForSequenceClassification.from_pretrained
    model = load_or_explain(load, folder, revision=revision, num_labels=1, dtype=torch.float32)
    torch.nn.init.normal_(
        model.score.weight,
        std=(model.config.hidden_size + 1) ** -0.5,
        generator=torch.Generator().manual_seed(seed),
    )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return model


def no_dropout(model: Any) -> Any:
    """Set every dropout to 0 (docs/decisions.md#dropout)."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.eval()


def load_or_explain(load: Callable[..., Any], name: str | Path, *, revision: str | None = None, **options: Any) -> Any:
    """`load(name, ...)`; all that means "not reachable, not there" becomes one message with the way out."""
    try:
        return load(str(name), revision=revision, **options)
    # The hub's connection and not-found errors are OSErrors; a damaged folder gives any of these.
    except (OSError, ValueError, SafetensorError) as error:
        if Path(name).exists():
            raise ValueError(
                f"the model in {name} cannot be read ({error}); delete the folder and make it again"
            ) from error
        raise FileNotFoundError(not_on_hub("model", str(name), revision, error)) from error


def load_tokenizer(name: str | Path, *, revision: str | None = None) -> Any:
    """Tokenizer by hub name or folder; a tokenizer without a padding token pads with EOS (GPT-2)."""
    tokenizer = load_or_explain(AutoTokenizer.from_pretrained, name, revision=revision)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy_model(
    name: str | Path, *, device: torch.device, revision: str | None = None, weights: str = "float32"
) -> Any:
    """Causal LM by hub name or folder, dropout off."""
    options = weight_options(weights, device)
    model = no_dropout(load_or_explain(AutoModelForCausalLM.from_pretrained, name, revision=revision, **options))
    return keep_differentiable(model) if "device_map" in options else model.to(device)


def load_reward_sequence_model(
    name: str | Path, *, device: torch.device, revision: str | None = None, weights: str = "float32"
) -> Any:
    """Sequence classifier by hub name or folder, dropout off."""
    require(weights in FLOATS, f"models.reward.weights={weights}", " or ".join(FLOATS))
    options = weight_options(weights, device)
    load = AutoModelForSequenceClassification.from_pretrained
    model = no_dropout(load_or_explain(load, name, revision=revision, **options))
    model.config = copy.deepcopy(model.config)  # switching attention kernels writes into a config that others may share
    return model.to(device)


def space_token(tokenizer: Any) -> int:
    """The id that stands for an absent unit: the last id of a single encoded space (docs/decisions.md#absent-units)."""
    encoded = tokenizer.encode(" ", add_special_tokens=False)
    if not encoded:
        raise ValueError(
            "the reward model has a tokenizer that encodes a space to nothing, so there is no space token to fill with"
        )
    return encoded[-1]
