"""`make check`: compose every run of a scale, check what its config names, and estimate what it takes. No GPU, no hub.

python experiments/check.py [scale=paper] [task=imdb,tldr,hh] [shaping=sparse,uniform,abc,scar] [seed=1,2,3,4,5]
                            [gpu=a100-80gb] [any setting of conf/ for every run]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from scar.build import check_settings, source_name
from scar.cli import sweep_size
from scar.config import GenerationConfig, LoadConfig, MemoryConfig
from scar.construct import build_settings, construct, plain
from scar.models.loading import quiet_transformers
from scar.planning.advice import Advice, advise
from scar.planning.devices import Device, device
from scar.planning.estimate import Estimate, Planner
from scar.planning.names import Named, check_names
from scar.planning.runs import Coalitions, Run

DEFAULTS = {
    "scale": "paper",
    "task": "imdb,tldr,hh",
    "shaping": "sparse,uniform,abc,scar",
    "seed": "1,2,3,4,5",
    "gpu": "a100-80gb",
}
TOKEN_UNITS = ["task=tldr", "shaping=scar", "segmentation=token"]
"""The run that Figures 4 and 5 set beside Table 1's."""
Advance = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Request:
    """What is asked: lists of tasks and methods, how many seeds, the device, and overrides for every run."""

    scale: str
    tasks: list[str]
    methods: list[str]
    seeds: int
    device: Device
    overrides: list[str]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Request:
        """From `key=value` arguments; ValueError for one that is not."""
        wrong = [argument for argument in arguments if "=" not in argument]
        if wrong:
            raise ValueError(
                f"{wrong[0]}: not a setting; allowed: {', '.join(DEFAULTS)} and those of conf/, as key=value"
            )
        given = dict(argument.split("=", 1) for argument in arguments)
        known = {key: given.pop(key, default) for key, default in DEFAULTS.items()}
        return cls(
            known["scale"],
            known["task"].split(","),
            known["shaping"].split(","),
            sweep_size([f"seed={known['seed']}"]),
            device(known["gpu"]),
            [f"{key}={value}" for key, value in given.items()],
        )


@dataclass(frozen=True)
class Planned:
    """A config that was planned: its estimate, and what to set if it does not fit."""

    estimate: Estimate
    advice: Advice | None


@dataclass(frozen=True)
class Report:
    """All runs of a request, and what each task's configs name; at paper scale the token units beside tldr's SCAR."""

    request: Request
    runs: list[Planned]
    tokens: Planned | None
    named: dict[str, list[Named]]

    @property
    def all_fit(self) -> bool:
        """Whether every run fits on the device as it is configured."""
        return all(planned.advice is None for planned in self.runs)

    @property
    def hours(self) -> float:
        """Device-hours of all runs and seeds."""
        return self.request.seeds * sum(planned.estimate.hours for planned in self.runs)


def check(arguments: Sequence[str], *, conf: Path, advance: Advance) -> Report:
    """Plan everything that `arguments` ask for, with the Hydra configuration in the folder `conf`. ValueError or a Hydra
    error for what does not compose or cannot be right."""
    quiet_transformers()
    request = Request.parse(arguments)
    cases = [[f"task={task}", f"shaping={method}"] for task in request.tasks for method in request.methods]
    beside = request.scale == "paper" and "tldr" in request.tasks and "scar" in request.methods
    common = [f"scale={request.scale}", *request.overrides]
    cases = [[*common, *case] for case in cases]
    if beside:  # its units are its own
        cases.append([one for one in common if not one.startswith("segmentation=")] + TOKEN_UNITS)
    with _composing(conf):
        planner, named, planned = Planner(request.device), {}, []
        for case in cases:
            cfg = compose("config", overrides=case)
            named[cfg.task.name] = _names(cfg)
            planned.append(_plan(planner, case))
            advance(len(planned), len(cases), {})
    return Report(request, planned[: len(cases) - beside], planned[-1] if beside else None, named)


def _composing(conf: Path) -> AbstractContextManager[Any]:
    return initialize_config_dir(version_base="1.3", config_dir=str(conf))


def _names(cfg: DictConfig) -> list[Named]:
    """What a config names; the hub's data only where they are used, though they are checked in any case."""
    models, source = plain(cfg.models), plain(cfg.task.sources).get("hub")
    found = check_names(models, source)
    return found if source_name(cfg) == "hub" else check_names(models, None)


def _plan(planner: Planner, overrides: list[str]) -> Planned:
    def estimate(settings: dict[str, str]) -> Estimate:
        changed = [f"{key}={value}" for key, value in settings.items()]
        return planner.estimate(run_of(compose("config", overrides=overrides + changed)))

    found = estimate({})
    fits = found.largest.peak_bytes <= planner.device.usable_bytes
    return Planned(found, None if fits else advise(found, planner.device, estimate))


def run_of(cfg: DictConfig) -> Run:
    """What of a config decides what its run takes; every setting is checked."""
    ppo = check_settings(cfg)
    load = cfg.models.policy.get("load")
    prompt = cfg.task.prompt
    playing = "estimator" in cfg.shaping.needs
    return Run(
        task=cfg.task.name,
        method=cfg.shaping.name,
        needs=tuple(cfg.shaping.needs),
        units=cfg.segmentation.name if playing else None,
        coalitions=_coalitions(cfg) if playing else None,
        models=plain(cfg.models),
        load=LoadConfig() if load is None else build_settings(LoadConfig, load, "models.policy.load"),
        ppo=ppo,
        memory=build_settings(MemoryConfig, cfg.memory, "memory"),
        generation=build_settings(GenerationConfig, cfg.task.generation, "task.generation"),
        prompt_tokens=(prompt.get("min_tokens", prompt.max_tokens), prompt.max_tokens),
        evaluation_rows=cfg.evaluation.batch_size,
    )


def _coalitions(cfg: DictConfig) -> Coalitions:
    asked = cfg.coalitions
    if asked.backend not in ("auto", "fused"):
        raise ValueError(f"coalitions.backend={asked.backend} cannot be planned; allowed: auto or fused")
    return Coalitions(
        estimator=construct(cfg.estimator),
        fill=cfg.shaping.method.fill,
        memory_mib=asked.memory_mib,
        dtype=asked.dtype,
        max_units=cfg.segmentation.build.get("max_units"),
    )
