"""The composition root: from a Hydra config to wired objects. Below this module nothing knows Hydra or its config type."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from scar.attribution.backends import ScorerReport, make_scorer
from scar.config import EvaluationConfig, GenerationConfig, PPOConfig, ScoringConfig, check_alpha, require
from scar.construct import build_settings, construct, plain
from scar.evaluation.reward_eval import evaluate_policy
from scar.interfaces import CoalitionScorer, Tracker
from scar.models import loading
from scar.models.policy import CausalPolicy, new_value_head
from scar.models.reading import RewardReader, same_tokenizer
from scar.models.reward import SequenceRewardModel
from scar.ppo.kl_control import KLController
from scar.ppo.updater import PPOUpdater
from scar.recipes.store import LocalModels
from scar.rollout import Sampler
from scar.scoring import ResponseScoring
from scar.seeding import generator
from scar.tasks.prompts import PromptBatches
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


def load_reward_model(name: str, *, rows_a_batch: int, device: torch.device) -> tuple[SequenceRewardModel, Any]:
    """A reward model with its tokenizer, by folder or hub name."""
    tokenizer = loading.load_tokenizer(name)
    model = loading.load_reward_sequence_model(name, device=device)
    return SequenceRewardModel(model, space_id=loading.space_token(tokenizer), rows_a_batch=rows_a_batch), tokenizer


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


class Run:
    """The wired objects of one run: `trainer` trains, `evaluate` judges, `meter` counts, `names` says which models (of which
    `reward_model` is one), `coalitions` how coalitions are scored (None for methods that ask for none)."""

    def __init__(self, cfg: DictConfig, ppo: PPOConfig, device: torch.device, tracker: Tracker) -> None:
        self._cfg, self._device = cfg, device
        self._evaluation = build_settings(EvaluationConfig, cfg.evaluation, "evaluation")
        self._generation = build_settings(GenerationConfig, cfg.task.generation, "task.generation")
        self._task = build_task(cfg)
        self.coalitions: ScorerReport | None = None
        self.names = ModelNames(cfg, self._task, device)
        self._tokenizer = loading.load_tokenizer(self.names["policy"])
        self.reward_model, self._reward_tokenizer = load_reward_model(
            self.names["reward"], rows_a_batch=cfg.models.reward.rows_a_batch, device=device
        )
        self._scoring = self._build_scoring()
        policy = self._build_policy()
        self._sampler = Sampler(policy, policy.frozen_copy(), tokenizer=self._tokenizer, generation=self._generation)
        self.meter = Meter(device)
        method = self._build_method()
        segmenter = construct(cfg.segmentation.build, tokenizer=self._tokenizer)
        if method.needs_units:
            segmenter.load()
        self.trainer = Trainer(
            config=ppo,
            seed=cfg.seed,
            alpha=check_alpha(cfg.shaping.alpha),
            device=device,
            prompts=self._prompts("train", ppo.batch_size, cfg.seed),
            sampler=self._sampler,
            scoring=self._scoring,
            segmenter=segmenter,
            method=method,
            updater=PPOUpdater(policy, [p for p in policy.parameters() if p.requires_grad], ppo),
            kl_controller=KLController(
                kind=ppo.kl_control, coef=ppo.kl_coef, target=ppo.kl_target, horizon=ppo.kl_horizon
            ),
            tracker=tracker,
            meter=self.meter,
        )

    def _build_scoring(self) -> ResponseScoring:
        config = build_settings(ScoringConfig, self._cfg.task.scoring, "task.scoring")
        reader = RewardReader(
            self._tokenizer,
            self._reward_tokenizer,
            reads_eos=config.reads_eos,
            max_tokens=self.reward_model.max_tokens,
        )
        return ResponseScoring(self.reward_model, reader, config)

    def _build_policy(self) -> CausalPolicy:
        model = loading.load_policy_model(self.names["policy"], device=self._device)
        self._check_context(model)
        return CausalPolicy(
            model,
            temperature=self._generation.temperature,
            min_new_tokens=self._generation.min_new_tokens,
            eos_id=self._tokenizer.eos_token_id,
            pad_id=self._tokenizer.pad_token_id,
            **self._build_value(model.config.hidden_size),
        )

    def _build_value(self, hidden_size: int) -> dict[str, Any]:
        """The value function: a head on the policy's trunk, or a copy of the reward model (paper note 23)."""
        if self._cfg.ppo.value_net == "shared":
            head = new_value_head(hidden_size, generator(self._cfg.seed, "value_head")).to(self._device)
            return {"value_head": head}
        if not same_tokenizer(self._tokenizer, self._reward_tokenizer):
            raise ValueError(
                "ppo.value_net=separate starts as the reward model, which has another tokenizer; use ppo.value_net=shared"
            )
        trunk, head = self.reward_model.as_value_net()
        return {"value_trunk": trunk, "value_head": head}

    def _check_context(self, model: Any) -> None:
        needed = self._cfg.task.prompt.max_tokens + self._generation.max_new_tokens
        if needed > model.config.max_position_embeddings:
            raise ValueError(
                f"prompt and response take up to {needed} tokens, the policy reads {model.config.max_position_embeddings}; "
                "lower task.generation.max_new_tokens or task.prompt.max_tokens"
            )

    def _build_method(self) -> Any:
        """The credit method, given the run-time objects that its config says it needs."""
        offers: dict[str, Callable[[], Any]] = {
            "reward_model": lambda: self.reward_model,
            "scorer": self._build_scorer,
            "estimator": lambda: construct(self._cfg.estimator),
        }
        return construct(self._cfg.shaping.method, **{need: offers[need]() for need in self._cfg.shaping.needs})

    def _build_scorer(self) -> CoalitionScorer:
        scorer, self.coalitions = build_settings(
            make_scorer, self._cfg.coalitions, "coalitions", reward_model=self.reward_model, device=self._device
        )
        return scorer

    def _prompts(self, split: str, batch_size: int, seed: int) -> PromptBatches:
        return PromptBatches(
            self._task.prompts(split),
            cut=construct(self._cfg.task.prompt),
            tokenizer=self._tokenizer,
            batch_size=batch_size,
            seed=seed,
            device=self._device,
        )

    def evaluate(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Judge the policy as it is now on the fixed test prompts."""
        prompts = self._prompts("test", self._evaluation.batch_size, self._evaluation.seed)
        available, size = len(prompts), self._evaluation.batch_size
        if -(-self._evaluation.prompts // size) * size > available:  # else some prompts would count twice
            raise ValueError(
                f"evaluation.prompts={self._evaluation.prompts} in batches of {size}; allowed: whole batches within the "
                f"{available} test prompts"
            )
        return evaluate_policy(self._sampler, prompts, self._scoring, self._evaluation, device=self._device)
