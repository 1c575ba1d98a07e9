"""What the planner predicts beside what small models take on this machine's CPU (one thread, float32), stage by stage.

Time: predicted from traced FLOPs, bytes and operations with rates that are measured first: of a product and of a sum as
large as the model's, of a product that reads a large matrix for few rows, of a tiny operation. Memory: the most that a stage
holds beyond what was there before, as traced and as PyTorch's own profiler counts allocations. Ratios are predicted /
measured.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from experiments.benchmarks.update import NO_LIMIT, ppo_config, timed
from scar.coalitions.backends import make_scorer
from scar.config import LoadConfig
from scar.credit.estimators import OwenEstimator
from scar.credit.game import TextGame
from scar.models.policy import CausalPolicy, new_value_head
from scar.models.reward import SequenceRewardModel
from scar.planning import tracing as stages
from scar.planning.credit import Players, credit_cost
from scar.planning.devices import Device
from scar.planning.models import SAMPLING, Held, Models, fake_models
from scar.planning.tracing import Cost, fake_tensors
from scar.planning.workloads import SPACE_ID, Workload, random_config, random_rollout, random_units, score

ROWS, PROMPT, RESPONSE, UNITS = 8, 128, 32, 12
MEMORY_MIB = 512
REPEATS = 3
LARGE = 2**24
"""Numbers that no cache holds."""
Advance = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Row:
    """One stage of one model: CPU seconds and MiB."""

    model: str
    stage: str
    predicted_seconds: float
    measured_seconds: float
    time_ratio: float
    predicted_mib: float
    measured_mib: float
    memory_ratio: float


def shapes(*, quick: bool) -> dict[str, Any]:
    """Hugging Face configurations of random models by name."""
    configs = {"GPT-NeoX smaller": random_config("smaller")}
    if not quick:
        configs["GPT-NeoX larger"] = random_config("larger")
        configs["GPT-2, 10M"] = AutoConfig.for_model(
            "gpt2", vocab_size=8192, n_positions=256, n_embd=320, n_layer=6, n_head=5, pad_token_id=0
        )
        configs["Llama, 20M"] = AutoConfig.for_model(
            "llama",
            vocab_size=16384,
            hidden_size=384,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=6,
        )
    return configs


def run(*, quick: bool, cache: Path, advance: Advance) -> list[Row]:
    """All rows. Needs no model of `cache`."""
    rows: list[Row] = []
    configs = shapes(quick=quick)
    for done, (name, shape) in enumerate(configs.items(), start=1):
        rows += compare(name, shape)
        advance(done, len(configs), {"time": rows[-1].time_ratio, "memory": rows[-1].memory_ratio})
    return rows


def compare(name: str, shape: Any) -> list[Row]:
    """The stages of one architecture."""
    shape.num_labels = 1
    with fake_tensors():
        settings = Held(LoadConfig(), "shared", recompute=False, reward_weights="float32", rows_a_batch=ROWS)
        predicted = predict(fake_models(shape, shape, settings))
    processor = calibrate(shape.hidden_size)
    rows = []
    for stage, work in real_work(shape, rows=ROWS, prompt=PROMPT, response=RESPONSE).items():
        cost = predicted[stage]
        seconds, mib = measure(work)
        predicted_seconds, predicted_mib = processor.seconds(cost), cost.peak_bytes / 2**20
        rows.append(
            Row(
                name,
                stage,
                predicted_seconds,
                seconds,
                predicted_seconds / seconds,
                predicted_mib,
                mib,
                predicted_mib / mib,
            )
        )
    return rows


def predict(models: Models) -> dict[str, Cost]:
    """The traced cost of each stage."""
    lengths = {"prompt": PROMPT, "response": RESPONSE}
    update, _ = stages.update_costs(models.policy, ppo_config(ROWS, ppo_epochs=1), **lengths)
    players = Players(ROWS, PROMPT, RESPONSE, UNITS)
    credit = credit_cost(
        models.reward_model,
        OwenEstimator(NO_LIMIT),
        players,
        memory_bytes=MEMORY_MIB * 2**20,
        gpu=False,
        traced=ROWS,
        fill="space",
    )
    return {
        "generate": stages.generation_cost(models.policy, rows=ROWS, **lengths),
        "logprobs": stages.evaluation_cost(models.policy, rows=ROWS, rows_a_pass=ROWS, **lengths),
        "score": stages.reading_cost(models.reward_model.score, rows=ROWS, length=PROMPT + RESPONSE),
        "credit": credit.cost,
        "update": update,
    }


def real_work(shape: Any, *, rows: int, prompt: int, response: int) -> dict[str, Callable[[], Any]]:
    """The same stages on random models of real numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
        classifier = AutoModelForSequenceClassification.from_config(shape, dtype=torch.float32)
    head = new_value_head(shape.hidden_size, torch.Generator().manual_seed(0))
    policy = CausalPolicy(model, **SAMPLING, value_head=head)
    reward_model = SequenceRewardModel(classifier, space_id=SPACE_ID, rows_a_batch=rows)
    prompts, text = stages.made_up_prompts(rows, prompt), stages.made_up_text(rows, response)
    whole = stages.made_up_text(rows, prompt + response)

    def update() -> None:
        stages.microbatch(policy, ppo_config(rows), prompts, text)
        policy.zero_grad(set_to_none=True)

    return {
        "generate": torch.no_grad()(lambda: stages.generate(policy, prompts, response)),
        "logprobs": torch.no_grad()(lambda: policy.evaluate(prompts, *text)),
        "score": partial(reward_model.score, *whole),
        "credit": real_credit(reward_model, Players(rows, prompt, response, UNITS), memory_mib=MEMORY_MIB),
        "update": update,
    }


def real_credit(reward_model: SequenceRewardModel, players: Players, *, memory_mib: int) -> Callable[[], Any]:
    """The credit of random responses, by the fused scorer."""
    rollout = random_rollout(Workload("", "", players.prompt, players.response, players.units, players.batch))
    scorer, _ = make_scorer(
        reward_model, backend="fused", dtype="float32", memory_mib=memory_mib, device=torch.device("cpu")
    )
    game = TextGame(scorer, fill="space").batch(score(reward_model, rollout), random_units(rollout, players.units))
    return lambda: OwenEstimator(NO_LIMIT).estimate(game, np.random.default_rng(0))


@dataclass(frozen=True)
class Processor(Device):
    """A CPU, which starts an operation when the one before has ended. Weights come from its memory, the rest of small models
    from its caches, `cache_rate` bytes/s."""

    cache_rate: float = 0.0

    def seconds(self, cost: Cost) -> float:
        """Products, other traffic and starts, one after the other."""
        products = max(cost.flops / self.wide_rate, cost.product_bytes / self.memory_rate)
        return products + cost.other_bytes / self.cache_rate + cost.operations * self.start_seconds


def calibrate(width: int) -> Processor:
    """The rates of this machine at operations as large as those of a model of `width`."""
    tokens = ROWS * (PROMPT + RESPONSE)
    sizes = ((tokens, width), (width, 4 * width), (width, LARGE // width), (8,))
    x, weight, large, tiny = (torch.ones(size) for size in sizes)
    work = (lambda: x @ weight, lambda: x + x, lambda: x[:ROWS] @ large, lambda: tiny + tiny)
    product, near, far, start = map(_least_seconds, work)
    moved = 3 * x.numel() * x.itemsize
    return Processor(
        "this CPU",
        memory_bytes=0,
        narrow_rate=0,
        wide_rate=2 * tokens * width * 4 * width / product,
        memory_rate=large.numel() * large.itemsize / far,
        host_rate=0,
        start_seconds=start,
        cache_rate=moved / near,
    )


def _least_seconds(work: Callable[[], Any], *, calls: int = 20) -> float:
    return min(timed(lambda: [work() for _ in range(calls)])[0] for _ in range(REPEATS)) / calls


def measure(work: Callable[[], Any]) -> tuple[float, float]:
    """CPU seconds, and the MiB that PyTorch's profiler saw allocated at most."""
    work()  # the first call also pays for what is allocated once
    seconds = min(timed(work)[0] for _ in range(REPEATS))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    with tempfile.TemporaryDirectory() as folder:
        profiled.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(f"{folder}/trace.json").read_text(encoding="utf-8"))["traceEvents"]
    seen = [event["args"] for event in events if event.get("name") == "[memory]"]
    before = seen[0]["Total Allocated"] - seen[0]["Bytes"]  # the counter starts anew with the process only
    return seconds, (max(event["Total Allocated"] for event in seen) - before) / 2**20
