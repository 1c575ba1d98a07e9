"""hh at local scale: requests with machine-made answers, ranked pairs and plain texts of one source distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scar.recipes.groups import encode
from scar.recipes.pair_report import compare
from scar.recipes.pairwise import Group
from scar.recipes.preference import PreferenceModels
from scar.tasks.hh import REWARD_PROMPT, prompt_of
from scar.tasks.preferences import Distractor, answer_distractors, cut_together


@dataclass(frozen=True)
class AnswerModels(PreferenceModels):
    """Models of requests and answers. The reward model reads unfinished answers of any length, without EOS."""

    def all_rows(self) -> pd.DataFrame:
        """Requests with their answers, of which the heads are used."""
        rows, _ = self.task.source.answers()
        head = self.settings["tokenizer"]["head_characters"]
        return rows.assign(
            answer=rows["answer"].str[:head],
            prompt=rows["turn"].map(prompt_of),
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
        found = compare(model, {"ranked": groups}, name="ranked_accuracy", pad_id=tokenizer.pad_token_id)
        return {
            "ranked_pairs": len(groups),
            **{key: found[key] for key in ("ranked_accuracy", "ranked_accuracy_interval")},
        }
