"""What `make check` is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hydra.errors import HydraException

from scar.commands.check import read_request


def test_defaults() -> None:
    request = read_request([])
    assert (request.scale, request.tasks, request.seeds) == ("paper", ["imdb", "tldr", "hh"], 5)
    assert request.methods == ["sparse", "uniform", "abc", "scar"]
    assert (request.gpus, request.device.name, request.offload, request.overrides) == (1, "A100 80 GB", {}, [])


def test_overrides_of_every_run() -> None:
    request = read_request(["seed=range(1,4)", "scale=local", "task=tldr", "ppo.updates=3", "+device=cpu"])
    assert (request.seeds, request.tasks, request.overrides) == (3, ["tldr"], ["ppo.updates=3", "+device=cpu"])


def test_several_gpus() -> None:
    request = read_request(["gpus=16", "gpu=h100-80gb", "engine.offload_optimizer=true", "engine=deepspeed"])
    assert (request.gpus, request.device.name) == (16, "H100 80 GB")
    assert (request.offload, request.overrides) == ({"offload_optimizer": True}, ["engine=deepspeed"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpus=two"], "gpus=two; allowed: 1 to 8, or a multiple of 8"),
        (["gpus=0"], "gpus=0; allowed: 1 to 8"),
        (["gpus=-8"], "gpus=-8; allowed: 1 to 8"),
        (["gpus=true"], "gpus=True; allowed: 1 to 8"),
        (["gpus=1,2"], "gpus=1,2; allowed: one value"),
        (["gpu=a100-80gb,h100-80gb"], "gpu=a100-80gb,h100-80gb; allowed: one value"),
        (["gpus=12"], "gpus=12; allowed: 1 to 8"),
        (["gpus=2", "engine.offload_optimizer=1"], r"engine\.offload_optimizer=1; allowed: true or false"),
        (["engine.offload_parameters=true"], r"engine\.offload_parameters with gpus=1; allowed: with gpus=2 or more"),
        (["gpus=2", "engine.zero_stage=3"], r"engine\.zero_stage=3; with gpus=2 or more every stage is shown"),
    ],
)
def test_what_is_refused(arguments: Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_request(arguments)


def test_what_is_no_setting_is_hydras_error() -> None:
    with pytest.raises(HydraException, match="tldr"):
        read_request(["tldr"])
