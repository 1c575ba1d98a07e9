"""`make check`: compose every run of a scale, check what its config names, and estimate what it takes. No GPU, no hub.

python experiments/check.py [scale=paper] [task=imdb,tldr,hh] [shaping=sparse,uniform,abc,scar] [seed=1,2,3,4,5]
                            [gpu=a100-80gb] [gpus=1] [any setting of conf/ for every run]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from scar.commands.build import check_settings, credit_needs
from scar.commands.settings import check_variant, prepared
from scar.commands.targets import build_settings, construct, located, plain
from scar.config import GenerationConfig, LoadConfig, MemoryConfig
from scar.identity import data_source
from scar.models.loading import quiet_transformers
from scar.packages import Named, check_names, require_installed
from scar.planning.devices import device, gpu_count
from scar.planning.estimate import Estimate, Planner, advise
from scar.planning.ranks import plan_shared
from scar.planning.runs import Coalitions, Request, Run
from scar.planning.tables import Planned, Report

TOKEN_UNITS = ["task=tldr", "shaping=scar", "segmentation=token"]
"""The run that Figures 4 and 5 set beside Table 1's."""
DEFAULTS = (
    "scale=paper",
    "task=imdb,tldr,hh",
    "shaping=sparse,uniform,abc,scar",
    "seed=1,2,3,4,5",
    "gpu=a100-80gb",
    "gpus=1",
)
OFFLOAD = ("engine.offload_optimizer", "engine.offload_parameters")
"""Settings of engine=deepspeed that are planned; its stages of ZeRO are all shown."""
ZERO_STAGES = ("engine.zero_stage", "engine.frozen_zero_stage")
Advance = Callable[[int, int, dict[str, float]], None]


def read_request(arguments: Sequence[str]) -> Request:
    """From Hydra overrides. A Hydra error for one that is none, ValueError for a value that cannot be."""
    overrides = {o.key_or_group: o for o in OverridesParser.create().parse_overrides([*DEFAULTS, *arguments])}
    scale, tasks, methods, seeds, gpu, gpus = (overrides.pop(default.split("=")[0]) for default in DEFAULTS)
    for override in (scale, gpu, gpus):
        if override.is_sweep_override():
            raise ValueError(f"{override.input_line}; allowed: one value")
    offload = {key: overrides.pop(key).value() for key in OFFLOAD if key in overrides}
    for key, value in offload.items():
        if not isinstance(value, bool):
            raise ValueError(f"{key}={value}; allowed: true or false")
        if gpus.value() == 1:
            raise ValueError(f"{key} with gpus=1; allowed: with gpus=2 or more")
    for key in ZERO_STAGES:
        if key in overrides:
            value = overrides[key].get_value_string()
            raise ValueError(f"{key}={value}; with gpus=2 or more every stage is shown: leave it out")
    return Request(
        scale=scale.get_value_string(),
        tasks=_values(tasks),
        methods=_values(methods),
        seeds=len(_values(seeds)),
        device=device(gpu.get_value_string()),
        gpus=gpu_count(gpus.value()),
        offload={key.removeprefix("engine."): value for key, value in offload.items()},
        overrides=[override.input_line for override in overrides.values()],
    )


def _values(override: Override) -> list[str]:
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.get_value_string()]


def check(arguments: Sequence[str], *, conf: Path, advance: Advance) -> Report:
    """Plan everything that `arguments` ask for, with the Hydra configuration in the folder `conf`; on one GPU where several are
    asked for and DeepSpeed is not installed. ValueError or a Hydra error for what does not compose or cannot be right."""
    quiet_transformers()
    request, missing = read_request(arguments), None
    if request.gpus > 1:
        try:
            require_installed("deepspeed", extra="deepspeed", why=f"the plan for {request.gpus} GPUs")
        except FileNotFoundError as error:
            missing = str(error)
    planner = Planner(request.device)
    shared = request.gpus > 1 and missing is None
    cases = _cases(request)
    with _composing(conf):
        named, planned = {}, []
        for overrides in cases:
            cfg = prepared(compose("config", overrides=overrides))
            named[cfg.task.name] = _names(cfg)
            planned.append(_plan_shared(planner, request, cfg) if shared else _plan(planner, overrides))
            advance(len(planned), len(cases), {})
    count = len(request.tasks) * len(request.methods)
    tokens = planned[count] if len(cases) > count else None
    as_shap = {} if tokens is None or shared else planner.as_shap(tokens.estimate)
    return Report(request, planned[:count], tokens, named, missing, as_shap)


def _cases(request: Request) -> list[list[str]]:
    """Overrides of every run, then at paper scale those of SCAR with token units."""
    common = [f"scale={request.scale}", *request.overrides]
    check_variant([*common, f"shaping={request.methods[0]}"])
    cases = [[*common, f"task={task}", f"shaping={method}"] for task in request.tasks for method in request.methods]
    if request.scale == "paper" and "tldr" in request.tasks and "scar" in request.methods:
        cases.append([override for override in common if not override.startswith("segmentation=")] + TOKEN_UNITS)
    return cases


def _composing(conf: Path) -> AbstractContextManager[Any]:
    return initialize_config_dir(version_base="1.3", config_dir=str(conf))


def _names(cfg: DictConfig) -> list[Named]:
    """What a config names; the hub's data only where they are used, though they are checked in any case."""
    models, source = plain(cfg.models), plain(cfg.task.sources).get("hub")
    names = check_names(models, source)
    return names if data_source(cfg.task) == "hub" else check_names(models, None)


def _plan(planner: Planner, overrides: list[str]) -> Planned:
    def estimate(settings: dict[str, str]) -> Estimate:
        changed = [f"{key}={value}" for key, value in settings.items()]
        return planner.estimate(run_of(prepared(compose("config", overrides=overrides + changed))))

    alone = estimate({})
    fits = alone.largest.peak_bytes <= planner.device.usable_bytes
    return Planned(alone, None if fits else advise(alone, planner.device, estimate))


def _plan_shared(planner: Planner, request: Request, cfg: DictConfig) -> Planned:
    estimate, stages = plan_shared(planner, run_of(cfg), request.gpus, **request.offload)
    return Planned(estimate, zero=stages)


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
        units=located(cfg.segmentation._target_).name if playing else None,
        coalitions=_coalitions(cfg) if playing else None,
        models=plain(cfg.models),
        load=LoadConfig() if load is None else build_settings(LoadConfig, load),
        ppo=ppo,
        memory=build_settings(MemoryConfig, cfg.memory),
        generation=build_settings(GenerationConfig, cfg.task.generation),
        prompt_tokens=(prompt.get("min_tokens", prompt.max_tokens), prompt.max_tokens),
        evaluation_rows=cfg.evaluation.batch_size,
    )


def _coalitions(cfg: DictConfig) -> Coalitions:
    settings = cfg.coalitions
    if settings.backend not in ("auto", "fused"):
        raise ValueError(f"coalitions.backend={settings.backend} cannot be planned; allowed: auto or fused")
    return Coalitions(
        estimator=construct(cfg.estimator),
        fill=cfg.shaping.method.fill,
        memory_mib=settings.memory_mib,
        dtype=settings.dtype,
        max_units=cfg.segmentation.get("max_units"),
    )
