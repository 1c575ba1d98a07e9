"""The composition root: from a Hydra config to wired objects. Below this module nothing knows Hydra or its config type."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from scar.config import EvaluationConfig, GenerationConfig, PPOConfig, ScoringConfig, check_alpha, require
from scar.construct import build_settings, construct, plain
from scar.interfaces import Tracker
from scar.models import loading
from scar.parts import Parts
from scar.ppo.kl_control import KLController
from scar.ppo.updater import PPOUpdater
from scar.recipes.store import LocalModels
from scar.tracking.metering import Meter
from scar.trainer import Trainer


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
    return resolve_device(cfg.device)


def build_task(cfg: DictConfig) -> Any:
    """The task with the data source that the scale chose; a source that keeps files gets the cache."""
    node = cfg.task.sources[cfg.task.source]
    keeps_files = "cache" in inspect.signature(get_object(node._target_)).parameters
    source = construct(node, **({"cache": Path(cfg.paths.cache)} if keeps_files else {}))
    return construct(cfg.task.build, source=source)


def local_models(cfg: DictConfig, task: Any, device: torch.device, *, gold: bool = False) -> LocalModels:
    """The models that this config trains from scratch; `gold`: the gold reward model, whose settings are the others' but for
    what `models.gold` sets."""
    if cfg.models.source != "scratch":
        raise ValueError(f"models={cfg.models.source}: these are checkpoints by name, there is nothing to train here")
    cache = loading.ModelCache(Path(cfg.paths.cache))
    models = cfg.models.copy()
    if gold:
        OmegaConf.set_struct(models, True)  # a setting that the others do not have is an error
        models = OmegaConf.merge(models, cfg.models.gold)
    return construct(
        cfg.models.build,
        settings={key: value for key, value in plain(models).items() if key not in ("source", "build", "gold")},
        task=task,
        cache=cache,
        model_seed=cfg.model_seed,
        device=device,
        gold=gold,
    )


def check_settings(cfg: DictConfig) -> PPOConfig:
    """Check every setting that can be checked before data and models are loaded; returns the PPO settings."""
    check_alpha(cfg.shaping.alpha)
    build_settings(GenerationConfig, cfg.task.generation, "task.generation")
    build_settings(ScoringConfig, cfg.task.scoring, "task.scoring")
    build_settings(EvaluationConfig, cfg.evaluation, "evaluation")
    return instantiate(cfg.ppo)


class ModelNames:
    """Where policy, reward model and tokenizer of a config come from: folders of the cache, or names on the hub."""

    def __init__(self, cfg: DictConfig, task: Any, device: torch.device) -> None:
        self._local = local_models(cfg, task, device) if cfg.models.source == "scratch" else None
        self._cfg = cfg.models

    def __getitem__(self, kind: str) -> str:
        """Folder or hub name of "policy" or "reward"."""
        return str(self._local.folder(kind)) if self._local else self._cfg[kind].name

    def describe(self) -> dict[str, Any]:
        """For the manifest: fingerprints and quality reports, or names."""
        if self._local is None:
            return {kind: {"name": self._cfg[kind].name} for kind in ("policy", "reward")}
        kinds = ("policy", "reward")
        return {k: {"fingerprint": self._local.fingerprint(k), "report": self._local.report(k)} for k in kinds}


def load_parts(cfg: DictConfig, device: torch.device) -> Parts:
    """The task and models of a config, loaded."""
    task = build_task(cfg)
    return Parts(cfg, task, ModelNames(cfg, task, device), device)


class Run:
    """The wired objects of one run: `trainer` trains, `evaluate` judges, `meter` counts, `names` says which models (of which
    `reward_model` is one), `coalitions` how coalitions are scored (None for methods that ask for none)."""

    def __init__(self, cfg: DictConfig, ppo: PPOConfig, device: torch.device, tracker: Tracker) -> None:
        self._evaluation = build_settings(EvaluationConfig, cfg.evaluation, "evaluation")
        self._parts = parts = load_parts(cfg, device)
        self.names, self.reward_model = parts.names, parts.reward_model
        policy = parts.policy()
        self._sampler = parts.sampler(policy)
        self.meter = Meter(device)
        method, self.coalitions = parts.method(cfg)
        segmenter = parts.segmenter(cfg)
        if method.needs_units:
            segmenter.load()
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
            updater=PPOUpdater(policy, [p for p in policy.parameters() if p.requires_grad], ppo),
            kl_controller=KLController(
                kind=ppo.kl_control, coef=ppo.kl_coef, target=ppo.kl_target, horizon=ppo.kl_horizon
            ),
            tracker=tracker,
            meter=self.meter,
        )

    def evaluate(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Judge the policy as it is now on the fixed test prompts."""
        return self._parts.evaluate(self._sampler, self._evaluation)
