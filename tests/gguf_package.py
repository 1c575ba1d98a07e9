"""An installed package with a tiny Llama in a GGUF file, as the one that scale=small starts from has a large one."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from scar.models.loading import train_tokenizer

PACKAGE, MODULE, FILE = "tiny-llama", "tiny_llama", "tiny.gguf"
WIDTH, LAYERS, MLP, HEADS, KEY_HEADS, CONTEXT = 16, 2, 32, 2, 1, 640


def install(folder: Path, patch: pytest.MonkeyPatch, texts: list[str]) -> list[str]:
    """Installs it below `folder`; the overrides that make scale=small start from it."""
    file = folder / MODULE / FILE
    file.parent.mkdir(parents=True)
    write(file, texts)
    patch.syspath_prepend(folder)
    found = importlib.metadata.version
    patch.setattr(importlib.metadata, "version", lambda package: "1.0.0" if package == PACKAGE else found(package))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    named = {"package": PACKAGE, "version": "1.0.0", "module": MODULE, "member": FILE, "sha256": digest}
    return [f"models.pretrained.{key}={value}" for key, value in named.items()]


def write(file: Path, texts: list[str]) -> None:
    """Random weights; a byte-level BPE of `texts` whose BOS and EOS are one token."""
    model = json.loads(train_tokenizer(texts, vocab_size=300).backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(1)
    _add_tensors(writer, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tensors(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    rng, keys = np.random.default_rng(0), KEY_HEADS * WIDTH // HEADS
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (keys, WIDTH), "attn_v": (keys, WIDTH), "attn_output": (WIDTH, WIDTH)}
    shapes |= {"ffn_gate": (MLP, WIDTH), "ffn_up": (MLP, WIDTH), "ffn_down": (WIDTH, MLP)}

    def add(name: str, values: np.ndarray) -> None:
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    add("token_embd", rng.normal(0, 0.2, (vocabulary, WIDTH)))
    add("output_norm", np.ones(WIDTH))
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            add(f"blk.{layer}.{name}", rng.normal(0, 0.2, shape))
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{name}", np.ones(WIDTH))
