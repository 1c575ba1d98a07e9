"""Groups for reward-model training: the better text first, blanks on content only, settings obeyed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from scar.models import loading
from scar.supervised.pairwise import GroupDrawer

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


def test_every_response_has_the_label_of_its_kind_behind_that_of_the_prompt() -> None:
    labels = {None: 0.25, "a": 0.5, "b": 0.75}
    (group,) = drawer(label_of=lambda row, kind: row + labels[kind]).draw([1])
    texts = [TOKENIZER.decode(ids[:-1]).split()[0] for ids in group.responses]
    expected = {"first": 1.5, "second": 1.75}
    assert group.labels == [1.25, 1.25, *(expected[text] for text in texts[1:])]
    assert list(drawer().draw([1])[0].labels) == []


def test_a_response_that_is_told_apart_by_nothing_takes_its_label_with_it() -> None:
    same = {"a": lambda row, draws: TEXTS[row] + " x", "b": lambda row, draws: "second"}
    cut = drawer(
        distractors=same,
        finish=lambda responses, tokenizer, draws: [ids[:3] for ids in responses],
        label_of=lambda row, kind: {None: 1.0, "a": 2.0, "b": 3.0}[kind],
    )
    (group,) = cut.draw([0])
    assert len(group.responses) == 2
    assert group.labels == [1.0, 1.0, 3.0]


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
