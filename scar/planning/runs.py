"""What of a config decides what its run takes, and what is assumed where the config leaves it open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scar.config import GenerationConfig, LoadConfig, MemoryConfig, PPOConfig
from scar.credit.estimators import Estimator
from scar.planning.devices import Device, Network, device

USUAL_TOKENS = {"tldr": (360, 40), "hh": (70, 160)}
"""Of a prompt and a response, the mean; ours. Elsewhere the config's own bounds tell."""
UNIT_TOKENS = {"token": 1, "span": 3, "sentence": 20}
"""Of a unit, the mean; ours."""


@dataclass(frozen=True)
class Coalitions:
    """How SCAR's coalitions are made and scored."""

    estimator: Estimator
    fill: str
    memory_mib: int
    dtype: str
    max_units: int | None


@dataclass(frozen=True)
class Run:
    """One run but for its seed. `prompt_tokens`: fewest and most; `units`: of SCAR; `needs`: what the method asks for;
    `models`: `cfg.models` as plain Python."""

    task: str
    method: str
    needs: tuple[str, ...]
    units: str | None
    coalitions: Coalitions | None
    models: Mapping[str, Any]
    load: LoadConfig
    ppo: PPOConfig
    memory: MemoryConfig
    generation: GenerationConfig
    prompt_tokens: tuple[int, int]
    evaluation_rows: int

    @property
    def longest(self) -> tuple[int, int]:
        """Tokens of the longest prompt and response."""
        return self.prompt_tokens[1], self.generation.max_new_tokens

    @property
    def usual(self) -> tuple[int, int]:
        """Tokens of the usual prompt and response."""
        low, high = self.generation.min_new_tokens, self.generation.max_new_tokens
        prompt = round(sum(self.prompt_tokens) / 2)
        response = round((low + high) / 2) if self.generation.sample_length else high
        usual = USUAL_TOKENS.get(self.task, (prompt, response))
        return min(usual[0], self.prompt_tokens[1]), min(max(usual[1], low), high)

    @property
    def unit_count(self) -> int:
        """Units of the usual response."""
        count = max(1, round(self.usual[1] / UNIT_TOKENS.get(self.units or "token", 1)))
        limit = self.coalitions.max_units if self.coalitions else None
        return min(count, limit or count)


# What `make check` is asked for, read off its arguments.


DEFAULTS = {
    "scale": "paper",
    "task": "imdb,tldr,hh",
    "shaping": "sparse,uniform,abc,scar",
    "seed": "1,2,3,4,5",
    "gpu": "a100-80gb",
    "gpus": "1",
}
OFFLOAD = ("offload_optimizer", "offload_parameters")
"""Settings of engine=deepspeed that are planned; its stages of ZeRO are all shown."""
STAGES = ("engine.zero_stage", "engine.frozen_zero_stage")


@dataclass(frozen=True)
class Request:
    """Lists of tasks and methods, how many seeds, the device and how many of them work on one run, what of DeepSpeed's waits in
    the host's memory, and overrides for every run."""

    scale: str
    tasks: list[str]
    methods: list[str]
    seeds: int
    device: Device
    network: Network
    offload: dict[str, bool]
    overrides: list[str]

    @property
    def gpus(self) -> int:
        """GPUs of one run."""
        return self.network.ranks

    @classmethod
    def parse(cls, arguments: Sequence[str], count: Callable[[list[str]], int]) -> Request:
        """From `key=value` arguments; ValueError for one that is not."""
        wrong = [argument for argument in arguments if "=" not in argument]
        if wrong:
            raise ValueError(
                f"{wrong[0]}: not a setting; allowed: {', '.join(DEFAULTS)} and those of conf/, as key=value"
            )
        given = dict(argument.split("=", 1) for argument in arguments)
        known = {key: given.pop(key, default) for key, default in DEFAULTS.items()}
        asked = device(known["gpu"])
        network = Network.of(asked, known["gpus"])
        offload = {key: _flag(given, f"engine.{key}") for key in OFFLOAD if f"engine.{key}" in given}
        _check_engine(network.ranks, offload, given)
        return cls(
            known["scale"],
            known["task"].split(","),
            known["shaping"].split(","),
            count([f"seed={known['seed']}"]),
            asked,
            network,
            offload,
            [f"{key}={value}" for key, value in given.items()],
        )


def _flag(given: dict[str, str], key: str) -> bool:
    value = given.pop(key)
    if value not in ("true", "false"):
        raise ValueError(f"{key}={value}; allowed: true or false")
    return value == "true"


def _check_engine(gpus: int, offload: dict[str, bool], given: dict[str, str]) -> None:
    if gpus == 1 and offload:
        raise ValueError(f"engine.{next(iter(offload))} with gpus=1; allowed: with gpus=2 or more")
    stage = next((key for key in STAGES if key in given), None)
    if stage is not None:
        raise ValueError(f"{stage}={given[stage]}; with gpus=2 or more every stage is shown: leave it out")
