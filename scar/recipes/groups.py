"""Groups of a better and some worse responses, drawn for rows of a task and encoded as the reward model reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scar.models import loading
from scar.recipes.pairwise import Group
from scar.tasks.preferences import Distractor, blanked, row_pairs

Finish = Callable[[Sequence[list[int]], Any, np.random.Generator], list[list[int]]]
"""Given the encoded responses of one group, the tokenizer and draws: what is read of them."""

LabelOf = Callable[[int, str | None], float]
"""Given a row number and the kind of a distractor (None: the row's prompt and own response): the label, NaN if not known."""


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token rows of `texts`, without special tokens."""
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []


@dataclass(frozen=True)
class GroupDrawer:
    """Draws groups for rows given by their `prompts` (tokens), better responses `texts` and `distractors`.

    `settings` are those of the reward model: kinds, pairs_a_row, blank. `fraction` is the share of every response that is
    blanked; None: as in training, on a share of the groups, up to a share of each of their responses.
    """

    prompts: Sequence[list[int]]
    texts: Sequence[str]
    distractors: Mapping[str, Distractor]
    finish: Finish
    tokenizer: Any
    draws: np.random.Generator
    settings: Mapping[str, Any]
    fraction: float | None = None
    label_of: LabelOf | None = None

    def draw(self, chosen: Sequence[int]) -> list[Group]:
        """One group a row number."""
        drawn = [[(self.texts[row], None), *self._worse(row)] for row in chosen]
        encoded = iter(encode(self.tokenizer, [text for group in drawn for text, _ in group]))
        return [
            self._group(row, [kind for _, kind in group], [next(encoded) for _ in group])
            for row, group in zip(chosen, drawn, strict=True)
        ]

    def _worse(self, row: int) -> list[tuple[str, str]]:
        kinds, per_row = self.settings["kinds"], self.settings["pairs_a_row"]
        own = self.texts[row].strip()
        found = row_pairs(row, own, self.distractors, kinds, per_row=per_row, generator=self.draws)
        return [(" " + worse, kind) for worse, kind in found]

    def _group(self, row: int, kinds: list[str | None], responses: list[list[int]]) -> Group:
        fraction = self._fraction()
        better, *worse = self.finish(responses, self.tokenizer, self.draws)
        # A cut may leave nothing of the difference.
        told_apart = [
            (better, None),
            *((ids, kind) for ids, kind in zip(worse, kinds[1:], strict=True) if ids != better),
        ]
        labels = (
            [] if self.label_of is None else [self.label_of(row, kind) for kind in (None, *(k for _, k in told_apart))]
        )
        return Group(self.prompts[row], [self._blank(ids, fraction) for ids, _ in told_apart], labels)

    def _fraction(self) -> float:
        if self.fraction is not None:
            return self.fraction
        blanks, share = self.draws.random(2)
        blank = self.settings["blank"]
        return share * blank["max_fraction"] if blanks < blank["share"] else 0.0

    def _blank(self, ids: list[int], fraction: float) -> list[int]:
        if not fraction:
            return ids
        closing = [ids[-1]] if ids[-1] == self.tokenizer.eos_token_id else []  # EOS is no player, so it is never absent
        content = ids[: len(ids) - len(closing)]
        space_id = loading.space_token(self.tokenizer)
        return blanked(content, fraction, space_id=space_id, generator=self.draws) + closing
