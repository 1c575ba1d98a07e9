"""Named random streams: different for every name, the same in every process."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from scar.seeding import generator, numpy_generator, stream_seed

NAMES = list(itertools.product([0, 1, 2], ["prompts", "sampling", "credit", "minibatches"], [0, 1, 2]))


def test_stream_seeds_by_hand() -> None:
    # The first 16 digits of `printf 7/prompts/3 | sha256sum` and of 0/sampling/0, halved.
    assert stream_seed(7, "prompts", 3) == 0x395936C9E8728F47 // 2 == 2066197186952644515
    assert stream_seed(0, "sampling") == 0x046B9C3E76C43F8F // 2 == 159259995377115079


def test_seed_purpose_and_update_each_make_another_stream() -> None:
    assert len({stream_seed(*name) for name in NAMES}) == len(NAMES)
    torch_draws = {tuple(torch.rand(4, generator=generator(*name)).tolist()) for name in NAMES}
    numpy_draws = {tuple(numpy_generator(*name).random(4).tolist()) for name in NAMES}
    assert len(torch_draws) == len(numpy_draws) == len(NAMES)


def test_streams_do_not_touch_the_global_ones() -> None:
    torch_state, numpy_state = torch.get_rng_state(), repr(np.random.get_state())
    torch.rand(3, generator=generator(0, "x"))
    numpy_generator(0, "x").random(3)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert repr(np.random.get_state()) == numpy_state
