"""What of a config decides what its run takes, and what is assumed where the config leaves it open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scar.config import GenerationConfig, LoadConfig, MemoryConfig, PPOConfig
from scar.credit.estimators import Estimator
from scar.planning.devices import Device

USUAL_TOKENS = {"tldr": (360, 40), "hh": (70, 160)}
"""Of a prompt and a response, the mean; chosen by us. Elsewhere the config's own bounds tell."""
UNIT_TOKENS = {"token": 1, "span": 3, "punctuation": 10, "sentence": 20}
"""Of a unit, the mean; chosen by us."""


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


@dataclass(frozen=True)
class Request:
    """What `make check` is asked for: tasks and methods, how many `seeds` of each, the `device` and how many of them (`gpus`)
    work on one run, what of DeepSpeed waits in the host's memory, and overrides for every run."""

    scale: str
    tasks: list[str]
    methods: list[str]
    seeds: int
    device: Device
    gpus: int
    offload: dict[str, bool]
    overrides: list[str]
