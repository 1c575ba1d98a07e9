"""imdb: a language model of review beginnings, and a sentiment model of prefixes and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from scar.config import GenerationConfig
from scar.models import loading
from scar.seeding import generator
from scar.supervised.store import ARCHITECTURE, TOKENIZER, LocalModels
from scar.supervised.training import (
    ProgressCallback,
    RewardAugmentation,
    TrainingConfig,
    accuracy,
    encode,
    sample_texts,
    train_reward_model,
)
from scar.tasks.prompts import FirstTokens


@dataclass(frozen=True)
class SentimentModels(LocalModels):
    """Policy and reward model of film reviews."""

    POLICY_STREAM: ClassVar[str] = "sft"
    SETTINGS: ClassVar[Mapping[str, Any]] = {
        "tokenizer": TOKENIZER,
        "policy": {"architecture": ARCHITECTURE, "max_tokens": int, "training": TrainingConfig},
        "reward": {
            "architecture": ARCHITECTURE,
            "dropout": float,
            "training": TrainingConfig,
            "augmentation": RewardAugmentation,
        },
    }

    def corpus(self) -> list[str]:
        """The heads of all train texts."""
        return self._heads("train", origin=None)["text"].tolist()

    def _heads(self, split: str, *, origin: str | None) -> Any:
        """Examples with texts cut to their heads: no model here reads further, and encoding whole reviews is slow."""
        rows = self.rows_of_split(lambda name: self.task.examples(name, origin=origin), split)
        rows = rows.assign(text=rows["text"].str[: self.settings["tokenizer"]["head_characters"]])
        limit = self.settings["examples"]
        return rows if limit is None else rows.sample(n=min(limit, len(rows)), random_state=0)

    def _encode(self, tokenizer: Any, texts: Any, max_tokens: int) -> list[list[int]]:
        return [row[:max_tokens] for row in encode(tokenizer, texts.tolist())]

    def sequences(self, kind: str, split: str, tokenizer: Any) -> list[list[int]]:
        """Beginnings of reviews."""
        return self._encode(tokenizer, self._heads(split, origin="imdb")["text"], self.settings[kind]["max_tokens"])

    def samples(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """A few continuations of validation prompts, at the temperature of the task."""
        rollout = sample_texts(
            model,
            tokenizer,
            self.task.prompts("validation"),
            cut=FirstTokens(min_tokens=4, max_tokens=8),
            generation=GenerationConfig(temperature=0.7, min_new_tokens=24, max_new_tokens=24, sample_length=False),
            count=4,
            seed=self.seed,
            device=self.device,
        )
        texts = zip(rollout.prompts.texts, rollout.texts, strict=True)
        return {"samples": [f"{prompt} |{text}" for prompt, text in texts]}

    def fit_reward(self, model: Any, tokenizer: Any, progress: ProgressCallback) -> dict[str, Any]:
        """A sentiment scorer of prefixes, sentences and partly blanked texts; the label of a review holds for its prefixes."""
        settings = self.settings["reward"]
        max_tokens = settings["augmentation"]["max_tokens"]
        train = self._heads("train", origin=None)
        rows = self._encode(tokenizer, train["text"], max_tokens)
        pad_id, space_id = tokenizer.pad_token_id, loading.space_token(tokenizer)
        train_reward_model(
            model,
            rows,
            train["label"].tolist(),
            config=TrainingConfig(**settings["training"]),
            augmentation=RewardAugmentation(**settings["augmentation"]),
            space_id=space_id,
            pad_id=pad_id,
            generator=generator(self.seed, "reward_training"),
            progress=progress,
        )
        return self._reward_report(model, tokenizer, max_tokens) | {
            "train_texts": len(rows),
            "parameters": sum(p.numel() for p in model.parameters()),
        }

    def _reward_report(self, model: Any, tokenizer: Any, max_tokens: int) -> dict[str, Any]:
        """Accuracy on held-out (test) texts: review heads, review prefixes of 16-32 tokens, Rotten Tomatoes sentences."""
        reviews = self._heads("test", origin="imdb")
        heads = self._encode(tokenizer, reviews["text"], max_tokens)
        lengths = torch.randint(16, 33, (len(heads),), generator=generator(0, "report_prefixes")).tolist()
        prefixes = [row[:length] for row, length in zip(heads, lengths, strict=True)]
        sentences = self._heads("test", origin="rotten_tomatoes")
        sets = {
            f"accuracy_review_{max_tokens}_tokens": (heads, reviews["label"]),
            "accuracy_review_prefix_16_32_tokens": (prefixes, reviews["label"]),
        }
        if len(sentences):  # the hub's data set has reviews only
            sets["accuracy_rotten_tomatoes"] = (
                self._encode(tokenizer, sentences["text"], max_tokens),
                sentences["label"],
            )
        report: dict[str, Any] = {"test_texts": {name: len(rows) for name, (rows, _) in sets.items()}}
        for name, (texts, labels) in sets.items():
            report[name] = accuracy(model, texts, labels.tolist(), pad_id=tokenizer.pad_token_id)
        return report
