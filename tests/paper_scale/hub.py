"""Small random models and a few rows, written as the hub's repositories hold them: file formats, key names, tokenizers.

`imdb`: GPT-2 as of 2020, `pytorch_model.bin` with mask buffers, vocab.json and merges.txt, no padding token. `tldr`: GPT-NeoX in
float16 safetensors, tokenizer.json. `hh`: Llama in a sharded `.bin` with its index, a sentencepiece tokenizer.model with BOS.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import sentencepiece
import torch
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from scar.models.loading import train_tokenizer
from tests.tasks.rows import json_lines

REVIEW = "Film {} is long. " + "It is a winding story of people who meet, quarrel, and part again. " * 4
POST = "I am {} years old and my cat is ill.\nMy friends say that I worry too much.\n\nWhat should I do about it?"
SUMMARY = "My cat is ill and {} friends say I worry too much."
HUMAN, ASSISTANT = "\n\nHuman: How do I bake bread number {}?", "\n\nAssistant: Mix flour and {} water, and wait."
INSTRUCTIONS = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)
END = "<|endoftext|>"


def seeded(build: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return build(config)


def imdb(root: Path) -> list[str]:
    """Data and both models; the overrides that name them."""
    for split in ("train", "test"):
        rows = [{"text": (split + " " + REVIEW).format(i), "label": i % 2} for i in range(40)]
        path = root / "imdb" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_parquet(path)
    tokenizer = train_tokenizer([REVIEW.format(i) for i in range(40)], vocab_size=300)
    config = {"vocab_size": len(tokenizer), "n_positions": 128, "n_embd": 16, "n_layer": 2, "n_head": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    for name, model in {
        "policy": seeded(GPT2LMHeadModel, GPT2Config(**config, **ids)),
        "reward": seeded(GPT2ForSequenceClassification, GPT2Config(**config, **ids, num_labels=2)),
    }.items():
        folder = root / name
        model.config.save_pretrained(folder)
        tokenizer.backend_tokenizer.model.save(str(folder))  # vocab.json, merges.txt
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1024}))
        state = model.state_dict()
        for layer in range(2):  # buffers that checkpoints of that time hold
            state[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 128, 128, dtype=torch.bool).tril()
            state[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        torch.save(state, folder / "pytorch_model.bin")
    return [
        f"task.sources.hub.path={root}/imdb",
        f"models.policy.name={root}/policy",
        f"models.reward.name={root}/reward",
    ]


def post_row(number: int) -> dict[str, Any]:
    post = {"id": f"t3_{number}", "subreddit": "AskReddit", "title": f"Cat {number}", "post": POST.format(number)}
    return post | {"summary": SUMMARY.format(number), "query_token": [1, 2], "reference_response": "unused"}


def comparison_row(number: int) -> dict[str, Any]:
    query = f"SUBREDDIT: r/AskReddit\n\nTITLE: Cat {number}\n\nPOST: {POST.format(number)}\n\nTL;DR:"
    return {
        "info": {"id": f"t3_{number}"},
        "choice": number % 2,
        "query": query,
        "chosen": f" {SUMMARY.format(number)}{END}",
        "rejected": f" Film number {number} is long.{END}",
        "query_token": [1, 2],
    }


def tldr(root: Path) -> list[str]:
    """Data and the base model; the overrides that name them and make two short trainings of them."""
    for name, row in (("posts", post_row), ("comparisons", comparison_row)):
        for split in ("train", "validation", "test"):
            path = root / name / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame([row(i) for i in range(16)]).to_parquet(path)
    texts = [comparison_row(i)["query"] + comparison_row(i)["chosen"] for i in range(16)]
    tokenizer = train_tokenizer(texts, vocab_size=320)
    tokenizer.pad_token = None
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer) + 7,  # Pythia's embedding has more rows than its tokenizer tokens
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=160,
        bos_token_id=0,
        eos_token_id=0,
    )
    seeded(GPTNeoXForCausalLM, config).half().save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    short = [
        f"models.{kind}.training.{key}"
        for kind in ("policy", "reward")
        for key in ("batch_size=8", "microbatch_size=4", "epochs=1")
    ]
    lengths = [f"models.{kind}.lengths.prompt_tokens=96" for kind in ("policy", "reward")]
    return [
        f"task.sources.hub.path={root}/posts",
        f"task.sources.hub.comparisons_path={root}/comparisons",
        f"models.pretrained.name={root}/base",
        "models.reward.lengths.response_tokens=53",
        "task.prompt.max_tokens=96",
        *short,
        *lengths,
    ]


def dialogue(number: int, times: int = 1) -> dict[str, str]:
    said = (HUMAN + ASSISTANT).format(number, "some") * times
    return {"chosen": said, "rejected": said + " No."}


def hh(root: Path) -> list[str]:
    """Data and both models; the overrides that name them."""
    rows = [dialogue(i) for i in range(24)] + [dialogue(i, times=2) for i in range(4)]
    for split in ("train", "test"):
        json_lines(root / "hh" / "helpful-base" / f"{split}.jsonl.gz", rows)
    llama_tokenizer(root)
    config = {
        "vocab_size": 512,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 192,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    for name, model in {
        "policy": seeded(LlamaForCausalLM, LlamaConfig(**config)),
        "reward": seeded(LlamaForSequenceClassification, LlamaConfig(**config, num_labels=1)),
    }.items():
        model.config.save_pretrained(root / name)
        sharded(root / name, model.state_dict())
        for file in ("tokenizer.model", "tokenizer_config.json"):
            (root / name / file).write_bytes((root / "tokenizer" / file).read_bytes())
    return [
        f"task.sources.hub.path={root}/hh",
        f"models.policy.name={root}/policy",
        f"models.reward.name={root}/reward",
        "task.generation.max_new_tokens=12",
        "task.prompt.max_tokens=128",
    ]


def sharded(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Two files of half-precision weights and their index, as large checkpoints of 2023 are."""
    keys = list(state)
    files = {1: keys[: len(keys) // 2], 2: keys[len(keys) // 2 :]}
    where = {}
    for number, names in files.items():
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({name: state[name].half() for name in names}, folder / file)
        where |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def llama_tokenizer(root: Path) -> Path:
    """A sentencepiece model of a few texts, with the settings of the OpenLLaMA repositories."""
    folder = root / "tokenizer"
    folder.mkdir(parents=True)
    texts = folder / "texts.txt"
    lines = [
        INSTRUCTIONS,
        "### Instruction:",
        "### Response:",
        "###Human: ###Assistant:",
        *(r["chosen"] for r in _hh_rows()),
    ]
    texts.write_text("\n".join(lines) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(texts),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        pad_id=-1,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        minloglevel=2,
    )
    settings = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>"}
    settings |= {"unk_token": "<unk>", "model_max_length": 2048, "tokenizer_class": "LlamaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _hh_rows() -> Iterator[dict[str, str]]:
    return (dialogue(i) for i in range(24))


BUILD = {"imdb": imdb, "tldr": tldr, "hh": hh}
