"""The reward model against transformers' own classifier, and its freedom from padding, holes and batch sizes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from scar.models.reward import SequenceRewardModel, last_real
from tests.models.tiny import ARCHITECTURES, EOS, PAD, right_padded, sequence_model

SPACE = 2
ROWS = [[5, 9, 14, 3, 8, EOS], [7, 4], [20, 21, 2, 8, 11, 17, 12, 6, 19]]
CLOSE = {"rtol": 0.0, "atol": 1e-5}


def reward_of(model: Any, *, rows_a_batch: int = 256) -> SequenceRewardModel:
    return SequenceRewardModel(model, space_id=SPACE, rows_a_batch=rows_a_batch)


def left(rows: list[list[int]], *, extra: int = 0, fill: int = PAD) -> tuple[Tensor, Tensor]:
    ids, mask = right_padded([row[::-1] for row in rows], extra=extra, fill=fill)
    return ids.flip(1), mask.flip(1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("labels", [1, 2])
@torch.no_grad()
def test_score_equals_transformers_own_classifier(architecture: str, labels: int) -> None:
    model = sequence_model(architecture, labels=labels)
    ids, mask = right_padded(ROWS)
    logits = model(input_ids=ids, attention_mask=mask.long()).logits
    expected = logits[:, 0] if labels == 1 else logits[:, 1] - logits[:, 0]
    assert expected.std() > 0.1  # the rows differ
    torch.testing.assert_close(reward_of(model).score(ids, mask), expected, **CLOSE)


def test_more_than_two_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="has 3 labels; allowed: 1 or 2"):
        reward_of(sequence_model(labels=3))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_on_either_side_changes_nothing(architecture: str) -> None:
    reward = reward_of(sequence_model(architecture))
    expected = reward.score(*right_padded(ROWS))
    for ids, mask in (right_padded(ROWS, extra=5), left(ROWS), left(ROWS, extra=7), left(ROWS, fill=13)):
        torch.testing.assert_close(reward.score(ids, mask), expected, **CLOSE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("holes", [[1, 2], [0], [5], [0, 3, 5]])
def test_holes_in_the_mask_are_as_good_as_deleting_the_tokens(architecture: str, holes: list[int]) -> None:
    reward = reward_of(sequence_model(architecture))
    row = ROWS[0]
    mask = torch.tensor([[place not in holes for place in range(len(row))]])
    rest = torch.tensor([[token for place, token in enumerate(row) if place not in holes]])
    deleted = reward.score(rest, torch.ones_like(rest, dtype=torch.bool))
    torch.testing.assert_close(reward.score(torch.tensor([row]), mask), deleted, **CLOSE)
    whole = reward.score(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool))
    assert (whole - deleted).abs() > 1e-3  # the tokens did matter


def test_a_real_token_that_equals_the_padding_token_is_read() -> None:
    reward = reward_of(sequence_model())
    row = [7, 4, PAD]
    alone = reward.score(torch.tensor([row]), torch.ones(1, 3, dtype=torch.bool))
    padded = reward.score(*right_padded([row], extra=3))
    torch.testing.assert_close(padded, alone, **CLOSE)
    assert (alone - reward.score(*right_padded([[7, 4]]))).abs() > 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_prefix_scores_equal_scores_of_the_prefixes(architecture: str) -> None:
    reward = reward_of(sequence_model(architecture))
    ids, mask = left(ROWS, extra=2)
    prefixes = reward.score_prefixes(ids, mask)
    assert prefixes.shape == ids.shape
    torch.testing.assert_close(prefixes[:, -1], reward.score(ids, mask), **CLOSE)
    for number, row in enumerate(ROWS):
        start = ids.shape[1] - len(row)
        for length in range(1, len(row) + 1):
            alone = reward.score(torch.tensor([row[:length]]), torch.ones(1, length, dtype=torch.bool))
            torch.testing.assert_close(prefixes[number, start + length - 1], alone[0], **CLOSE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_attention_equals_a_direct_eager_computation_and_sums_to_one(architecture: str) -> None:
    model = sequence_model(architecture)
    reward = reward_of(model)
    eager = type(model)(copy.deepcopy(model.config)).eval()
    eager.load_state_dict(model.state_dict())
    eager.set_attn_implementation("eager")
    for ids, mask in (right_padded(ROWS, extra=2), left(ROWS, extra=2)):
        attention = reward.last_layer_attention(ids, mask)
        assert attention.shape == ids.shape
        assert (attention[~mask] == 0).all()
        torch.testing.assert_close(attention.sum(1), torch.ones(len(ROWS)), **CLOSE)
        for number, row in enumerate(ROWS):
            heads = eager.base_model(torch.tensor([row]), output_attentions=True).attentions[-1][0]
            torch.testing.assert_close(attention[number][mask[number]], heads.mean(0)[-1], **CLOSE)


def test_attention_kernel_is_restored_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sequence_model()
    usual = model.config._attn_implementation
    assert usual != "eager"
    reward = reward_of(model)
    ids, mask = right_padded(ROWS)
    before = reward.score(ids, mask)
    reward.last_layer_attention(ids, mask)
    assert model.config._attn_implementation == usual
    assert torch.equal(reward.score(ids, mask), before)

    def fails(*arguments: Any, **options: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(reward, "_forward", fails)
    with pytest.raises(MemoryError):
        reward.last_layer_attention(ids, mask)
    assert model.config._attn_implementation == usual


def test_a_model_without_attention_weights_is_an_error_and_not_a_wrong_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sequence_model()
    monkeypatch.setattr(model, "set_attn_implementation", lambda kind: None)  # stays with the fused kernel
    with pytest.raises(RuntimeError, match="no attention weights"):
        reward_of(model).last_layer_attention(*right_padded(ROWS))


@pytest.mark.parametrize("rows_a_batch", [1, 2, 3])
def test_rows_a_batch_does_not_matter(rows_a_batch: int) -> None:
    model = sequence_model()
    ids, mask = left(ROWS)
    whole, parts = reward_of(model), reward_of(model, rows_a_batch=rows_a_batch)
    for name in ("score", "score_prefixes", "last_layer_attention"):
        torch.testing.assert_close(getattr(parts, name)(ids, mask), getattr(whole, name)(ids, mask), **CLOSE)


def test_scoring_makes_no_gradients_and_freezes_the_model() -> None:
    reward = reward_of(sequence_model())
    assert not reward.score(*right_padded(ROWS)).requires_grad
    assert not any(p.requires_grad for p in reward.parameters())
    assert not any(module.training for module in reward.modules())


def test_a_row_without_any_token_is_refused() -> None:
    ids, mask = right_padded(ROWS)
    mask[1] = False
    with pytest.raises(ValueError, match="without any real token"):
        reward_of(sequence_model()).score(ids, mask)


def test_last_real_finds_the_last_true_column() -> None:
    mask = torch.tensor([[True, True, False], [False, True, True], [True, False, False], [True, False, True]])
    assert last_real(mask).tolist() == [1, 2, 0, 2]


def test_half_precision_weights_give_float32_scores() -> None:
    model = sequence_model()
    expected = reward_of(copy.deepcopy(model)).score(*right_padded(ROWS))
    scores = reward_of(model.to(torch.bfloat16)).score(*right_padded(ROWS))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=0.1, atol=0.5)
