"""Models from demonstrations and stated preferences: the policy is fine-tuned on responses (SFT), the reward model starts as
that policy and learns from pairs (paper 4.1; N+'s recipe).

The task's source gives `demonstrations(split)` (columns prompt, response) and `comparisons(split)` (columns prompt, chosen,
rejected); prompts are PromptText. Its `preferences` says whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from scar.interfaces import PromptText
from scar.models import loading
from scar.models.reward import SCORE_OFFSET
from scar.seeding import generator, stream_seed
from scar.supervised.pairwise import Group, PairLoss, compare, encode, score_groups, train_pairwise
from scar.supervised.store import LocalModels, StartProgress
from scar.supervised.training import TrainingConfig, perplexity, train_language_model
from scar.tasks.prompts import WholePrompt


@dataclass(frozen=True)
class ComparisonModels(LocalModels):
    """Policy and reward model of a task whose source has comparisons. Settings of each: `lengths` (tokens of prompt and
    response) and `training`; of the reward model also `pairs` (use at most so many), `closed` (it reads EOS) and `center`
    (the mean score of the train demonstrations is taken off every score)."""

    def corpus(self) -> list[str]:
        """No tokenizer is trained here."""
        raise ValueError("models.stated needs models.pretrained: a tokenizer and a model to start from")

    def identity(self, kind: str) -> dict[str, Any]:
        """See LocalModels; the reward model starts as the policy."""
        return super().identity(kind) | ({"policy": self.fingerprint("policy")} if kind == "reward" else {})

    def train(self, kind: str, start: StartProgress) -> None:
        """Train "policy", or "reward" and, if it is missing, the policy before it."""
        if kind == "reward" and not self.has("policy"):
            self.train("policy", start)
        {"policy": self._train_policy, "reward": self._train_reward}[kind](start)

    def _rows(self, frame: pd.DataFrame, limit: int | None = None) -> pd.DataFrame:
        limits = [len(frame), *(n for n in (limit, self.settings["examples"]) if n is not None)]
        return frame.sample(n=min(limits), random_state=self.seed % 2**32).reset_index(drop=True)

    def _prompt_ids(self, prompts: Sequence[PromptText], tokenizer: Any, lengths: dict[str, int]) -> list[list[int]]:
        cut = WholePrompt(max_tokens=lengths["prompt_tokens"], overlong="cut")
        return cut.tokens(prompts, tokenizer, torch.Generator())

    # Policy

    def _sequences(self, split: str, tokenizer: Any, limit: int | None = None) -> list[list[int]]:
        """Prompt, response and EOS; a response that is too long is cut and then not closed (N+)."""
        lengths = self.settings["policy"]["lengths"]
        rows = self._rows(self.task.source.demonstrations(split), limit)
        prompts = self._prompt_ids(rows["prompt"], tokenizer, lengths)
        responses = encode(tokenizer, rows["response"].tolist())
        eos = tokenizer.eos_token_id
        return [p + [*r, eos][: lengths["response_tokens"]] for p, r in zip(prompts, responses, strict=True)]

    def _train_policy(self, start: StartProgress) -> None:
        settings, tokenizer, model = self.settings["policy"], self.tokenizer(), self.language_model()
        rows, pad_id = self._sequences("train", tokenizer), tokenizer.pad_token_id
        train_language_model(
            model,
            rows,
            config=TrainingConfig(**settings["training"]),
            pad_id=pad_id,
            generator=generator(self.seed, "policy"),
            progress=start("policy (SFT)"),
        )
        held_out = self._sequences("validation", tokenizer, settings["report_rows"])
        report = {
            "validation_perplexity": perplexity(model, held_out, pad_id=pad_id, batch_size=16),
            "train_texts": len(rows),
            "validation_texts": len(held_out),
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        self.save("policy", [model, tokenizer], report)

    # Reward model

    def _responses(self, texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
        """Responses as the reward model reads them: closed by EOS where it reads one, cut to its length."""
        settings = self.settings["reward"]
        longest, closing = (
            settings["lengths"]["response_tokens"],
            [tokenizer.eos_token_id] if settings["closed"] else [],
        )
        return [[*ids[: longest - len(closing)], *closing] for ids in encode(tokenizer, list(texts))]

    def _reward_prompts(self, prompts: Sequence[PromptText], tokenizer: Any) -> list[list[int]]:
        lengths, own = self.settings["reward"]["lengths"], [p.reward for p in prompts if p.reward is not None]
        if not own:
            return self._prompt_ids(prompts, tokenizer, lengths)
        return [ids[: lengths["prompt_tokens"]] for ids in encode(tokenizer, own)]

    def _groups(self, rows: pd.DataFrame, columns: Sequence[str], tokenizer: Any) -> list[Group]:
        """The responses of `columns` behind their prompts; pairs that a cut has made equal are left out."""
        prompts = self._reward_prompts(rows["prompt"].tolist(), tokenizer)
        sides = [self._responses(rows[name].tolist(), tokenizer) for name in columns]
        groups = [Group(prompt, responses) for prompt, *responses in zip(prompts, *sides, strict=True)]
        return [g for g in groups if all(g.responses) and (len(columns) == 1 or g.responses[0] != g.responses[1])]

    def _train_reward(self, start: StartProgress) -> None:
        settings, tokenizer = self.settings["reward"], self.tokenizer()
        seed = stream_seed(self.seed, "reward_init")
        model = loading.reward_model_on(self.folder("policy"), dropout=0.0, seed=seed).to(self.device)
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
            progress=start("reward model"),
        )
        report = {"preferences": self.task.source.preferences, "train_pairs": len(groups)}
        report |= self._center(model, tokenizer) if settings["center"] else {}
        self.save("reward", [model, tokenizer], report | self._accuracy(model, tokenizer))

    def _center(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """Stores the mean score of the train demonstrations, which is taken off every score (paper note 29)."""
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
