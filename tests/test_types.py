"""The data types refuse wrong shapes and dtypes where they are built, and say what they got."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from scar.types import (
    Advantages,
    CoalitionPlan,
    CoalitionRows,
    Credit,
    PromptBatch,
    RewardInputs,
    Rollout,
    Scores,
    ShapedRewards,
    Units,
)
from tests.builders import make_rollout

LONG, BOOL, FLOAT = torch.int64, torch.bool, torch.float32


def prompts(**changes: Any) -> PromptBatch:
    fields: dict[str, Any] = {
        "prompt_ids": torch.zeros(2, 3, dtype=LONG),
        "prompt_mask": torch.ones(2, 3, dtype=BOOL),
        "texts": ["a", "b"],
    }
    return PromptBatch(**(fields | changes))


def rollout(**changes: Any) -> Rollout:
    fields: dict[str, Any] = {
        "prompts": prompts(),
        "response_ids": torch.zeros(2, 4, dtype=LONG),
        "response_mask": torch.ones(2, 4, dtype=BOOL),
        "logprobs": torch.zeros(2, 4),
        "ref_logprobs": torch.zeros(2, 4),
        "values": torch.zeros(2, 4),
        "finished": torch.zeros(2, dtype=BOOL),
        "texts": ["c", "d"],
    }
    return Rollout(**(fields | changes))


def inputs(**changes: Any) -> RewardInputs:
    fields: dict[str, Any] = {
        "prompt_ids": torch.zeros(2, 3, dtype=LONG),
        "prompt_mask": torch.ones(2, 3, dtype=BOOL),
        "ids": torch.zeros(2, 5, dtype=LONG),
        "mask": torch.ones(2, 5, dtype=BOOL),
        "step": torch.zeros(2, 5, dtype=LONG),
        "end_step": torch.zeros(2, 5, dtype=LONG),
        "overlap": torch.zeros(2, 5, 4),
    }
    return RewardInputs(**(fields | changes))


def scores(**changes: Any) -> Scores:
    fields: dict[str, Any] = {
        "raw": torch.zeros(2),
        "final": torch.zeros(2),
        "replaced": torch.zeros(2, dtype=BOOL),
        "inputs": inputs(),
    }
    return Scores(**(fields | changes))


def units(**changes: Any) -> Units:
    fields: dict[str, Any] = {
        "unit_index": torch.zeros(2, 4, dtype=LONG),
        "count": torch.tensor([3, 1]),
        "end_step": torch.zeros(2, 3, dtype=LONG),
        "hierarchies": [np.zeros((2, 2), dtype=np.int64), np.zeros((0, 2), dtype=np.int64)],
    }
    return Units(**(fields | changes))


def plan(**changes: Any) -> CoalitionPlan:
    fields: dict[str, Any] = {"coalitions": np.zeros((4, 2), dtype=bool), "weights": np.zeros((2, 4))}
    return CoalitionPlan(**(fields | changes))


def rows(**changes: Any) -> CoalitionRows:
    fields: dict[str, Any] = {
        "prompt_ids": np.zeros(2, dtype=np.int64),
        "ids": np.zeros((3, 4), dtype=np.int64),
        "lengths": np.array([4, 0, 2]),
    }
    return CoalitionRows(**(fields | changes))


def credit(**changes: Any) -> Credit:
    fields: dict[str, Any] = {
        "per_token": torch.zeros(2, 4),
        "unit_values": None,
        "reward_queries": torch.zeros(2, dtype=LONG),
        "diagnostics": {},
    }
    return Credit(**(fields | changes))


BUILDERS: list[Callable[..., Any]] = [prompts, rollout, inputs, scores, units, plan, rows, credit]


@pytest.mark.parametrize("build", BUILDERS)
def test_valid_values_build_and_are_frozen(build: Callable[..., Any]) -> None:
    value = build()
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)


@pytest.mark.parametrize(
    ("build", "field", "value", "message"),
    [
        (prompts, "prompt_ids", torch.zeros(2, 3), "prompt_ids has dtype torch.float32; it must be torch.int64"),
        (rollout, "response_ids", torch.zeros(2, 4, dtype=torch.int32), "response_ids has dtype torch.int32"),
        (rollout, "logprobs", torch.zeros(2, 4, dtype=torch.float64), "logprobs has dtype torch.float64"),
        (scores, "raw", torch.zeros(2, dtype=torch.float64), "raw has dtype torch.float64"),
        (inputs, "overlap", torch.zeros(2, 5, 4, dtype=LONG), "overlap has dtype torch.int64"),
        (units, "unit_index", torch.zeros(2, 4), "unit_index has dtype torch.float32"),
        (plan, "coalitions", np.zeros((4, 2)), "coalitions must be a Boolean matrix, got float64"),
        (plan, "coalitions", np.zeros(4, dtype=bool), r"coalitions must be a Boolean matrix, got bool \(4,\)"),
        (credit, "per_token", torch.zeros(2, 4, dtype=torch.float64), "per_token has dtype torch.float64"),
    ],
)
def test_wrong_dtypes_are_type_errors(build: Callable[..., Any], field: str, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        build(**{field: value})


@pytest.mark.parametrize(
    ("build", "field", "value", "message"),
    [
        (prompts, "prompt_ids", torch.zeros(3, dtype=LONG), r"prompt_ids has shape \(3,\); it must be \*x\*"),
        (prompts, "prompt_mask", torch.ones(2, 4, dtype=BOOL), r"prompt_mask has shape \(2, 4\); it must be 2x3"),
        (prompts, "texts", ["a"], "1 prompt texts for 2 prompts"),
        (rollout, "response_ids", torch.zeros(3, 4, dtype=LONG), r"response_ids has shape \(3, 4\); it must be 2x\*"),
        (rollout, "logprobs", torch.zeros(2, 5), r"logprobs has shape \(2, 5\); it must be 2x4"),
        (scores, "final", torch.zeros(3), r"final has shape \(3,\); it must be 2"),
        (
            scores,
            "inputs",
            inputs(**{k: getattr(inputs(), k)[:1] for k in vars(inputs())}),
            "1 responses were read for 2",
        ),
        (inputs, "overlap", torch.zeros(2, 4, 4), r"overlap has shape \(2, 4, 4\); it must be 2x5x\*"),
        (units, "end_step", torch.zeros(3, 3, dtype=LONG), r"end_step has shape \(3, 3\); it must be 2x\*"),
        (units, "count", torch.tensor([4, 1]), r"hierarchy of 4 units has shape \(2, 2\); it must be 3x2"),
        (units, "hierarchies", [np.zeros((2, 2), dtype=np.int64)], "zip"),
        (plan, "weights", np.zeros((4, 2)), r"weights \(4, 2\) do not fit coalitions \(4, 2\)"),
        (plan, "weights", np.zeros((2, 4), dtype=np.float32), "weights"),
        (
            rows,
            "prompt_ids",
            np.zeros(0, dtype=np.int64),
            r"prompt_ids has shape \(0,\); it must be one row of at least",
        ),
        (rows, "ids", np.zeros((2, 4), dtype=np.int64), r"lengths \(3,\) do not fit ids \(2, 4\)"),
        (rows, "lengths", np.array([4, 5, 0]), "lengths must lie between 0 and 4"),
        (rows, "lengths", np.array([4, -1, 0]), "lengths must lie between 0 and 4"),
        (credit, "per_token", torch.zeros(4), r"per_token has shape \(4,\)"),
    ],
)
def test_wrong_shapes_are_value_errors(build: Callable[..., Any], field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**{field: value})


def test_prompts_must_be_padded_on_the_left() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    with pytest.raises(ValueError, match="padded on the left"):
        prompts(prompt_mask=mask)
    prompts(prompt_mask=mask.flip(1))


def test_a_response_needs_a_token() -> None:
    mask = torch.tensor([[False, False, False, False], [True, True, True, True]])
    with pytest.raises(ValueError, match="at least one token"):
        rollout(response_mask=mask)


@pytest.mark.parametrize(
    ("build", "changes"),
    [
        (rollout, {"texts": ["c"]}),
        (rollout, {"response_mask": torch.tensor([[True, False, True, False]] * 2)}),  # last_step would be 1, not 2
        (credit, {"unit_values": torch.zeros(3, 3, dtype=torch.float64)}),
        (Advantages, {"advantages": torch.zeros(2, 4), "returns": torch.zeros(2, 1)}),
        (ShapedRewards, {"kl": torch.zeros(2, 4), "credit": torch.zeros(2, 1), "terminal": torch.zeros(2, 4)}),
    ],
)
def test_every_type_checks_what_it_is_given(build: Callable[..., Any], changes: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        build(**changes)


def test_last_step_and_content_mask_by_hand() -> None:
    # Three tokens and EOS; two tokens cut off; EOS alone.
    batch = make_rollout([4, 2, 1], finished=[True, False, True], response_padding=1)
    assert batch.last_step.tolist() == [3, 1, 0]
    expected = [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert batch.content_mask.int().tolist() == expected
    assert batch.response_mask.int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_sequences_put_prompt_and_response_side_by_side() -> None:
    batch = make_rollout([2, 1], finished=[True, False], prompt_lengths=[1, 2])
    assert batch.sequence_ids().tolist() == [[1, 500, 10, 0], [501, 502, 11, 1]]
    assert batch.sequence_mask(batch.response_mask).int().tolist() == [[0, 1, 1, 1], [1, 1, 1, 0]]
    assert batch.sequence_mask(batch.content_mask).int().tolist() == [[0, 1, 1, 0], [1, 1, 1, 0]]
