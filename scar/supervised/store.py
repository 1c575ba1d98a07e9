"""The models that a task's scale trains, from scratch or from a pretrained model: their names, their folders, which are there.

Each is named by a fingerprint of its settings, its data and its seed, so a changed setting makes a new model and an
unchanged one is never trained twice.

A gold model judges policies, and no policy learns from it. For it the splits change places: it learns from the validation
and test rows, which no other model learns from, and is reported on train rows. It shares no draw, no tokenizer and no
weights with the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pandas as pd
import torch

from scar.config import fingerprint
from scar.models import loading
from scar.models.cache import ModelCache
from scar.seeding import stream_seed
from scar.supervised.training import ProgressCallback

RECIPE = 1
"""Raised when the training code changes in a way that changes what it produces."""

HELD = ("rows_a_batch", "load", "weights", "labels")
"""Settings of how a finished model is used; they change nothing that is learned."""

StartProgress = Callable[[str], ProgressCallback]
"""Given a title, returns the callback of one training."""


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
    """The models of one task. `settings` is `conf/models/local_<task>.yaml` (or `small_`) as a plain dictionary; `KINDS` are
    the models that have a training of their own, in the order in which they are needed. `gold`: the gold reward model, and
    what it rests on; its kinds have the same names. `pretrained`: what the models start from, None for random weights."""

    KINDS: ClassVar[tuple[str, ...]] = ("policy", "reward")

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
    def train(self, kind: str, start: StartProgress) -> None:
        """Train and save the model `kind` (one of `KINDS`)."""

    @abstractmethod
    def corpus(self) -> list[str]:
        """The texts on which the tokenizer is trained."""

    def part(self, rows_of: Callable[[str], pd.DataFrame], split: str) -> pd.DataFrame:
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
        return identity

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
        if self.gold:
            return f"`python experiments/models.py experiment=gold task={self.task.name}` and the same overrides"
        script = "reward_model" if kind == "reward" else "sft"
        return f"`python experiments/{script}.py` and the same overrides (or `make models`)"

    def _cache_name(self, kind: str) -> str:
        return f"{self.task.name}-gold-{kind}" if self.gold else f"{self.task.name}-{kind}"

    def save(self, kind: str, parts: list[Any], report: dict[str, Any]) -> None:
        """Save a finished model with its report; that of a gold model says which rows are which."""
        if self.gold:
            report = {"trained_on": "validation and test rows", "reported_on": "train rows"} | report
        self.cache.save(self._cache_name(kind), self.fingerprint(kind), parts=parts, report=report)

    def language_model(self) -> Any:
        """The pretrained language model."""
        assert self.pretrained is not None
        name, revision = self.pretrained.find(self.cache)
        return loading.load_policy_model(name, revision=revision, device=self.device)

    def scorer(self) -> Any:
        """The pretrained language model with one fresh score in place of its vocabulary."""
        assert self.pretrained is not None
        name, revision = self.pretrained.find(self.cache)
        seed = stream_seed(self.seed, "reward_init")
        return loading.reward_model_on(name, revision=revision, dropout=0.0, seed=seed).to(self.device)

    def tokenizer(self) -> Any:
        """The pretrained model's tokenizer, or one trained on `corpus` when it is not cached."""
        if self.pretrained is not None:
            name, revision = self.pretrained.find(self.cache)
            return loading.load_tokenizer(name, revision=revision)
        if not self.has("tokenizer"):
            tokenizer = loading.train_tokenizer(self.corpus(), vocab_size=self.settings["tokenizer"]["vocab_size"])
            self.save("tokenizer", [tokenizer], {"vocabulary": len(tokenizer)})
        return loading.load_tokenizer(self.folder("tokenizer"))
