"""Models from demonstrations and stated preferences: the policy is fine-tuned on responses (SFT), the reward model starts as
that policy and learns from pairs (paper 4.1; N+'s recipe).

The task's source gives `demonstrations(split)` (columns prompt, response) and `comparisons(split)` (columns prompt, chosen,
rejected); prompts are PromptText. Its `preferences` says whose they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from scar.models.reward import SCORE_OFFSET
from scar.seeding import generator
from scar.supervised.pairwise import Group, PairLoss, compare, score_groups, train_pairwise
from scar.supervised.store import LENGTHS, LocalModels
from scar.supervised.training import ProgressCallback, TrainingConfig, dialog_rows, encode, reward_prompt_rows


@dataclass(frozen=True)
class ComparisonModels(LocalModels):
    """Policy and reward model of a task whose source has comparisons. Settings of each: `lengths` (tokens of prompt and
    response) and `training`; of the reward model also `pairs` (use at most so many), `closed` (it reads EOS) and `center`
    (the mean score of the train demonstrations is taken off every score)."""

    RESTS_ON: ClassVar[Mapping[str, str]] = {"reward": "policy"}
    REPORT_BATCH: ClassVar[int] = 16
    SETTINGS: ClassVar[Mapping[str, Any]] = {
        "tokenizer": dict | None,
        "policy": {"lengths": LENGTHS, "report_rows": int, "training": TrainingConfig},
        "reward": {
            "lengths": LENGTHS,
            "dropout": float,
            "closed": bool,
            "center": bool,
            "pairs": int | None,
            "report_rows": int,
            "training": TrainingConfig,
            "loss": PairLoss,
        },
    }

    def corpus(self) -> list[str]:
        """No tokenizer is trained here."""
        raise ValueError("models.stated needs models.pretrained: a tokenizer and a model to start from")

    def _rows(self, frame: pd.DataFrame, limit: int | None = None) -> pd.DataFrame:
        limits = [len(frame), *(n for n in (limit, self.settings["examples"]) if n is not None)]
        return frame.sample(n=min(limits), random_state=self.seed % 2**32).reset_index(drop=True)

    def sequences(self, kind: str, split: str, tokenizer: Any) -> list[list[int]]:
        """Demonstrations, each behind its prompt."""
        settings = self.settings[kind]
        limit = None if split == "train" else settings["report_rows"]
        rows = self._rows(self.task.source.demonstrations(split), limit)
        return dialog_rows(rows["prompt"].tolist(), rows["response"].tolist(), tokenizer, settings["lengths"])

    def _responses(self, texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
        """Responses as the reward model reads them: closed by EOS where it reads one, cut to its length."""
        settings = self.settings["reward"]
        longest, closing = (
            settings["lengths"]["response_tokens"],
            [tokenizer.eos_token_id] if settings["closed"] else [],
        )
        return [[*ids[: longest - len(closing)], *closing] for ids in encode(tokenizer, list(texts))]

    def _groups(self, rows: pd.DataFrame, columns: Sequence[str], tokenizer: Any) -> list[Group]:
        """The responses of `columns` behind their prompts; pairs that a cut has made equal are left out."""
        longest = self.settings["reward"]["lengths"]["prompt_tokens"]
        prompts = reward_prompt_rows(rows["prompt"].tolist(), tokenizer, max_tokens=longest)
        sides = [self._responses(rows[name].tolist(), tokenizer) for name in columns]
        groups = [Group(prompt, responses) for prompt, *responses in zip(prompts, *sides, strict=True)]
        return [g for g in groups if all(g.responses) and (len(columns) == 1 or g.responses[0] != g.responses[1])]

    def fit_reward(self, model: Any, tokenizer: Any, progress: ProgressCallback) -> dict[str, Any]:
        """See LocalModels."""
        settings = self.settings["reward"]
        rows = self._rows(self.task.source.comparisons("train"), settings["pairs"])
        groups = self._groups(rows, ("chosen", "rejected"), tokenizer)
        train_pairwise(
            model,
            lambda chosen: [groups[i] for i in chosen],
            len(groups),
            loss=PairLoss(),
            config=TrainingConfig(**settings["training"]),
            pad_id=tokenizer.pad_token_id,
            generator=generator(self.seed, "reward_training"),
            progress=progress,
        )
        report = {"preferences": self.task.source.preferences, "train_pairs": len(groups)}
        report |= self._center(model, tokenizer) if settings["center"] else {}
        return report | self._accuracy(model, tokenizer)

    def _center(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """Stores the mean score of the train demonstrations, which is taken off every score (docs/decisions.md#tldr-score)."""
        groups = self._groups(self._rows(self.task.source.demonstrations("train")), ("response",), tokenizer)
        scores = score_groups(model, groups, pad_id=tokenizer.pad_token_id, groups_a_batch=16)
        offset = float(scores.double().mean())
        setattr(model.config, SCORE_OFFSET, offset)
        return {SCORE_OFFSET: offset}

    def _accuracy(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        rows = self._rows(self.task.source.comparisons("validation"), self.settings["reward"]["report_rows"])
        groups = self._groups(rows, ("chosen", "rejected"), tokenizer)
        return {"validation_pairs": len(groups)} | compare(
            model, {"stated": groups}, name="accuracy", pad_id=tokenizer.pad_token_id
        )
