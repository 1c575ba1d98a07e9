"""What a config is made of, loaded and ready to be wired: the pieces that runs and credit records share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from omegaconf import DictConfig

from scar.coalitions.backends import ScorerReport, make_scorer
from scar.config import EvaluationConfig, GenerationConfig, LoadConfig, MemoryConfig, ScoringConfig
from scar.construct import build_settings, construct
from scar.engine.single import TorchEngine
from scar.interfaces import CoalitionScorer, CreditMethod, Engine, RewardModel, Segmenter, Task
from scar.models import loading
from scar.models.policy import CausalPolicy, new_value_head
from scar.models.precision import FLOATS, HostParking, add_lora
from scar.models.reading import RewardReader, same_tokenizer
from scar.models.reward import SequenceRewardModel
from scar.ppo.evaluation import evaluate_policy
from scar.ppo.rollout import ResponseScoring, Sampler
from scar.ppo.trainer import OnDevice, Placement
from scar.seeding import generator, stream_seed
from scar.tasks.prompts import PromptBatches


class ModelNames(Protocol):
    """Which models a config names (scar/build.py)."""

    def __getitem__(self, kind: str) -> str:
        """Folder or hub name of "policy" or "reward"."""
        ...

    def revision(self, kind: str) -> str | None:
        """Commit on the hub, if one is asked for."""
        ...

    def describe(self) -> dict[str, Any]:
        """For the manifest of a record."""
        ...


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
    config = build_settings(ScoringConfig, cfg.task.scoring, "task.scoring")
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
        self._generation = build_settings(GenerationConfig, cfg.task.generation, "task.generation")
        self._task, self.names = task, names
        self._memory = build_settings(MemoryConfig, cfg.memory, "memory")
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
        found = self.names.describe()
        return {
            kind: entry | ({"commit": self._commits.get(kind)} if "name" in entry else {})
            for kind, entry in found.items()
        }

    def policy(self) -> CausalPolicy:
        """The SFT policy with the value function that the config names."""
        held = self._load_config()
        model = loading.load_policy_model(
            self.names["policy"], device=self._device, revision=self.names.revision("policy"), weights=held.weights
        )
        self._check_context(model)
        self._commits["policy"] = _commit(model)
        if held.adapters is not None:
            add_lora(model, held.adapters, seed=stream_seed(self._cfg.seed, "lora"))
        return CausalPolicy(
            model,
            temperature=self._generation.temperature,
            min_new_tokens=self._generation.min_new_tokens,
            eos_id=self.tokenizer.eos_token_id,
            pad_id=self.tokenizer.pad_token_id,
            compute=FLOATS[held.compute],
            recompute=self._memory.gradient_checkpointing,
            **self._build_value(model.config.hidden_size),
        )

    def _load_config(self) -> LoadConfig:
        """How the policy is held; models trained from scratch have no choice."""
        node = self._cfg.models.policy.get("load")
        return LoadConfig() if node is None else build_settings(LoadConfig, node, "models.policy.load")

    def _build_value(self, hidden_size: int) -> dict[str, Any]:
        """The value function: a head on the policy's trunk, or a copy of the reward model (paper note 23)."""
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

    def placement(self, reference: CausalPolicy) -> Placement:
        """Where reference policy and reward model are between the stages that need them (memory.offload). A reference that
        shares the policy's weights stays with it."""
        if not self._memory.offload:
            return OnDevice()
        own = [] if reference.shares_weights else [reference]
        scorers = [self.reward_model]
        return HostParking({"rollout": own, "score": scorers, "credit": scorers}, self._device)

    def method(self, cfg: DictConfig) -> tuple[CreditMethod, ScorerReport | None]:
        """The credit method of `cfg`, given the run-time objects that its config says it needs, and how its coalitions are
        scored (None for methods that ask for none)."""
        reports: list[ScorerReport] = []

        def scorer() -> CoalitionScorer:
            runtime = {"reward_model": self.reward_model, "device": self._device}
            built, report = build_settings(make_scorer, cfg.coalitions, "coalitions", **runtime)
            reports.append(report)
            return self.engine.scorer(built, self.reward_model)

        offers: dict[str, Callable[[], Any]] = {
            "reward_model": lambda: self._text_scorer,
            "scorer": scorer,
            "estimator": lambda: construct(cfg.estimator),
        }
        method = construct(cfg.shaping.method, **{need: offers[need]() for need in cfg.shaping.needs})
        return method, reports[0] if reports else None

    def segmenter(self, cfg: DictConfig) -> Segmenter:
        """The segmenter of `cfg`, not loaded yet."""
        return construct(cfg.segmentation.build, tokenizer=self.tokenizer)

    def prompts(self, split: str, batch_size: int, seed: int) -> PromptBatches:
        """Batches of the task's prompts."""
        return PromptBatches(
            self._task.prompts(split),
            cut=construct(self._cfg.task.prompt),
            tokenizer=self.tokenizer,
            batch_size=batch_size,
            seed=seed,
            device=self._device,
        )

    def evaluate(self, sampler: Sampler, config: EvaluationConfig) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Judge a policy on the fixed test prompts (`evaluate_policy`)."""
        prompts = self.prompts("test", config.batch_size, config.seed)
        available, size = len(prompts), config.batch_size
        if -(-config.prompts // size) * size > available:  # else some prompts would count twice
            raise ValueError(
                f"evaluation.prompts={config.prompts} in batches of {size}; allowed: whole batches within the "
                f"{available} test prompts"
            )
        return evaluate_policy(sampler, prompts, self.scoring, config, device=self._device)
