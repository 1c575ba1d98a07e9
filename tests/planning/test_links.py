"""What exchanges take, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scar.planning.devices import DEVICES, Network

A100 = DEVICES["a100-80gb"]


def test_a_rank_sends_all_parts_but_one() -> None:
    network = Network(ranks=8, rate=100.0)
    assert network.gather_seconds(800) == 7
    assert network.reduce_seconds(800) == 14
    assert Network(2, 100.0).gather_seconds(800) == 4


def test_one_rank_exchanges_nothing() -> None:
    assert Network(1, 100.0).gather_seconds(800) == Network(1, 100.0).reduce_seconds(800) == 0


def test_the_slower_of_two_kinds_of_links_decides_between_nodes() -> None:
    assert Network.of(A100, 8).rate == 0.75 * 300e9
    assert Network.of(A100, 16).rate == 0.75 * 8 * 25e9
    assert Network.of(replace(A100, network_rate=50e9), 16).rate == 0.75 * 300e9  # 8 cards carry 400 GB/s
    assert Network.of(replace(A100, link_share=1.0), 2) == Network(2, 300e9)


@pytest.mark.parametrize("ranks", [0, 9, 12, 20])
def test_parts_of_several_nodes_are_refused(ranks: int) -> None:
    with pytest.raises(ValueError, match=f"gpus={ranks}; allowed: 1 to 8, or a multiple of 8"):
        Network.of(A100, ranks)
