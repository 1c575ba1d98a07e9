"""What `make check` is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from scar.commands.cli import sweep_size
from scar.planning.runs import Request


def test_defaults() -> None:
    request = Request.parse([], sweep_size)
    assert (request.scale, request.tasks, request.seeds) == ("paper", ["imdb", "tldr", "hh"], 5)
    assert request.methods == ["sparse", "uniform", "abc", "scar"]
    assert (request.gpus, request.device.name, request.offload, request.overrides) == (1, "A100 80 GB", {}, [])


def test_overrides_of_every_run() -> None:
    request = Request.parse(["seed=range(1,4)", "scale=local", "ppo.updates=3", "device=cpu"], sweep_size)
    assert (request.seeds, request.overrides) == (3, ["ppo.updates=3", "device=cpu"])


def test_several_gpus() -> None:
    request = Request.parse(
        ["gpus=16", "gpu=h100-80gb", "engine.offload_optimizer=true", "engine=deepspeed"], sweep_size
    )
    assert (request.gpus, request.network.rate) == (16, 0.75 * 8 * 50e9)
    assert (request.offload, request.overrides) == ({"offload_optimizer": True}, ["engine=deepspeed"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpus=two"], "gpus=two; allowed: 1 to 8, or a multiple of 8"),
        (["gpus=-8"], "gpus=-8; allowed: 1 to 8"),
        (["gpus=12"], "gpus=12; allowed: 1 to 8"),
        (["gpus=2", "engine.offload_optimizer=1"], r"engine\.offload_optimizer=1; allowed: true or false"),
        (["engine.offload_parameters=true"], r"engine\.offload_parameters with gpus=1; allowed: with gpus=2 or more"),
        (["gpus=2", "engine.zero_stage=3"], r"engine\.zero_stage=3; with gpus=2 or more every stage is shown"),
    ],
)
def test_what_is_refused(arguments: Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Request.parse(arguments, sweep_size)
