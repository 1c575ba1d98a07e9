"""What span credit adds to a PPO update: one update of the paper's TL;DR shape with a policy as large as the reward model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from transformers import GPTNeoXForCausalLM

from scar.coalitions.backends import make_scorer
from scar.config import GenerationConfig, PPOConfig
from scar.credit.estimators import OwenEstimator
from scar.credit.methods import ScarMethod
from scar.engine.single import TorchEngine
from scar.interfaces import Engine, RewardModel
from scar.models.policy import CausalPolicy, new_value_head
from scar.models.precision import HostParking
from scar.planning.workloads import random_config, random_prompts, random_reward_model, random_units, score
from scar.ppo.rollout import ResponseScoring, Sampler
from scar.ppo.trainer import Trainer
from scar.ppo.updater import KLController, PPOUpdater
from scar.tasks.prompts import PromptBatches
from scar.tracking.metering import Meter
from scar.tracking.provenance import code_state, device_description, versions
from scar.types import PromptBatch, Rollout, Scores, Units

MEMORY_MIB = 512
NO_LIMIT = 10**6
UNITS, PROMPT, TOKENS = 12, 512, 53
EOS_ID, PAD_ID = 0, 1


@dataclass(frozen=True)
class _Prompts:
    count: int

    def batch(self, number: int) -> PromptBatch:
        return random_prompts(self.count, PROMPT, seed=number)


@dataclass(frozen=True)
class _Scoring:
    reward_model: RewardModel

    def score(self, rollout: Rollout) -> Scores:
        return score(self.reward_model, rollout)


class _Spans:
    def load(self) -> None:
        pass

    def segment(self, rollout: Rollout) -> Units:
        return random_units(rollout, UNITS)


class _NoTokenizer:
    def decode(self, token_ids: Any, **options: Any) -> str:
        return ""


def update_row(*, responses: int, size: str = "larger") -> Row:
    """Seconds of the credit stage beside those of all other stages (rollout, scores, 4 PPO epochs) of the same update."""
    trainer = random_trainer(responses, size)
    trainer.run_update(1)  # the first update also pays for allocations
    row = trainer.run_update(2)
    credit = row["time/credit_s"]
    rest = row["time/total_s"] - credit
    return Row(
        f"tldr span N={UNITS} beside one PPO update, {size} model, fused",
        credit,
        "the update without credit",
        rest,
        rest / credit,
        None,
        int(row["scar/evals_mean"] * responses),
    )


def random_trainer(responses: int, size: str, engine: Engine | None = None) -> Trainer:
    """SCAR on spans, all models of one size with random weights; `engine`: where they compute, None for this process."""
    device, engine = torch.device("cpu"), engine or TorchEngine()
    reward_model = random_reward_model(size)
    scorer, _ = make_scorer(reward_model, backend="fused", dtype="float32", memory_mib=MEMORY_MIB, device=device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = GPTNeoXForCausalLM(random_config(size))
    generation = GenerationConfig(
        temperature=0.7, min_new_tokens=TOKENS, max_new_tokens=TOKENS, sample_length=False
    )  # no EOS before the end: every response has all its tokens
    policy = CausalPolicy(
        model,
        temperature=generation.temperature,
        min_new_tokens=TOKENS,
        eos_id=EOS_ID,
        pad_id=PAD_ID,
        value_head=new_value_head(model.config.hidden_size, torch.Generator().manual_seed(0)),
    )
    config = ppo_config(responses)
    estimator = OwenEstimator(max_coalitions=NO_LIMIT)
    sampled, reference = engine.sampled(policy), engine.frozen(policy.reference())
    method = ScarMethod(scorer=engine.scorer(scorer, reward_model), estimator=estimator, fill="space", empty="uniform")
    scoring = _Scoring(engine.reward_model(reward_model))
    learner = engine.learner(policy, config)
    engine.settle()
    return Trainer(
        config=config,
        seed=1,
        alpha=1.0,
        sparse_weight=None,
        device=device,
        prompts=cast(PromptBatches, _Prompts(responses)),
        sampler=Sampler(sampled, reference, tokenizer=_NoTokenizer(), generation=generation),
        scoring=cast(ResponseScoring, scoring),
        segmenter=_Spans(),
        method=method,
        updater=PPOUpdater(learner, config),
        kl_controller=KLController(kind="fixed", coef=0.05, target=6.0, horizon=10000.0),
        tracker=None,  # type: ignore[arg-type]  # single updates are not logged
        meter=Meter(device),
        engine=engine,
        placement=HostParking({}, device),
    )


def ppo_config(responses: int, *, ppo_epochs: int = 4) -> PPOConfig:
    """Table 4's settings where they matter for time: one optimizer step per epoch."""
    return PPOConfig(
        updates=2,
        batch_size=responses,
        minibatch_size=responses,
        microbatch_size=responses,
        ppo_epochs=ppo_epochs,
        learning_rate=3e-6,
        learning_rate_schedule="constant",
        adam_eps=1e-5,
        weight_decay=0.0,
        kl_coef=0.05,
        kl_control="fixed",
        kl_target=6.0,
        kl_horizon=10000.0,
        kl_scale=1.0,
        gamma=1.0,
        gae_lambda=0.95,
        clip_range=0.2,
        value_clip_range=0.2,
        value_loss_coef=0.1,
        value_net="shared",
        max_grad_norm=None,
        max_mean_ratio=None,
    )


# What benchmarks write: rows, the table made of them, and the machine they ran on.


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` = peer_seconds / ours_seconds; `queries` is ours, all responses together."""

    name: str
    ours_seconds: float
    peer: str
    peer_seconds: float
    ratio: float
    max_abs_difference: float | None
    queries: int


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and the result, of one call."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def as_dicts(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows (dataclasses of one kind) for a JSON file."""
    return [asdict(row) for row in rows]


def markdown(rows: Sequence[Any]) -> str:
    """A Markdown table with one column per field."""
    dicts = as_dicts(rows)
    header = list(dicts[0])
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row.values()] for row in dicts)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def machine() -> str:
    """One line: code, processor, threads, versions."""
    state = code_state()
    commit = (state["commit"] or "no git checkout")[:12] + ("+changes" if state["dirty"] else "")
    packages = versions()
    shown = ", ".join(f"{name} {packages[name]}" for name in ("python", "torch", "transformers") if name in packages)
    cpu = device_description(torch.device("cpu"))["name"]
    return f"commit {commit}; {cpu}; {torch.get_num_threads()} thread; {shown}"
