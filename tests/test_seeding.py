"""Named random streams: different for every name, the same in every process."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

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


def test_seed_zero_is_a_seed_and_neighbours_do_not_run_together() -> None:
    # seed + update or a plain concatenation of numbers would make these equal.
    assert stream_seed(0, "prompts", 1) != stream_seed(1, "prompts", 0)
    assert stream_seed(1, "prompts", 11) != stream_seed(11, "prompts", 1)
    assert stream_seed(1, "a", 23) != stream_seed(1, "a2", 3)


def test_equal_names_give_equal_streams() -> None:
    assert torch.equal(torch.rand(5, generator=generator(3, "x", 2)), torch.rand(5, generator=generator(3, "x", 2)))
    np.testing.assert_array_equal(numpy_generator(3, "x", 2).random(5), numpy_generator(3, "x", 2).random(5))


def test_update_defaults_to_zero() -> None:
    assert stream_seed(3, "x") == stream_seed(3, "x", 0)


def test_seeds_fit_both_libraries() -> None:
    assert all(0 <= stream_seed(*name) < 2**63 for name in NAMES)


def test_streams_do_not_touch_the_global_ones() -> None:
    torch_state, numpy_state = torch.get_rng_state(), repr(np.random.get_state())
    torch.rand(3, generator=generator(0, "x"))
    numpy_generator(0, "x").random(3)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert repr(np.random.get_state()) == numpy_state


def test_streams_are_the_same_in_another_process() -> None:
    code = (
        "import torch; from scar.seeding import generator, numpy_generator; "
        "print(torch.rand(3, generator=generator(5, 'credit', 9)).tolist(), numpy_generator(5, 'credit', 9).random(3).tolist())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "123"},  # str hashes differ between processes; nothing may rest on them
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    here = torch.rand(3, generator=generator(5, "credit", 9)).tolist()
    assert found == f"{here} {numpy_generator(5, 'credit', 9).random(3).tolist()}"
