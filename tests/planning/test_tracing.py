"""FLOPs, bytes and live memory of small computations, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import embedding, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from scar.planning.tracing import Cost, Tracer, fake_tensors, trace

KB = 4 * 1000  # 1000 float32 numbers


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with fake_tensors():
        yield


def cost_of(work: Callable[[], Any]) -> Cost:
    return trace(work)[0]


def test_a_product_by_hand() -> None:
    x, w = torch.empty(32, 100), torch.empty(100, 10)
    found = cost_of(lambda: x @ w)
    assert found.wide_flops == found.flops == 2 * 32 * 100 * 10
    assert found.product_bytes == 4 * (32 * 100 + 100 * 10 + 32 * 10)
    assert found.operations == 1
    assert found.other_bytes == 0


def test_forward_and_backward_of_two_linear_layers_by_hand() -> None:
    first, second, x = torch.nn.Linear(100, 50, bias=False), torch.nn.Linear(50, 10, bias=False), torch.empty(32, 100)
    found = cost_of(lambda: second(first(x)).sum().backward())
    small, large = 2 * 32 * 50 * 10, 2 * 32 * 100 * 50
    assert found.flops == (large + small) + (2 * small + large)  # the input needs no gradient


def test_flops_of_attention_forward_and_backward() -> None:
    q, k = torch.empty(2, 4, 16, 8, requires_grad=True), torch.empty(2, 4, 20, 8, requires_grad=True)
    forward = cost_of(lambda: scaled_dot_product_attention(q.detach(), k, k))
    assert forward.flops == 2 * 2 * (2 * 4 * 16 * 20 * 8)  # scores, and their product with the values
    both = cost_of(lambda: scaled_dot_product_attention(q, k, k).sum().backward())
    assert both.flops == pytest.approx(forward.flops * 3.5)  # the backward pass computes the scores again


def test_types_of_flops_are_told_apart() -> None:
    x, w = torch.empty(8, 8), torch.empty(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = cost_of(lambda: x @ w)
    assert (narrow.narrow_flops, narrow.wide_flops) == (2 * 8**3, 0)
    assert narrow.product_bytes == 2 * 3 * 64
    assert narrow.other_bytes == 2 * (4 + 2) * 64  # both operands are cast


def test_the_peak_is_what_is_alive_at_once() -> None:
    def work() -> torch.Tensor:
        a = torch.empty(1000)
        b = a + 1
        c = b + 1  # three at once
        del a, b
        return c + 1  # two again

    found, result = trace(work)
    assert found.peak_bytes == 3 * KB
    assert found.kept_bytes == KB == result.untyped_storage().nbytes()


def test_views_hold_their_base_and_cost_nothing() -> None:
    def work() -> torch.Tensor:
        return torch.empty(10, 100).t()[5:].reshape(10, 95)[0]

    found, _ = trace(work)
    assert found.kept_bytes == 4 * 950  # reshape of a transposed slice copies
    assert found.operations == 2  # the empty tensor and the copy
    found, _ = trace(lambda: torch.empty(1000)[:1])
    assert found.kept_bytes == KB


def test_what_was_there_before_counts_when_it_is_freed() -> None:
    box = [torch.empty(1000)]

    def grow() -> None:
        box[0] = torch.cat([box[0], torch.empty(500)])

    found = cost_of(grow)
    assert found.peak_bytes == 500 * 4 + 1500 * 4
    assert found.kept_bytes == 500 * 4


def test_changes_in_place_make_nothing_and_move_bytes() -> None:
    x, y = torch.empty(1000), torch.empty(1000)
    found = cost_of(lambda: x.add_(y))
    assert (found.peak_bytes, found.kept_bytes) == (0, 0)
    assert found.other_bytes == 3 * KB


def test_lookups_read_what_they_return_and_expanded_tensors_their_storage() -> None:
    table, ids = torch.empty(100000, 10), torch.zeros(5, dtype=torch.int64)
    assert cost_of(lambda: embedding(ids, table)).other_bytes == 2 * 5 * 10 * 4
    one, x = torch.empty(1), torch.empty(1000)
    assert cost_of(lambda: x + one.expand(1000)).other_bytes == 2 * KB + 4


def test_questions_about_values_are_answered_with_yes() -> None:
    tracer = Tracer()
    with tracer:
        assert bool((torch.zeros(3) > 1).all()) is True
        assert torch.zeros(3)[0].item() == 1


def test_recomputing_keeps_less_and_computes_more() -> None:
    layers = [torch.nn.Linear(100, 100, bias=False) for _ in range(8)]
    x = torch.empty(1000, 100, requires_grad=True)

    def run(step: Callable[[Any, Any], Any]) -> Cost:
        def work() -> None:
            hidden = x
            for layer in layers:
                hidden = step(layer, hidden)
            hidden.sum().backward()

        for layer in layers:
            layer.weight.grad = torch.empty(100, 100)
        return cost_of(work)

    def block(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.sigmoid(layer(hidden)))

    usual, again = run(block), run(lambda layer, h: checkpoint(block, layer, h, use_reentrant=False))
    assert again.flops == pytest.approx(usual.flops * 4 / 3)
    assert again.peak_bytes < 0.7 * usual.peak_bytes
