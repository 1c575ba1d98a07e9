"""The models that a task's scale trains, from scratch or from a pretrained model: names, folders, and how they are trained.

Each is named by a fingerprint of its settings, its data and its seed, so a changed setting makes a new model and an
unchanged one is never trained twice.

A gold model judges policies, and no policy learns from it. For it the splits change places: it learns from the validation
and test rows, which no other model learns from, and is reported on train rows. It shares no draw, no tokenizer and no
weights with the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pandas as pd
import torch

from scar.config import fingerprint
from scar.models import loading
from scar.models.cache import ModelCache
from scar.seeding import generator, stream_seed
from scar.supervised.training import ProgressCallback, TrainingConfig, perplexity, train_language_model

RECIPE = 1
"""Raised when the training code changes in a way that changes what it produces."""

HELD = ("rows_a_batch", "load", "weights", "labels")
"""Settings of how a finished model is used; they change nothing that is learned."""

StartProgress = Callable[[str], ProgressCallback]
"""Given a title, returns the callback of one training."""

ARCHITECTURE = {"layers": int, "width": int, "heads": int, "context": int, "dropout": float}
TOKENIZER = {"vocab_size": int, "head_characters": int}
LENGTHS = {"prompt_tokens": int, "response_tokens": int, "least_tokens": int}
"""What nodes of `models` hold, by name (`LocalModels.SETTINGS`)."""

TITLES = {"base": "language model", "policy": "policy (SFT)", "reward": "reward model"}
"""What a training is called on the screen."""


class Pretrained(Protocol):
    """A pretrained language model (scar/models/pretrained.py)."""

    def identity(self) -> dict[str, Any]:
        """What a model that starts from it must name in its fingerprint."""
        ...

    def find(self, cache: ModelCache) -> tuple[str, str | None]:
        """Name and revision, or folder and None."""
        ...


@dataclass(frozen=True)
class LocalModels(ABC):
    """The models of one task. A subclass gives the data: `corpus`, `sequences` and `samples` of the language models, and
    `fit_reward`. `settings` is `models` of the config as a plain dictionary. `gold`: the gold reward
    model, and what it rests on; its kinds have the same names. `pretrained`: what the models start from, None for random
    weights."""

    KINDS: ClassVar[tuple[str, ...]] = ("policy", "reward")
    """The models that have a training of their own, in the order in which they are needed."""
    RESTS_ON: ClassVar[Mapping[str, str]] = {}
    """The kind whose weights a kind starts from; the others start from `pretrained` or from random weights."""
    POLICY_STREAM: ClassVar[str] = "policy"
    """The name of the random stream that the policy's training draws from."""
    SETTINGS: ClassVar[Mapping[str, Any]]
    """What `settings` holds: a type, a dataclass, or the same for each key. A setting that is not here is refused."""
    REPORT_BATCH: ClassVar[int] = 64
    """Rows of a batch of the perplexity that is reported; the last digits depend on it."""

    settings: dict[str, Any]
    task: Any
    cache: ModelCache
    model_seed: int
    device: torch.device
    gold: bool = False
    pretrained: Pretrained | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are trained: a pretrained model needs no "base" below it."""
        return self.KINDS if self.pretrained is None else tuple(kind for kind in self.KINDS if kind != "base")

    @property
    def seed(self) -> int:
        """What all draws are made from."""
        return stream_seed(self.model_seed, "gold") if self.gold else self.model_seed

    @abstractmethod
    def corpus(self) -> list[str]:
        """The texts on which the tokenizer is trained."""

    @abstractmethod
    def sequences(self, kind: str, split: str, tokenizer: Any) -> list[list[int]]:
        """Token rows that "base" or "policy" learns ("train") or is reported on ("validation")."""

    @abstractmethod
    def fit_reward(self, model: Any, tokenizer: Any, progress: ProgressCallback) -> dict[str, Any]:
        """Train the reward model in place; what there is to report of it."""

    def samples(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """What the report of a trained policy shows of its texts."""
        return {}

    def rests_on(self, kind: str) -> str | None:
        """The kind whose weights `kind` starts from; None: no model that is trained here."""
        below = self.RESTS_ON.get(kind)
        return below if below in self.kinds else None

    def train(self, kind: str, start: StartProgress) -> None:
        """Train and save the model `kind` (one of `KINDS`) and, if it is missing, the one that it rests on before it."""
        below = self.rests_on(kind)
        if below is not None and not self.has(below):
            self.train(below, start)
        tokenizer = self.tokenizer()
        model = self._start(kind, tokenizer).to(self.device)
        if kind == "reward":
            report = self.fit_reward(model, tokenizer, start(TITLES[kind]))
        else:
            report = self._fit_language_model(kind, model, tokenizer, start(TITLES[kind]))
        self.save(kind, [model, tokenizer], report)

    def _start(self, kind: str, tokenizer: Any) -> Any:
        """The model `kind` before its training: on the one that it rests on, on the pretrained one, or random."""
        below, settings, seed = self.rests_on(kind), self.settings[kind], stream_seed(self.seed, f"{kind}_init")
        if below is None and self.pretrained is None:
            new = loading.new_reward_model if kind == "reward" else loading.new_policy_model
            return new(tokenizer, settings["architecture"], seed=seed)
        name, revision = self._pretrained() if below is None else (str(self.folder(below)), None)
        if kind == "reward":
            return loading.reward_model_on(name, revision=revision, dropout=settings.get("dropout", 0.0), seed=seed)
        return loading.load_policy_model(name, revision=revision, device=self.device)

    def _fit_language_model(self, kind: str, model: Any, tokenizer: Any, progress: ProgressCallback) -> dict[str, Any]:
        """Train the base model or the policy in place; returns its report."""
        rows, pad_id = self.sequences(kind, "train", tokenizer), tokenizer.pad_token_id
        train_language_model(
            model,
            rows,
            config=TrainingConfig(**self.settings[kind]["training"]),
            pad_id=pad_id,
            generator=generator(self.seed, self.POLICY_STREAM if kind == "policy" else kind),
            progress=progress,
        )
        held_out = self.sequences(kind, "validation", tokenizer)
        report = {
            "validation_perplexity": perplexity(model, held_out, pad_id=pad_id, batch_size=self.REPORT_BATCH),
            "train_texts": len(rows),
            "validation_texts": len(held_out),
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        return report | (self.samples(model, tokenizer) if kind == "policy" else {})

    def rows_of_split(self, rows_of: Callable[[str], pd.DataFrame], split: str) -> pd.DataFrame:
        """The rows that serve as `split`, of `rows_of` the task's splits. For a gold model validation and test rows serve
        as "train"; for the others a fixed sample of the train rows does, as large as the split whose place it takes."""
        if not self.gold:
            return rows_of(split)
        if split == "train":
            return pd.concat([rows_of("validation"), rows_of("test")])
        rows = rows_of("train")
        return rows.sample(n=min(len(rows_of(split)), len(rows)), random_state=0)

    def identity(self, kind: str) -> dict[str, Any]:
        """All that decides what the model `kind` (one of `KINDS`, or "tokenizer") becomes."""
        identity = {"recipe": RECIPE, "kind": kind, "task": self.task.name, "data": self.task.source.identity()}
        identity |= {"tokenizer": self.settings["tokenizer"]} | ({"role": "gold"} if self.gold else {})
        identity |= {} if self.pretrained is None else {"pretrained": self.pretrained.identity()}
        if kind != "tokenizer":
            settings = {key: value for key, value in self.settings[kind].items() if key not in HELD}
            identity |= {"settings": settings, "examples": self.settings["examples"]}
            identity |= {"seed": self.seed, "device": self.device.type}
        below = self.rests_on(kind)
        return identity | ({} if below is None else {below: self.fingerprint(below)})

    def fingerprint(self, kind: str) -> str:
        """The short name of the model `kind`."""
        return fingerprint(self.identity(kind))

    def folder(self, kind: str) -> Path:
        """The folder of a finished model; FileNotFoundError with the command that makes it when it is missing."""
        name = self._cache_name(kind)
        if not self.cache.has(name, self.fingerprint(kind)):
            raise FileNotFoundError(
                f"the {'gold ' if self.gold else ''}{kind} model of task={self.task.name} with model_seed={self.model_seed} "
                f"is not in {self.cache.root}; make it with {self._command(kind)}"
            )
        return self.cache.folder(name, self.fingerprint(kind))

    def report(self, kind: str) -> dict[str, Any]:
        """The quality report of a finished model."""
        return self.cache.report(self._cache_name(kind), self.fingerprint(kind))

    def has(self, kind: str) -> bool:
        """Whether the model is there and whole."""
        return self.cache.has(self._cache_name(kind), self.fingerprint(kind))

    def _command(self, kind: str) -> str:
        model = "gold" if self.gold else kind
        return f"`python experiments/models.py model={model}` and the same overrides" + " (or `make models`)" * (
            not self.gold
        )

    def _cache_name(self, kind: str) -> str:
        return f"{self.task.name}-gold-{kind}" if self.gold else f"{self.task.name}-{kind}"

    def save(self, kind: str, parts: list[Any], report: dict[str, Any]) -> None:
        """Save a finished model with its report; that of a gold model says which rows are which."""
        if self.gold:
            report = {"trained_on": "validation and test rows", "reported_on": "train rows"} | report
        self.cache.save(self._cache_name(kind), self.fingerprint(kind), parts=parts, report=report)

    def _pretrained(self) -> tuple[str, str | None]:
        """Name and revision of the pretrained model, or its folder and None."""
        assert self.pretrained is not None
        return self.pretrained.find(self.cache)

    def tokenizer(self) -> Any:
        """The pretrained model's tokenizer, or one trained on `corpus` when it is not cached."""
        if self.pretrained is not None:
            name, revision = self._pretrained()
            return loading.load_tokenizer(name, revision=revision)
        if not self.has("tokenizer"):
            tokenizer = loading.train_tokenizer(self.corpus(), vocab_size=self.settings["tokenizer"]["vocab_size"])
            self.save("tokenizer", [tokenizer], {"vocabulary": len(tokenizer)})
        return loading.load_tokenizer(self.folder("tokenizer"))
