"""imdb: a language model of review beginnings, and a sentiment model of prefixes and sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from scar.config import GenerationConfig
from scar.models import loading
from scar.models.policy import CausalPolicy
from scar.ppo.rollout import Sampler
from scar.seeding import generator, stream_seed
from scar.supervised.store import LocalModels, StartProgress
from scar.supervised.training import (
    RewardAugmentation,
    TrainingConfig,
    accuracy,
    perplexity,
    train_language_model,
    train_reward_model,
)
from scar.tasks.prompts import FirstTokens, PromptBatches


@dataclass(frozen=True)
class SentimentModels(LocalModels):
    """Policy and reward model of film reviews."""

    def train(self, kind: str, start: StartProgress) -> None:
        """Train "policy" or "reward"."""
        {"policy": self.train_policy, "reward": self.train_reward}[kind](start)

    def corpus(self) -> list[str]:
        """The heads of all train texts."""
        return self._heads("train", origin=None)["text"].tolist()

    def _heads(self, split: str, *, origin: str | None) -> Any:
        """Examples with texts cut to their heads: no model here reads further, and encoding whole reviews is slow."""
        rows = self.part(lambda name: self.task.examples(name, origin=origin), split)
        rows = rows.assign(text=rows["text"].str[: self.settings["tokenizer"]["head_characters"]])
        limit = self.settings["examples"]
        return rows if limit is None else rows.sample(n=min(limit, len(rows)), random_state=0)

    def _encode(self, tokenizer: Any, texts: Any, max_tokens: int) -> list[list[int]]:
        encoded = tokenizer(texts.tolist(), add_special_tokens=False)["input_ids"]
        return [ids[:max_tokens] for ids in encoded]

    def train_policy(self, start: StartProgress) -> None:
        """A language model of the beginnings of train reviews (the paper's SFT policy)."""
        settings, tokenizer = self.settings["policy"], self.tokenizer()
        rows = self._encode(tokenizer, self._heads("train", origin="imdb")["text"], settings["max_tokens"])
        held_out = self._encode(tokenizer, self._heads("validation", origin="imdb")["text"], settings["max_tokens"])
        model = self._new_policy(tokenizer)
        pad_id = tokenizer.pad_token_id
        train_language_model(
            model,
            rows,
            config=TrainingConfig(**settings["training"]),
            pad_id=pad_id,
            generator=generator(self.seed, "sft"),
            progress=start("policy (SFT)"),
        )
        report = {
            "validation_perplexity": perplexity(model, held_out, pad_id=pad_id),
            "train_texts": len(rows),
            "validation_texts": len(held_out),
            "parameters": sum(p.numel() for p in model.parameters()),
            "samples": self._samples(model, tokenizer),
        }
        self.save("policy", [model, tokenizer], report)

    def _new_policy(self, tokenizer: Any) -> Any:
        if self.pretrained is not None:
            return self.language_model()
        seed = stream_seed(self.seed, "policy_init")
        return loading.new_policy_model(tokenizer, self.settings["policy"]["architecture"], seed=seed).to(self.device)

    def _new_scorer(self, tokenizer: Any) -> Any:
        if self.pretrained is not None:
            return self.scorer()
        seed = stream_seed(self.seed, "reward_init")
        return loading.new_reward_model(tokenizer, self.settings["reward"]["architecture"], seed=seed).to(self.device)

    def _samples(self, model: Any, tokenizer: Any) -> list[str]:
        """A few continuations of validation prompts, at the temperature of the task."""
        generation = GenerationConfig(temperature=0.7, min_new_tokens=24, max_new_tokens=24, sample_length=False)
        policy = CausalPolicy(
            model,
            temperature=generation.temperature,
            min_new_tokens=generation.min_new_tokens,
            eos_id=tokenizer.eos_token_id,
            pad_id=tokenizer.pad_token_id,
        )
        prompts = PromptBatches(
            self.task.prompts("validation"),
            cut=FirstTokens(min_tokens=4, max_tokens=8),
            tokenizer=tokenizer,
            batch_size=4,
            seed=self.seed,
            device=self.device,
        )
        sampler = Sampler(policy, policy, tokenizer=tokenizer, generation=generation)
        rollout = sampler.sample(prompts.batch(0), generator=generator(self.seed, "sft_samples", device=self.device))
        return [f"{prompt} |{text}" for prompt, text in zip(rollout.prompts.texts, rollout.texts, strict=True)]

    def train_reward(self, start: StartProgress) -> None:
        """A sentiment scorer of prefixes, sentences and partly blanked texts; the label of a review holds for its prefixes."""
        settings, tokenizer = self.settings["reward"], self.tokenizer()
        max_tokens = settings["augmentation"]["max_tokens"]
        train = self._heads("train", origin=None)
        rows = self._encode(tokenizer, train["text"], max_tokens)
        model = self._new_scorer(tokenizer)
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
            progress=start("reward model"),
        )
        report = self._reward_report(model, tokenizer, max_tokens) | {
            "train_texts": len(rows),
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        self.save("reward", [model, tokenizer], report)

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
