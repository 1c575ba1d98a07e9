"""The time model, by hand."""

from __future__ import annotations

import pytest

from scar.planning.devices import DEVICES, Device, device, gpu_count
from scar.planning.tracing import Cost

SLOW = Device(
    "slow",
    memory_bytes=1000,
    narrow_rate=100,
    wide_rate=10,
    memory_rate=50,
    host_rate=5,
    product_share=0.5,
    memory_share=0.2,
    start_seconds=2,
    reserve=0.25,
)


def test_products_bound_by_flops() -> None:
    assert SLOW.seconds(Cost(narrow_flops=1000, wide_flops=200, product_bytes=10)) == (10 + 20) / 0.5


def test_products_bound_by_bytes() -> None:
    assert SLOW.seconds(Cost(narrow_flops=1000, product_bytes=500)) == 500 / 10


def test_other_traffic_comes_on_top() -> None:
    assert SLOW.seconds(Cost(narrow_flops=1000, product_bytes=10, other_bytes=70)) == 10 / 0.5 + 7


def test_the_host_is_waited_for_where_it_is_slower() -> None:
    assert SLOW.seconds(Cost(narrow_flops=1000, operations=9)) == 20
    assert SLOW.seconds(Cost(narrow_flops=1000, operations=11)) == 22


def test_memory_and_transfers() -> None:
    assert SLOW.usable_bytes == 750
    assert SLOW.transfer_seconds(20) == 4


def test_the_devices() -> None:
    assert device("a100-80gb").narrow_rate == 312e12
    assert 78e9 < device("h100-80gb").usable_bytes < DEVICES["h100-80gb"].memory_bytes < 86e9
    with pytest.raises(ValueError, match="gpu=a100; allowed: a100-80gb, h100-80gb"):
        device("a100")


def test_gpus_are_a_part_of_a_node_or_whole_nodes() -> None:
    assert [gpu_count(count) for count in (1, 5, 8, 16)] == [1, 5, 8, 16]
    for count in (0, 9, 12, 20):
        with pytest.raises(ValueError, match=f"gpus={count}; allowed: 1 to 8, or a multiple of 8"):
            gpu_count(count)
