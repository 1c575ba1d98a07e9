"""`make check`: compose every run of a scale, check what its config names, and estimate what it takes. No GPU, no hub.

python experiments/check.py [scale=paper] [task=imdb,tldr,hh] [shaping=sparse,uniform,abc,scar] [seed=1,2,3,4,5]
                            [gpu=a100-80gb] [gpus=1] [any setting of conf/ for every run]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from scar.commands.build import build_settings, check_settings, construct, credit_needs, plain
from scar.commands.cli import sweep_size
from scar.config import GenerationConfig, LoadConfig, MemoryConfig
from scar.identity import data_source
from scar.models.loading import quiet_transformers
from scar.packages import Named, check_names
from scar.planning.estimate import Estimate, Planner, advise
from scar.planning.ranks import RankPlanner
from scar.planning.runs import Coalitions, Request, Run
from scar.planning.tables import Planned, Report, SharedReport

TOKEN_UNITS = ["task=tldr", "shaping=scar", "segmentation=token"]
"""The run that Figures 4 and 5 set beside Table 1's."""
Advance = Callable[[int, int, dict[str, float]], None]
P = TypeVar("P")


def check(arguments: Sequence[str], *, conf: Path, advance: Advance) -> Report | SharedReport:
    """Plan everything that `arguments` ask for, with the Hydra configuration in the folder `conf`. ValueError or a Hydra
    error for what does not compose or cannot be right."""
    quiet_transformers()
    request = Request.parse(arguments, sweep_size)
    planner = Planner(request.device)
    if request.gpus == 1:
        return Report(request, *_plan_all(request, conf, advance, lambda case: _plan(planner, case)))
    ranks = RankPlanner(planner, request.network, **request.offload)
    plan = lambda case: ranks.plan(run_of(compose("config", overrides=case)))  # noqa: E731
    return SharedReport(request, *_plan_all(request, conf, advance, plan))


def _plan_all(
    request: Request, conf: Path, advance: Advance, plan: Callable[[list[str]], P]
) -> tuple[list[P], P | None, dict[str, list[Named]]]:
    cases = [[f"task={task}", f"shaping={method}"] for task in request.tasks for method in request.methods]
    beside = request.scale == "paper" and "tldr" in request.tasks and "scar" in request.methods
    common = [f"scale={request.scale}", *request.overrides]
    cases = [[*common, *case] for case in cases]
    if beside:  # its units are its own
        cases.append([one for one in common if not one.startswith("segmentation=")] + TOKEN_UNITS)
    with _composing(conf):
        named, planned = {}, []
        for case in cases:
            cfg = compose("config", overrides=case)
            named[cfg.task.name] = _names(cfg)
            planned.append(plan(case))
            advance(len(planned), len(cases), {})
    return planned[: len(cases) - beside], planned[-1] if beside else None, named


def _composing(conf: Path) -> AbstractContextManager[Any]:
    return initialize_config_dir(version_base="1.3", config_dir=str(conf))


def _names(cfg: DictConfig) -> list[Named]:
    """What a config names; the hub's data only where they are used, though they are checked in any case."""
    models, source = plain(cfg.models), plain(cfg.task.sources).get("hub")
    found = check_names(models, source)
    return found if data_source(cfg.task) == "hub" else check_names(models, None)


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
    needs = credit_needs(cfg)
    playing = "estimator" in needs
    return Run(
        task=cfg.task.name,
        method=cfg.shaping.name,
        needs=needs,
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
