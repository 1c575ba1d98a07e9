"""Attention against a direct softmax in float64, through PyTorch's CPU kernel and without it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scar.coalitions import trie_attention as attention
from scar.coalitions.trie_attention import attend, causal_mask, merge

CPU = torch.device("cpu")
SCALE = 0.37
CLOSE = {"rtol": 0.0, "atol": 2e-6}


@pytest.fixture(params=["kernel", "plain"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of computing it."""
    if request.param == "plain":
        monkeypatch.setattr(attention, "_FLASH", None)
    elif attention._FLASH is None:
        pytest.skip("this PyTorch has no CPU kernel that returns the normaliser")
    return str(request.param)


def random(*shape: int, seed: int = 0, size: float = 1.5) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).normal(size=shape) * size).float()


def inputs(queries: int, keys: int, *, batch: int = 3, heads: int = 2, dim: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    q = random(batch, heads, queries, dim, seed=1)
    k, v = (random(batch, heads, keys, dim, seed=seed) for seed in (2, 3))
    return q, k, v


def direct(
    q: Tensor, k: Tensor, v: Tensor, visible: np.ndarray, bias: np.ndarray | float = 0.0
) -> tuple[Tensor, Tensor]:
    """softmax and log-sum-exp by the definition, one query at a time; `visible` b, broadcastable to [B,H,Q,K]."""
    a, b, c = (part.double().numpy() for part in (q, k, v))
    shape = (*a.shape[:3], b.shape[2])
    visible, bias = np.broadcast_to(visible, shape), np.broadcast_to(bias, shape)
    out, normaliser = np.zeros((*a.shape[:3], c.shape[3])), np.zeros(a.shape[:3])
    for place in np.ndindex(*a.shape[:3]):
        row, head, _ = place
        seen = np.flatnonzero(visible[place])
        scores = SCALE * b[row, head, seen] @ a[place] + bias[place][seen]
        weights = np.exp(scores - scores.max())
        out[place] = weights @ c[row, head, seen] / weights.sum()
        normaliser[place] = scores.max() + np.log(weights.sum())
    return torch.from_numpy(out).float(), torch.from_numpy(normaliser).float()


def check(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for got, wanted in zip(found, expected, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.contiguous(), wanted, **CLOSE)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 9), (6, 6), (4, 40), (33, 70)])
def test_every_key_is_seen_without_a_mask(queries: int, keys: int) -> None:
    q, k, v = inputs(queries, keys)
    check(attend(q, k, v, scale=SCALE), direct(q, k, v, np.array(True)))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_a_causal_query_sees_the_keys_up_to_its_own_place(count: int) -> None:
    q, k, v = inputs(count, count)
    places = np.arange(count)
    expected = direct(q, k, v, places[None, :] <= places[:, None])
    mask = causal_mask(count, count, device=CPU, dtype=torch.float32)
    check(attend(q, k, v, scale=SCALE, mask=mask), expected)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("shape", [(4, 11), (3, 1, 4, 11), (3, 1, 1, 11), (1, 2, 4, 11)])
def test_masks_of_two_and_four_dimensions_hide_keys(shape: tuple[int, ...]) -> None:
    q, k, v = inputs(4, 11)
    visible = np.random.default_rng(7).random(shape) < 0.5
    visible[..., 0] = True
    mask = torch.zeros(shape).masked_fill(torch.from_numpy(~visible), -torch.inf)
    check(attend(q, k, v, scale=SCALE, mask=mask), direct(q, k, v, visible))


@pytest.mark.usefixtures("path")
def test_a_finite_mask_is_added_to_the_scaled_scores() -> None:
    q, k, v = inputs(4, 11)
    bias = random(4, 11, seed=5)
    check(attend(q, k, v, scale=SCALE, mask=bias), direct(q, k, v, np.array(True), bias.double().numpy()))


@pytest.mark.usefixtures("path")
def test_tensors_with_heads_behind_tokens_in_memory_are_read_right() -> None:
    """The scorer hands over transposed views, never copies."""
    q, k, v = (part.transpose(1, 2).contiguous().transpose(1, 2) for part in inputs(4, 9))
    assert not q.is_contiguous()
    check(attend(q, k, v, scale=SCALE), direct(q, k, v, np.array(True)))


@pytest.mark.usefixtures("path")
def test_very_large_scores_do_not_overflow() -> None:
    q, k, v = inputs(3, 8)
    q = q * 300
    out, normaliser = attend(q, k, v, scale=SCALE)
    expected_out, expected_normaliser = direct(q, k, v, np.array(True))
    torch.testing.assert_close(out, expected_out, rtol=0, atol=1e-3)
    torch.testing.assert_close(normaliser, expected_normaliser, rtol=1e-5, atol=0)


@pytest.mark.usefixtures("path")
def test_bfloat16_gives_bfloat16_outputs_and_float32_normalisers() -> None:
    q, k, v = (part.bfloat16() for part in inputs(4, 9))
    mask = torch.zeros(4, 9, dtype=torch.bfloat16)
    mask[:, 2:4] = -torch.inf
    out, normaliser = attend(q, k, v, scale=SCALE, mask=mask)
    assert (out.dtype, normaliser.dtype) == (torch.bfloat16, torch.float32)
    expected, expected_normaliser = direct(q, k, v, (mask == 0).numpy())
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.05)
    torch.testing.assert_close(normaliser, expected_normaliser, rtol=0, atol=0.05)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("split", [1, 4, 19])
def test_attention_over_two_parts_of_the_keys_merges_to_attention_over_all(split: int) -> None:
    q, k, v = inputs(6, 20)
    first, second = (
        attend(q, k[:, :, part], v[:, :, part], scale=SCALE) for part in (slice(split), slice(split, None))
    )
    expected = direct(q, k, v, np.array(True))[0]
    torch.testing.assert_close(merge(first, second), expected, **CLOSE)
    torch.testing.assert_close(merge(second, first), expected, **CLOSE)
    assert (first[0] - expected).abs().max() > 0.05  # neither part is the whole


def test_merging_weighs_by_the_normalisers_by_hand() -> None:
    """Normalisers log 3 and log 1: three quarters of the first and one quarter of the second."""
    first = torch.tensor([[8.0, 0.0]]), torch.log(torch.tensor([3.0]))
    second = torch.tensor([[0.0, 4.0]]), torch.log(torch.tensor([1.0]))
    torch.testing.assert_close(merge(first, second), torch.tensor([[6.0, 1.0]]))


def test_causal_mask_by_hand() -> None:
    hidden = -torch.inf
    assert causal_mask(2, 4, device=CPU, dtype=torch.float32).tolist() == [[0, 0, 0, hidden], [0, 0, 0, 0]]
    assert causal_mask(3, 3, device=CPU, dtype=torch.float32).tolist() == [
        [0, hidden, hidden],
        [0, 0, hidden],
        [0, 0, 0],
    ]
    assert causal_mask(1, 5, device=CPU, dtype=torch.bfloat16).tolist() == [[0] * 5]
    assert causal_mask(1, 5, device=CPU, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(9, 11), (3, 1, 9, 11), (3, 1, 1, 11)])
def test_queries_in_blocks_see_what_they_see_at_once(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_FLASH", None)
    monkeypatch.setattr(attention, "BLOCK_SCORES", 1)  # one query at a time
    q, k, v = inputs(9, 11)
    visible = np.random.default_rng(7).random(shape) < 0.5
    visible[..., 0] = True
    mask = torch.zeros(shape).masked_fill(torch.from_numpy(~visible), -torch.inf)
    check(attend(q, k, v, scale=SCALE, mask=mask), direct(q, k, v, visible))
