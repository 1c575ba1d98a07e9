"""The composition root: from a Hydra config to wired objects. Below this module nothing knows Hydra or its config type."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from scar.coalitions.backends import ScorerReport, make_scorer
from scar.commands.targets import build_settings, construct, located, parameters, plain
from scar.config import (
    EvaluationConfig,
    GenerationConfig,
    LoadConfig,
    MemoryConfig,
    PPOConfig,
    ScoringConfig,
    require,
)
from scar.credit.methods import needs
from scar.credit.texts import UnitTexts
from scar.engine.single import TorchEngine
from scar.identity import data_source
from scar.interfaces import CoalitionScorer, CreditMethod, Engine, RewardModel, Segmenter, Task, Tracker
from scar.models import loading
from scar.models.cache import ModelCache
from scar.models.policy import CausalPolicy, new_value_head
from scar.models.precision import FLOATS, HostParking, add_lora
from scar.models.reading import RewardReader, same_tokenizer
from scar.models.reward import SequenceRewardModel
from scar.ppo.evaluation import evaluate_policy
from scar.ppo.rollout import ResponseScoring, Sampler
from scar.ppo.trainer import Trainer
from scar.ppo.updater import KLController, PPOUpdater
from scar.seeding import generator, stream_seed
from scar.supervised.store import LocalModels
from scar.tasks.prompts import PromptBatches
from scar.tracking.metering import Meter

NO_SETTINGS = ("source", "recipe", "stated", "pretrained", "gold")
"""Keys of `models` that are not settings of a recipe."""


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device; ValueError when it is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch sees no CUDA device here; use device=cpu or device=auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def setup_process(cfg: DictConfig) -> torch.device:
    """Threads, logging and noise of this process; returns the device."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.raiseExceptions = False  # on a full disk W&B's log lines would bury the one error that matters
    torch.set_num_threads(cfg.threads)
    loading.quiet_transformers()
    device = resolve_device(cfg.device)
    if device.type == "cpu":  # transformers imports DeepSpeed where it is installed, which would warn of that
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    return device


_tasks: dict[str, Any] = {}
"""The task that this process built last. Its data are read once for all jobs of a sweep that follow each other here."""


def build_task(cfg: DictConfig) -> Any:
    """The task with its data source; a source that keeps files gets the cache."""
    key = json.dumps([plain(cfg.task), str(cfg.paths.cache)])
    if key not in _tasks:
        _tasks.clear()
        _tasks[key] = _build_task(cfg)
    return _tasks[key]


def _build_task(cfg: DictConfig) -> Any:
    node = cfg.task.sources[data_source(cfg.task)]
    keeps_files = "cache" in parameters(located(node._target_))
    source = construct(node, **({"cache": Path(cfg.paths.cache)} if keeps_files else {}))
    build = located(cfg.task._target_)
    settings = {key: cfg.task[key] for key in parameters(build) if key in cfg.task and key != "source"}
    return build(source=source, **settings)


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
    name = "stated" if stated else "recipe"
    if name not in cfg.models:
        data = f"task.data_dir={cfg.task.data_dir}" if stated else f"task.source={cfg.task.source}"
        raise ValueError(f"{data} with scale={cfg.scale}: these models cannot be trained on it; choose another scale")
    return cfg.models[name]


def check_settings(cfg: DictConfig) -> PPOConfig:
    """Check every setting that can be checked before data and models are loaded; returns the PPO settings."""
    memory, narrow = build_settings(MemoryConfig, cfg.memory), cfg.coalitions.dtype != "float32"
    require(
        not (memory.offload and narrow),
        f"memory.offload=true with coalitions.dtype={cfg.coalitions.dtype}, which is a second copy of the reward model",
        "coalitions.dtype=float32 (and models.reward.weights=bfloat16)",
    )
    sharded = cfg.engine.get("frozen_zero_stage", 0) == 3
    require(
        not (memory.offload and sharded),
        "memory.offload=true with engine.frozen_zero_stage=3, which places the same models",
        "one of them",
    )
    _check_test_prompts(cfg)
    weight = cfg.shaping.get("sparse_weight")
    paid = (1 - cfg.shaping.alpha if weight is None else weight) > 0
    require(
        paid or cfg.shaping.method.get("one_unit", "score") == "score",
        "shaping.method.one_unit=none with no weight on the score at the end, so a response of one unit is paid nothing",
        "shaping.sparse_weight above 0 (as released: 1), or one_unit=score",
    )
    return build_settings(PPOConfig, cfg.ppo)


def _check_test_prompts(cfg: DictConfig) -> None:
    """ValueError when more test prompts are asked for than the data are known to give."""
    name, asked = data_source(cfg.task), cfg.evaluation.prompts
    there = cfg.task.sources.get(name, {}).get("test_prompts")
    require(
        there is None or asked <= there,
        f"task={cfg.task.name} evaluation.prompts={asked}",
        f"at most {there}, the test prompts of its data (task.sources.{name}.test_prompts)",
    )


def credit_needs(cfg: DictConfig) -> tuple[str, ...]:
    """What the credit method of `cfg` needs, read off its class (`needs` of scar/credit/methods.py)."""
    return needs(located(cfg.shaping.method._target_))


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
        self._evaluation = build_settings(EvaluationConfig, cfg.evaluation)
        self._parts = parts = load_parts(cfg, device, engine)
        engine = parts.engine
        self.names, self.reward_model = parts.names, parts.reward_model
        policy = parts.policy()
        reference = policy.reference()
        self._sampler = parts.sampler(policy, reference)
        self.meter = Meter(device)
        method, self.coalitions = parts.method(cfg)
        segmenter = parts.segmenter(cfg)
        units = "units" in credit_needs(cfg)
        if units:
            segmenter.load()
        self._placement = parts.placement(reference)  # last: until now models are tried and copied on the device
        self.learner = engine.learner(policy, ppo)
        self.trainer = Trainer(
            config=ppo,
            seed=cfg.seed,
            alpha=float(cfg.shaping.alpha),
            sparse_weight=cfg.shaping.get("sparse_weight"),
            device=device,
            prompts=parts.prompts("train", ppo.batch_size, cfg.seed),
            sampler=self._sampler,
            scoring=parts.scoring,
            segmenter=segmenter if units else None,
            method=method,
            updater=PPOUpdater(self.learner, ppo),
            kl_controller=KLController(
                kind=ppo.kl_control,
                coef=ppo.kl_scale * ppo.kl_coef,
                target=ppo.kl_scale * ppo.kl_target,
                horizon=ppo.kl_horizon,
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


# What a config is made of, loaded and ready to be wired: the pieces that runs and credit records share.


def _commit(model: Any) -> str | None:
    """The commit of the hub that a model was loaded from; None for a folder, and for a model that is not Hugging Face's."""
    return getattr(getattr(model, "config", None), "_commit_hash", None)


def load_reward_model(
    name: str, *, rows_a_batch: int, device: torch.device, revision: str | None = None, weights: str = "float32"
) -> tuple[SequenceRewardModel, Any]:
    """A reward model with its tokenizer, by folder or hub name."""
    tokenizer = loading.load_tokenizer(name, revision=revision)
    model = loading.load_reward_sequence_model(name, device=device, revision=revision, weights=weights)
    return SequenceRewardModel(model, space_id=loading.space_token(tokenizer), rows_a_batch=rows_a_batch), tokenizer


def build_scoring(
    cfg: DictConfig, policy_tokenizer: Any, reward_model: RewardModel, reward_tokenizer: Any
) -> ResponseScoring:
    """Scores of the policy's responses as the task of `cfg` has them read."""
    config = build_settings(ScoringConfig, cfg.task.scoring)
    reader = RewardReader(
        policy_tokenizer, reward_tokenizer, reads_eos=config.reads_eos, max_tokens=reward_model.max_tokens
    )
    return ResponseScoring(reward_model, reader, config)


class Parts:
    """Tokenizers, reward model and scoring of a config, loaded at once; policy, credit method and segmenter on demand. `names`
    says which models these are."""

    def __init__(
        self, cfg: DictConfig, task: Task, names: ModelNames, device: torch.device, engine: Engine | None = None
    ) -> None:
        self._cfg, self._device = cfg, device
        self.engine: Engine = engine or TorchEngine()
        self._generation = build_settings(GenerationConfig, cfg.task.generation)
        self._task, self.names = task, names
        self._memory = build_settings(MemoryConfig, cfg.memory)
        self.tokenizer = loading.load_tokenizer(names["policy"], revision=names.revision("policy"))
        reward = cfg.models.reward
        self.reward_model, self._reward_tokenizer = load_reward_model(
            names["reward"],
            rows_a_batch=reward.rows_a_batch,
            device=device,
            revision=names.revision("reward"),
            weights=reward.get("weights", "float32"),  # models trained from scratch have no choice
        )
        self._commits = {"reward": _commit(getattr(self.reward_model, "model", None))}
        self._text_scorer = self.engine.reward_model(self.reward_model)
        self.scoring = build_scoring(cfg, self.tokenizer, self._text_scorer, self._reward_tokenizer)

    def describe_models(self) -> dict[str, Any]:
        """For the manifest of a record: fingerprints and reports, or names with the commits of the hub that were loaded."""
        entries = self.names.describe()
        return {
            kind: entry | ({"commit": self._commits.get(kind)} if "name" in entry else {})
            for kind, entry in entries.items()
        }

    def policy(self) -> CausalPolicy:
        """The SFT policy with the value function that the config names."""
        load = self._load_config()
        model = loading.load_policy_model(
            self.names["policy"], device=self._device, revision=self.names.revision("policy"), weights=load.weights
        )
        self._check_context(model)
        self._commits["policy"] = _commit(model)
        if load.adapters is not None:
            add_lora(model, load.adapters, seed=stream_seed(self._cfg.seed, "lora"))
        return CausalPolicy(
            model,
            temperature=self._generation.temperature,
            min_new_tokens=self._generation.min_new_tokens,
            eos_id=self.tokenizer.eos_token_id,
            pad_id=self.tokenizer.pad_token_id,
            compute=FLOATS[load.compute],
            recompute=self._memory.gradient_checkpointing,
            **self._build_value(model.config.hidden_size),
        )

    def _load_config(self) -> LoadConfig:
        """How the policy is held; models trained from scratch have no choice."""
        node = self._cfg.models.policy.get("load")
        return LoadConfig() if node is None else build_settings(LoadConfig, node)

    def _build_value(self, hidden_size: int) -> dict[str, Any]:
        """The value function: a head on the policy's trunk, or a copy of the reward model (docs/decisions.md#value-function)."""
        if self._cfg.ppo.value_net == "shared":
            head = new_value_head(hidden_size, generator(self._cfg.seed, "value_head")).to(self._device)
            return {"value_head": head}
        if not same_tokenizer(self.tokenizer, self._reward_tokenizer):
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

    def sampler(self, policy: CausalPolicy, reference: CausalPolicy) -> Sampler:
        """Samples from `policy`, with `reference` beside it; each process passes a microbatch at a time."""
        return Sampler(
            self.engine.sampled(policy),
            self.engine.frozen(reference),
            tokenizer=self.tokenizer,
            generation=self._generation,
            rows_a_pass=self._cfg.ppo.microbatch_size * self.engine.processes,
        )

    def placement(self, reference: CausalPolicy) -> HostParking:
        """Where reference policy and reward model are between the stages that need them (memory.offload). A reference that
        shares the policy's weights stays with it."""
        if not self._memory.offload:
            return HostParking({}, self._device)
        own = [] if reference.shares_weights else [reference]
        scorers = [self.reward_model]
        return HostParking({"rollout": own, "score": scorers, "credit": scorers}, self._device)

    def method(self, cfg: DictConfig) -> tuple[CreditMethod, ScorerReport | None]:
        """The credit method of `cfg`, given the run-time objects that it needs, and how its coalitions are scored (None for
        methods that ask for none)."""
        reports: list[ScorerReport] = []

        def scorer() -> CoalitionScorer:
            runtime = {"reward_model": self.reward_model, "device": self._device}
            built, report = build_settings(make_scorer, cfg.coalitions, **runtime)
            reports.append(report)
            return self.engine.scorer(built, self.reward_model)

        offers: dict[str, Callable[[], Any]] = {
            "reward_model": lambda: self._text_scorer,
            "scorer": scorer,
            "estimator": lambda: construct(cfg.estimator),
            "texts": lambda: UnitTexts(self.tokenizer, self._reward_tokenizer, max_tokens=self.reward_model.max_tokens),
        }
        method = construct(cfg.shaping.method, **{need: offers[need]() for need in credit_needs(cfg) if need in offers})
        return method, reports[0] if reports else None

    def segmenter(self, cfg: DictConfig) -> Segmenter:
        """The segmenter of `cfg`, not loaded yet."""
        return construct(cfg.segmentation, tokenizer=self.tokenizer)

    def prompts(self, split: str, batch_size: int, seed: int, *, drop_last: bool = True) -> PromptBatches:
        """Batches of the task's prompts."""
        return PromptBatches(
            self._task.prompts(split),
            cut=construct(self._cfg.task.prompt),
            tokenizer=self.tokenizer,
            batch_size=batch_size,
            seed=seed,
            drop_last=drop_last,
            device=self._device,
        )

    def evaluate(self, sampler: Sampler, config: EvaluationConfig) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Judge a policy on the fixed test prompts (`evaluate_policy`)."""
        prompts = self.prompts("test", config.batch_size, config.seed, drop_last=False)
        allowed = f"at most {len(prompts)}, the test prompts that there are"  # else some would count twice
        require(config.prompts <= len(prompts), f"evaluation.prompts={config.prompts}", allowed)
        return evaluate_policy(sampler, prompts, self.scoring, config, device=self._device)
