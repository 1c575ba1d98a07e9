"""tldr at local scale: posts and endings of film reviews, of which the author-written summaries teach the policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from scar.models.reward import SCORE_OFFSET
from scar.recipes.groups import LabelOf
from scar.recipes.pairwise import Group, score_groups
from scar.recipes.preference import PreferenceModels
from scar.tasks.preferences import Distractor, summary_distractors
from scar.tasks.tldr import prompt_of


@dataclass(frozen=True)
class SummaryModels(PreferenceModels):
    """Models of posts and summaries. Both models read a response up to its EOS."""

    def all_rows(self) -> pd.DataFrame:
        """Posts with their endings; `sft` marks the summaries."""
        rows = self.task.source.closings()
        names = zip(rows["subreddit"], rows["title"], rows["post"], strict=True)
        return rows.assign(
            prompt=[prompt_of(*name) for name in names], response=" " + rows["summary"], sft=rows["authored"]
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
        """Stores the mean score of the train summaries, which is taken off every score (paper note 29)."""
        rows = self.rows("train")
        rows = rows[rows["sft"]].reset_index(drop=True)
        prompts = self.reward_prompt_ids(rows, tokenizer)
        responses = tokenizer(rows["response"].tolist(), add_special_tokens=False)["input_ids"]
        groups = [
            Group(prompt, self.finish([ids], tokenizer, np.random.default_rng(0)))
            for prompt, ids in zip(prompts, responses, strict=True)
        ]
        with torch.no_grad():
            offset = float(score_groups(model, groups, pad_id=tokenizer.pad_token_id).double().mean())
        setattr(model.config, SCORE_OFFSET, offset)
        return {SCORE_OFFSET: offset}
