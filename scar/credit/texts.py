"""The texts of units, what a text looks like with some of them blanked, and the reward model's tokens of that: what the shap
package's text masker makes of a response (docs/decisions.md#collapsed-texts)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from scar.segmentation.offsets import token_offsets
from scar.types import Rollout, Units

ANCHOR = "."
"""Stands for the end of a prompt while a text is tokenised, so that the text is cut as it is behind one."""


class UnitTexts:
    """Texts of the policy's units, and their tokens for a reward model that reads `max_tokens` in all."""

    def __init__(self, policy_tokenizer: Any, reward_tokenizer: Any, *, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._policy_tokenizer = policy_tokenizer
        self._tokenizer = reward_tokenizer

    def of(self, rollout: Rollout, units: Units) -> list[list[str]]:
        """The text of each unit of each response; together they are the decoded response without its EOS. A unit whose tokens
        complete no character has the empty text."""
        return [
            self._of_response([token for token, real in zip(ids, content, strict=True) if real], index, count)
            for ids, content, index, count in zip(
                rollout.response_ids.tolist(),
                rollout.content_mask.tolist(),
                units.unit_index.tolist(),
                units.count.tolist(),
                strict=True,
            )
        ]

    def _of_response(self, ids: list[int], unit: list[int], count: int) -> list[str]:
        text, offsets = token_offsets(ids, self._policy_tokenizer)
        texts = [""] * count
        for (start, end), number in zip(offsets, unit, strict=False):  # content tokens come first
            texts[number] += text[start:end]
        return texts

    def behind_prompt(self, texts: Sequence[str]) -> list[list[int]]:
        """The reward model's tokens of each text as it stands behind a prompt, with one blank between; no EOS."""
        return [ids[len(self._anchor) :] for ids in self._ids([f"{ANCHOR} {text}" for text in texts])]

    @cached_property
    def _anchor(self) -> list[int]:
        anchor, text = self._ids([ANCHOR, f"{ANCHOR} a"])
        if text[: len(anchor)] != anchor:
            raise ValueError(
                "the reward model's tokenizer joins the end of a prompt with the text behind it, so masked texts cannot be "
                "tokenised apart from their prompt; use shaping.method.fill=space or delete"
            )
        return anchor

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids


def masked_text(units: Sequence[str], present: np.ndarray, blank: str) -> str:
    """The text of the units that are `present` b[n]: each run of absent ones is one `blank` with a space before it, then white
    space is single and none is at the ends (the text that shap.maskers.Text makes with collapse_mask_token)."""
    parts, blanked = [], False
    for text, there in zip(units, present.tolist(), strict=True):
        if there:
            parts.append(text)
        elif not blanked:
            parts.append(f" {blank}")
        blanked = not there
    return " ".join("".join(parts).split())
