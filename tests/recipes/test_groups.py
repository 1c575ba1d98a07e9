"""Groups for reward-model training: the better text first, blanks on content only, settings obeyed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from scar.models import loading
from scar.recipes.groups import GroupDrawer

TEXTS = ["the film was good and the actors were good", "the film was bad and the music was loud"]
TOKENIZER = loading.train_tokenizer(TEXTS, vocab_size=280)
SETTINGS: dict[str, Any] = {"kinds": {"a": 1, "b": 1}, "pairs_a_row": 2, "blank": {"share": 0.0, "max_fraction": 0.5}}


def closed(responses: Sequence[list[int]], tokenizer: Any, draws: np.random.Generator) -> list[list[int]]:
    return [[*ids, tokenizer.eos_token_id] for ids in responses]


def drawer(**changes: Any) -> GroupDrawer:
    fields: dict[str, Any] = {
        "prompts": [[5, 6], [7]],
        "texts": [" " + text for text in TEXTS],
        "distractors": {"a": lambda row, draws: f"first {row}", "b": lambda row, draws: f"second {row}"},
        "finish": closed,
        "tokenizer": TOKENIZER,
        "draws": np.random.default_rng(0),
        "settings": SETTINGS,
    }
    return GroupDrawer(**(fields | changes))


def test_own_text_comes_first_and_each_kind_once_behind_the_rows_prompt() -> None:
    groups = drawer().draw([1, 0])
    assert [group.prompt for group in groups] == [[7], [5, 6]]
    for row, group in zip((1, 0), groups, strict=True):
        texts = [TOKENIZER.decode(ids[:-1]) for ids in group.responses]
        assert texts[0] == " " + TEXTS[row]
        assert sorted(texts[1:]) == [f" first {row}", f" second {row}"]
        assert all(ids[-1] == TOKENIZER.eos_token_id for ids in group.responses)


def test_half_of_the_content_is_blanked_and_eos_never() -> None:
    space = loading.space_token(TOKENIZER)
    (whole,), (blanked,) = drawer().draw([0]), drawer(fraction=0.5).draw([0])
    own, gaps = whole.responses[0], blanked.responses[0]
    assert len(own) == len(gaps)
    assert gaps[-1] == TOKENIZER.eos_token_id
    assert sum(token == space for token in gaps) - sum(token == space for token in own) == (len(own) - 1) // 2


@pytest.mark.parametrize(("share", "blanks"), [(0.0, False), (1.0, True)])
def test_training_blanks_the_share_of_groups_that_it_is_told(share: float, blanks: bool) -> None:
    settings = SETTINGS | {"blank": {"share": share, "max_fraction": 0.9}}
    groups = drawer(settings=settings).draw([0] * 20)
    space = loading.space_token(TOKENIZER)
    assert any(token == space for group in groups for token in group.responses[0]) is blanks
