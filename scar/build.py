"""The composition root: from a Hydra config to wired objects. Below this module nothing knows Hydra or its config type."""

from __future__ import annotations

import inspect
import logging
import os
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from scar.config import (
    EvaluationConfig,
    GenerationConfig,
    MemoryConfig,
    PPOConfig,
    ScoringConfig,
    check_alpha,
    require,
)
from scar.construct import build_settings, construct, plain
from scar.identity import data_source
from scar.interfaces import Engine, Tracker
from scar.models import loading
from scar.models.cache import ModelCache
from scar.parts import Parts
from scar.ppo.trainer import Trainer
from scar.ppo.updater import KLController, PPOUpdater
from scar.supervised.store import LocalModels
from scar.tracking.metering import Meter

NO_SETTINGS = ("source", "build", "stated", "pretrained", "gold")
"""Keys of `models` that are not settings of a recipe."""


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device; ValueError when it is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={name}; allowed: auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch sees no CUDA device here; use device=cpu or device=auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def setup_process(cfg: DictConfig) -> torch.device:
    """Threads, logging and noise of this process; returns the device."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.raiseExceptions = False  # on a full disk W&B's log lines would bury the one error that matters
    for key in ("seed", "model_seed", "threads"):
        least = 1 if key == "threads" else 0
        require(type(cfg[key]) is int and cfg[key] >= least, f"{key}={cfg[key]}", f"a whole number, {least} or more")
    require(type(cfg.force) is bool, f"force={cfg.force}", "true or false")
    torch.set_num_threads(cfg.threads)
    loading.quiet_transformers()
    device = resolve_device(cfg.device)
    if device.type == "cpu":  # transformers imports DeepSpeed where it is installed, which would warn of that
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    return device


def build_task(cfg: DictConfig) -> Any:
    """The task with its data source; a source that keeps files gets the cache."""
    node = cfg.task.sources[data_source(cfg.task)]
    keeps_files = "cache" in inspect.signature(get_object(node._target_)).parameters
    source = construct(node, **({"cache": Path(cfg.paths.cache)} if keeps_files else {}))
    return construct(cfg.task.build, source=source)


def local_models(cfg: DictConfig, task: Any, device: torch.device, *, gold: bool = False) -> LocalModels:
    """The models that this config trains; `gold`: the gold reward model, whose settings are the others' but for what
    `models.gold` sets."""
    allowed = ("scratch",) if gold else ("scratch", "tuned")
    if cfg.models.source not in allowed:
        raise ValueError(
            f"models.source={cfg.models.source}: there is nothing to train; allowed: {' or '.join(allowed)}"
        )
    cache = ModelCache(Path(cfg.paths.cache))
    models = cfg.models.copy()
    if gold:
        OmegaConf.set_struct(models, True)  # a setting that the others do not have is an error
        models = OmegaConf.merge(models, cfg.models.gold)
    return construct(
        _recipe(cfg, task),
        settings={key: value for key, value in plain(models).items() if key not in NO_SETTINGS},
        pretrained=construct(cfg.models.pretrained) if "pretrained" in cfg.models else None,
        task=task,
        cache=cache,
        model_seed=cfg.model_seed,
        device=device,
        gold=gold,
    )


def _recipe(cfg: DictConfig, task: Any) -> DictConfig:
    """How the models are trained: on preferences that the data state, or on those that the recipe constructs."""
    stated = hasattr(task.source, "comparisons")
    name = "stated" if stated else "build"
    if name not in cfg.models:
        data = f"task.data_dir={cfg.task.data_dir}" if stated else f"task.source={cfg.task.source}"
        raise ValueError(f"{data} with scale={cfg.scale}: these models cannot be trained on it; choose another scale")
    return cfg.models[name]


def check_settings(cfg: DictConfig) -> PPOConfig:
    """Check every setting that can be checked before data and models are loaded; returns the PPO settings."""
    check_alpha(cfg.shaping.alpha)
    build_settings(GenerationConfig, cfg.task.generation, "task.generation")
    build_settings(ScoringConfig, cfg.task.scoring, "task.scoring")
    build_settings(EvaluationConfig, cfg.evaluation, "evaluation")
    memory, narrow = build_settings(MemoryConfig, cfg.memory, "memory"), cfg.coalitions.dtype != "float32"
    require(
        not (memory.offload and narrow),
        f"memory.offload=true with coalitions.dtype={cfg.coalitions.dtype}, which is a second copy of the reward model",
        "coalitions.dtype=float32 (and models.reward.weights=bfloat16)",
    )
    every = cfg.checkpoint.updates
    cadence = every is None or (type(every) is int and every >= 1)
    require(cadence, f"checkpoint.updates={every}", "null or a whole number, 1 or more")
    sharded = cfg.engine.get("frozen_zero_stage", 0) == 3
    require(
        not (memory.offload and sharded),
        "memory.offload=true with engine.frozen_zero_stage=3, which places the same models",
        "one of them",
    )
    return instantiate(cfg.ppo)


def build_engine(cfg: DictConfig) -> Engine:
    """Where models compute. ValueError when more processes were launched than the engine makes use of."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun and deepspeed set it
    engine = construct(cfg.engine)
    require(
        engine.processes == launched,
        f"{launched} processes with engine={engine.describe()['name']}, each of which would train the same run",
        "engine=deepspeed, or one process",
    )
    return engine


class ModelNames:
    """Where policy, reward model and tokenizer of a config come from: folders of the cache, or names on the hub."""

    def __init__(self, cfg: DictConfig, task: Any, device: torch.device) -> None:
        self._local = None if cfg.models.source == "hub" else local_models(cfg, task, device)
        self._cfg = cfg.models

    def __getitem__(self, kind: str) -> str:
        """Folder or hub name of "policy" or "reward"."""
        return str(self._local.folder(kind)) if self._local else self._cfg[kind].name

    def revision(self, kind: str) -> str | None:
        """The commit of the hub that is asked for; None: the newest, or a folder of the cache."""
        return None if self._local else self._cfg[kind].revision

    def describe(self) -> dict[str, Any]:
        """For the manifest: fingerprints and quality reports, or names."""
        if self._local is None:
            return {kind: {"name": self[kind], "revision": self.revision(kind)} for kind in ("policy", "reward")}
        kinds = ("policy", "reward")
        return {k: {"fingerprint": self._local.fingerprint(k), "report": self._local.report(k)} for k in kinds}


def load_parts(cfg: DictConfig, device: torch.device, engine: Engine | None = None) -> Parts:
    """The task and models of a config, loaded; `engine`: where they compute, None for this process."""
    task = build_task(cfg)
    return Parts(cfg, task, ModelNames(cfg, task, device), device, engine)


class Run:
    """The wired objects of one run: `trainer` trains, `learner` holds what is trained, `evaluate` judges, `meter` counts,
    `names` says which models (of which `reward_model` is one), `coalitions` how coalitions are scored (None for methods
    that ask for none)."""

    def __init__(
        self, cfg: DictConfig, ppo: PPOConfig, device: torch.device, tracker: Tracker, engine: Engine | None = None
    ) -> None:
        self._evaluation = build_settings(EvaluationConfig, cfg.evaluation, "evaluation")
        self._parts = parts = load_parts(cfg, device, engine)
        engine = parts.engine
        self.names, self.reward_model = parts.names, parts.reward_model
        policy = parts.policy()
        reference = policy.reference()
        self._sampler = parts.sampler(policy, reference)
        self.meter = Meter(device)
        method, self.coalitions = parts.method(cfg)
        segmenter = parts.segmenter(cfg)
        if method.needs_units:
            segmenter.load()
        self._placement = parts.placement(reference)  # last: until now models are tried and copied on the device
        self.learner = engine.learner(policy, ppo)
        self.trainer = Trainer(
            config=ppo,
            seed=cfg.seed,
            alpha=check_alpha(cfg.shaping.alpha),
            device=device,
            prompts=parts.prompts("train", ppo.batch_size, cfg.seed),
            sampler=self._sampler,
            scoring=parts.scoring,
            segmenter=segmenter,
            method=method,
            updater=PPOUpdater(self.learner, ppo),
            kl_controller=KLController(
                kind=ppo.kl_control, coef=ppo.kl_coef, target=ppo.kl_target, horizon=ppo.kl_horizon
            ),
            tracker=tracker,
            meter=self.meter,
            engine=engine,
            placement=self._placement,
        )
        engine.settle()

    def describe_models(self) -> dict[str, Any]:
        """For the manifest of the record (`Parts.describe_models`)."""
        return self._parts.describe_models()

    def evaluate(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Judge the policy as it is now on the fixed test prompts."""
        with self._placement.during("rollout"), self._placement.during("score"):
            return self._parts.evaluate(self._sampler, self._evaluation)
