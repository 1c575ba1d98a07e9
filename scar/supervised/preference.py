"""The models of tldr and hh at local scale: a language model of the task's texts, from it the policy (fine-tuned on the
task's responses) and, on pairs, the reward model.

The pairs are constructed: nobody compared the texts (scar/supervised/distractors.py), and every report says so. What the texts
are is the business of the subclasses.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from scar.config import GenerationConfig
from scar.models.reward import SCORE_OFFSET
from scar.seeding import generator, numpy_generator
from scar.supervised.distractors import Distractor, answer_distractors, cut_together, summary_distractors
from scar.supervised.pairwise import (
    Group,
    GroupDrawer,
    LabelOf,
    PairLoss,
    compare,
    score_groups,
    train_pairwise,
)
from scar.supervised.store import ARCHITECTURE, LENGTHS, TOKENIZER, LocalModels
from scar.supervised.training import (
    ProgressCallback,
    TrainingConfig,
    dialog_rows,
    encode,
    reward_prompt_rows,
    sample_texts,
)
from scar.tasks import hh, tldr
from scar.tasks.hh import REWARD_PROMPT
from scar.tasks.prompts import WholePrompt


@dataclass(frozen=True)
class PreferenceModels(LocalModels):
    """`rows(split)` are the task's texts: columns prompt (PromptText), response, sft (the policy learns it), and what
    `distractors` needs."""

    KINDS: ClassVar[tuple[str, ...]] = ("base", "policy", "reward")
    RESTS_ON: ClassVar[Mapping[str, str]] = {"policy": "base", "reward": "base"}
    SETTINGS: ClassVar[Mapping[str, Any]] = {
        "tokenizer": TOKENIZER,
        "lengths": LENGTHS,
        "base": {"architecture": ARCHITECTURE, "training": TrainingConfig},
        "policy": {"training": TrainingConfig},
        "reward": {
            "dropout": float,
            "training": TrainingConfig,
            "loss": PairLoss,
            "kinds": dict[str, float],
            "pairs_a_row": int,
            "blank": {"share": float, "max_fraction": float},
            "report_rows": int,
        },
    }

    @abstractmethod
    def all_rows(self) -> pd.DataFrame:
        """The rows of all splits, with a column split."""

    @abstractmethod
    def distractors(self, rows: pd.DataFrame) -> dict[str, Distractor]:
        """What the own response of a row of `rows` is compared with, by kind."""

    def labels(self, rows: pd.DataFrame) -> LabelOf | None:
        """What is known of prompts and responses beside the preferences; None: nothing."""
        return None

    @abstractmethod
    def finish(self, responses: Sequence[list[int]], tokenizer: Any, draws: np.random.Generator) -> list[list[int]]:
        """Encoded responses of one group as the reward model reads them: cut, closed."""

    @abstractmethod
    def after_training(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """What is done to a trained reward model, and what there is to report of it beside its accuracy."""

    def language_texts(self) -> list[str]:
        """Texts for the base model beside the rows."""
        return []

    def identity(self, kind: str) -> dict[str, Any]:
        """See LocalModels."""
        return super().identity(kind) | {"lengths": self.settings["lengths"]}

    @cached_property
    def _rows(self) -> pd.DataFrame:
        rows, limit = self.all_rows(), self.settings["examples"]
        return rows if limit is None else pd.concat([_some(group, limit) for _, group in rows.groupby("split")])

    def rows(self, split: str) -> pd.DataFrame:
        """The rows that serve as one split."""
        return self.rows_of_split(lambda name: self._rows[self._rows["split"] == name], split).reset_index(drop=True)

    def corpus(self) -> list[str]:
        """Prompts and responses of the train rows, their heads only, and the texts beside them."""
        rows, head = self.rows("train"), self.settings["tokenizer"]["head_characters"]
        texts = [p.before + p.body[:head] + p.after + r for p, r in zip(rows["prompt"], rows["response"], strict=True)]
        return texts + self.language_texts()

    @property
    def _prompt_tokens(self) -> int:
        return self.settings["lengths"]["prompt_tokens"]

    def reward_prompt_ids(self, rows: pd.DataFrame, tokenizer: Any) -> list[list[int]]:
        """Prompts as the reward model reads them, no longer than the policy's."""
        return reward_prompt_rows(rows["prompt"].tolist(), tokenizer, max_tokens=self._prompt_tokens)

    def sequences(self, kind: str, split: str, tokenizer: Any) -> list[list[int]]:
        """The policy learns the rows that `sft` marks; the base model all rows and the texts beside them."""
        rows, lengths = self.rows(split), self.settings["lengths"]
        base = kind == "base" and split == "train"
        rows = rows if base else rows[rows["sft"]]
        sequences = dialog_rows(rows["prompt"].tolist(), rows["response"].tolist(), tokenizer, lengths)
        return sequences + (_chunks(tokenizer, self.language_texts(), lengths) if base else [])

    def samples(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """Some continuations of validation prompts, and how many of 64 end with EOS."""
        prompts, longest = self.rows("validation")["prompt"].tolist()[:64], self.settings["lengths"]["response_tokens"]
        rollout = sample_texts(
            model,
            tokenizer,
            prompts,
            cut=WholePrompt(max_tokens=self._prompt_tokens, overlong="cut"),
            generation=GenerationConfig(temperature=0.7, min_new_tokens=0, max_new_tokens=longest, sample_length=False),
            count=len(prompts),
            seed=self.seed,
            device=self.device,
        )
        return {"finished_share": float(rollout.finished.float().mean()), "samples": rollout.texts[:4]}

    def fit_reward(self, model: Any, tokenizer: Any, progress: ProgressCallback) -> dict[str, Any]:
        """See LocalModels."""
        settings, rows = self.settings["reward"], self.rows("train")
        prompts, draws = self.reward_prompt_ids(rows, tokenizer), numpy_generator(self.seed, "reward_pairs", 0)
        groups = self._groups(rows, prompts, tokenizer, draws, settings=settings)
        train_pairwise(
            model,
            groups.draw,
            len(rows),
            loss=PairLoss(**settings["loss"]),
            config=TrainingConfig(**settings["training"]),
            pad_id=tokenizer.pad_token_id,
            generator=generator(self.seed, "reward_training"),
            progress=progress,
        )
        report = {"preferences": "constructed", "train_texts": len(rows)}
        report |= self.after_training(model, tokenizer)
        return report | self._accuracy(model, tokenizer)

    def _groups(
        self, rows: pd.DataFrame, prompts: list[list[int]], tokenizer: Any, draws: np.random.Generator, **options: Any
    ) -> GroupDrawer:
        return GroupDrawer(
            prompts=prompts,
            texts=rows["response"].tolist(),
            distractors=self.distractors(rows),
            label_of=self.labels(rows),
            finish=self.finish,
            tokenizer=tokenizer,
            draws=draws,
            **options,
        )

    def _accuracy(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """Held-out pairs, kind by kind: as they are, and with half of both responses blanked."""
        rows = _some(self.rows("test"), self.settings["reward"]["report_rows"]).reset_index(drop=True)
        prompts = self.reward_prompt_ids(rows, tokenizer)
        report: dict[str, Any] = {}
        for name, fraction in (("accuracy", 0.0), ("accuracy_half_blanked", 0.5)):
            by_kind = {}
            for kind in self.settings["reward"]["kinds"]:
                draws = numpy_generator(0, "reward_report", 0)  # equal pairs for every model and fraction
                settings = self.settings["reward"] | {"kinds": {kind: 1.0}, "pairs_a_row": 1}
                groups = self._groups(rows, prompts, tokenizer, draws, settings=settings, fraction=fraction)
                by_kind[kind] = [group for group in groups.draw(range(len(rows))) if len(group.responses) > 1]
            report |= compare(model, by_kind, name=name, pad_id=tokenizer.pad_token_id)
        return report


def _some(rows: pd.DataFrame, limit: int) -> pd.DataFrame:
    """At most `limit` rows, always the same ones; not the first, because data come sorted by label."""
    return rows.sample(n=min(limit, len(rows)), random_state=0)


def _chunks(tokenizer: Any, texts: Sequence[str], lengths: Mapping[str, int]) -> list[list[int]]:
    """Texts closed by EOS, cut into pieces as long as a prompt and a response."""
    size = lengths["prompt_tokens"] + lengths["response_tokens"]
    closed = [[*ids, tokenizer.eos_token_id] for ids in encode(tokenizer, texts)]
    pieces = [ids[start : start + size] for ids in closed for start in range(0, len(ids), size)]
    return [piece for piece in pieces if len(piece) > 8]


# hh at local scale: requests with machine-made answers, ranked pairs and plain texts of one source distribution.


@dataclass(frozen=True)
class AnswerModels(PreferenceModels):
    """Models of requests and answers. The reward model reads unfinished answers of any length, without EOS."""

    def all_rows(self) -> pd.DataFrame:
        """Requests with their answers, of which the heads are used."""
        rows, _ = self.task.source.answers()
        head = self.settings["tokenizer"]["head_characters"]
        return rows.assign(
            answer=rows["answer"].str[:head],
            prompt=rows["turn"].map(hh.prompt_of),
            response=" " + rows["answer"].str[:head],
            sft=True,
        )

    def language_texts(self) -> list[str]:
        """Web pages and encyclopedia paragraphs: the answers alone are too few to learn English from."""
        texts, limit = self.task.source.plain_texts(), self.settings["examples"]
        return texts if limit is None else texts[:limit]

    def distractors(self, rows: pd.DataFrame) -> dict[str, Distractor]:
        """See `answer_distractors`."""
        return answer_distractors(rows)

    def finish(self, responses: Sequence[list[int]], tokenizer: Any, draws: np.random.Generator) -> list[list[int]]:
        """Cut to lengths that tell nothing: one for all, or one drawn for each."""
        lengths = self.settings["lengths"]
        return cut_together(
            responses,
            min_tokens=lengths["least_tokens"],
            max_tokens=lengths["response_tokens"],
            one_length=bool(draws.random() < 0.5),
            generator=draws,
        )

    def after_training(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """Accuracy on the machine-ranked pairs, which training did not see, both cut to one length."""
        pairs = self.task.source.pairs()
        pairs = pairs[(pairs["split"] == "train") == self.gold].reset_index(drop=True)
        longest = self.settings["lengths"]
        prompts = encode(tokenizer, [REWARD_PROMPT.format(turn) for turn in pairs["turn"]])
        sides = [encode(tokenizer, (" " + pairs[name]).tolist()) for name in ("chosen", "rejected")]
        groups = []
        for prompt, better, worse in zip(prompts, *sides, strict=True):
            length = min(longest["response_tokens"], len(better), len(worse))
            if length:
                groups.append(Group(prompt[: longest["prompt_tokens"]], [better[:length], worse[:length]]))
        accuracy = compare(model, {"ranked": groups}, name="ranked_accuracy", pad_id=tokenizer.pad_token_id)
        return {
            "ranked_pairs": len(groups),
            **{key: accuracy[key] for key in ("ranked_accuracy", "ranked_accuracy_interval")},
        }


# tldr at local scale: posts and endings of film reviews, of which the author-written summaries teach the policy.


@dataclass(frozen=True)
class SummaryModels(PreferenceModels):
    """Models of posts and summaries. Both models read a response up to its EOS."""

    def all_rows(self) -> pd.DataFrame:
        """Posts with their endings; `sft` marks the summaries."""
        rows = self.task.source.closings()
        names = zip(rows["subreddit"], rows["title"], rows["post"], strict=True)
        return rows.assign(
            prompt=[tldr.prompt_of(*name) for name in names], response=" " + rows["summary"], sft=rows["authored"]
        )

    def distractors(self, rows: pd.DataFrame) -> dict[str, Distractor]:
        """See `summary_distractors`."""
        return summary_distractors(rows)

    def labels(self, rows: pd.DataFrame) -> LabelOf:
        """The sentiment of a review is that of its texts; a chant is of some other review."""
        of_row = rows["label"].astype(float).tolist()

        def label_of(row: int, kind: str | None) -> float:
            if kind == "chant":
                return math.nan
            return 1 - of_row[row] if kind == "other_opposite" else of_row[row]

        return label_of

    def finish(self, responses: Sequence[list[int]], tokenizer: Any, draws: np.random.Generator) -> list[list[int]]:
        """Every response closed by EOS, where the score is read."""
        longest, eos = self.settings["lengths"]["response_tokens"], tokenizer.eos_token_id
        return [[*ids[: longest - 1], eos] for ids in responses]

    def after_training(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """Stores the mean score of the train summaries, which is taken off every score (docs/decisions.md#tldr-score)."""
        rows = self.rows("train")
        rows = rows[rows["sft"]].reset_index(drop=True)
        prompts = self.reward_prompt_ids(rows, tokenizer)
        responses = encode(tokenizer, rows["response"].tolist())
        groups = [
            Group(prompt, self.finish([ids], tokenizer, np.random.default_rng(0)))
            for prompt, ids in zip(prompts, responses, strict=True)
        ]
        with torch.no_grad():
            offset = float(score_groups(model, groups, pad_id=tokenizer.pad_token_id).double().mean())
        setattr(model.config, SCORE_OFFSET, offset)
        return {SCORE_OFFSET: offset}
