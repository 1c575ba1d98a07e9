"""What one run takes: memory by part, and FLOPs and seconds by stage, traced from the code that the run would execute."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

from torch import nn

from scar.models.precision import FLOATS
from scar.planning.credit import Players, credit_cost
from scar.planning.devices import Device
from scar.planning.models import Held, Models, count, fake_models, held_bytes, policy_shape, reward_shape
from scar.planning.runs import Run
from scar.planning.tracing import Cost, evaluation_cost, fake_tensors, generation_cost, reading_cost, update_costs
from scar.segmentation.hierarchies import balanced_hierarchy, coalition_count

ADAM_NUMBERS = 2
"""Running means of gradients and of their squares."""
ON_DEVICE = {"reference": ("generate", "logprobs", "evaluation"), "reward": ("score", "credit", "evaluation")}
BROUGHT = {"reference": ("generate",), "reward": ("score", "credit")}
"""With memory.offload: the stages of an update in which a model is on the device, and before which it is brought there
(scar/commands/build.py)."""
ORDER = ("generate", "logprobs", "score", "credit", "update", "optimizer")
"""The stages of an update."""
SHAP_EVALUATIONS = 500
"""The shap package's default `max_evals`, above which its PartitionExplainer goes no deeper."""


@dataclass(frozen=True)
class Stage:
    """A stage of an update: what it costs in all, its seconds, and the bytes that it holds by part."""

    name: str
    cost: Cost
    seconds: float
    held: dict[str, float]

    @property
    def peak_bytes(self) -> float:
        """The most it holds."""
        return sum(self.held.values())


@dataclass(frozen=True)
class Estimate:
    """What a run takes. `parameters` of each model, `trained` of them; `coalitions` scored per response; `stages` of an
    update, in order, and that of the evaluation, which counts for memory only."""

    run: Run
    parameters: dict[str, int]
    trained: int
    coalitions: float
    stages: list[Stage]
    evaluation: Stage

    @property
    def largest(self) -> Stage:
        """The stage that holds most."""
        return max((*self.stages, self.evaluation), key=lambda stage: stage.peak_bytes)

    @property
    def update_seconds(self) -> float:
        """Of one update."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def hours(self) -> float:
        """Of training, as records count device-hours (docs/decisions.md#gpu-hours)."""
        return self.update_seconds * self.run.ppo.updates / 3600

    def tflop(self, *names: str) -> float:
        """10^12 FLOPs of an update in the stages `names`, or in all."""
        return sum(stage.cost.flops for stage in self.stages if not names or stage.name in names) / 1e12


@dataclass(frozen=True)
class Traced:
    """A run with its models and what its stages cost, "evaluation" among them; `coalitions` scored per response."""

    run: Run
    models: Models
    costs: dict[str, Cost]
    coalitions: float

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that an optimizer gets."""
        return [parameter for parameter in self.models.policy.parameters() if parameter.requires_grad]

    @property
    def trained_bytes(self) -> float:
        """Of those parameters, and of their gradients."""
        return sum(parameter.numel() * parameter.itemsize for parameter in self.trained)

    @property
    def parameters(self) -> dict[str, int]:
        """How many numbers policy and reward model have."""
        return {
            "policy": count(self.models.policy.model.parameters()),
            "reward": count(self.models.reward_model.parameters()),
        }

    @property
    def weights(self) -> dict[str, float]:
        """Bytes of the models that wait on the device; `narrow`: a copy of the reward model that scores coalitions."""
        policy, trunk = self.models.policy, self.models.reward_model.model.base_model
        narrow = 0.0
        if self.run.coalitions is not None:
            width = FLOATS[self.run.coalitions.dtype].itemsize
            narrow = count(trunk.parameters()) * width if width < next(trunk.parameters()).itemsize else 0.0
        return {
            "policy": held_bytes(policy.model),
            "value": held_bytes(policy.value_trunk, policy.value_head),
            "reference": 0.0 if self.models.reference.shares_weights else held_bytes(self.models.reference),
            "reward": held_bytes(self.models.reward_model),
            "narrow": narrow,
        }


def away(run: Run, stage: str) -> list[str]:
    """The models that are in the host's memory in a stage."""
    return [model for model, stages in ON_DEVICE.items() if run.memory.offload and stage not in stages]


def brought_bytes(run: Run, stage: str, weights: dict[str, float]) -> float:
    """Of the models that are brought from there for a stage of an update."""
    return sum(weights[model] for model, stages in BROUGHT.items() if run.memory.offload and stage in stages)


@dataclass(frozen=True)
class _Shared:
    """What all methods of a task have in common."""

    models: Models
    costs: dict[str, Cost]


class Planner:
    """Estimates runs on a device; what runs have in common is traced once."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._shared: dict[str, _Shared] = {}

    def estimate(self, run: Run) -> Estimate:
        """What `run` takes."""
        return self.price(self.trace(run))

    def price(self, traced: Traced) -> Estimate:
        """What a traced run takes on the device."""
        weights = traced.weights
        weights["reward"] += weights.pop("narrow")
        stages = {name: self._stage(traced, name, weights) for name in traced.costs}
        numbers = traced.parameters, count(traced.trained), traced.coalitions
        return Estimate(traced.run, *numbers, [stages[name] for name in ORDER], stages["evaluation"])

    def as_shap(self, estimate: Estimate) -> dict[str, Estimate]:
        """A run on token units as the shap package would compute its credit, by a label: cut off at its default, and all Owen
        values of a balanced tree, of the usual and of the longest response.

        Every coalition is read as a whole text, and a batch's texts together; shap reads one response's, a few at a time, so
        this is the least that it takes.
        """
        run = estimate.run
        prompt, usual = run.usual
        every = {tokens: coalition_count(balanced_hierarchy(tokens)) for tokens in (usual, run.longest[1])}
        cut = min(SHAP_EVALUATIONS, every[usual])
        found = {f"shap, {cut} at most": self._of_whole_texts(estimate, prompt + usual, cut)}
        return found | {
            f"shap, all of {tokens} tokens": self._of_whole_texts(estimate, prompt + tokens, count)
            for tokens, count in every.items()
        }

    def _of_whole_texts(self, estimate: Estimate, length: int, coalitions: int) -> Estimate:
        run = estimate.run
        with fake_tensors():
            score = self._share(run).models.reward_model.score
            cost = reading_cost(score, rows=run.ppo.batch_size, length=length).times(coalitions)
        seconds = self.device.seconds(cost)
        stages = [
            replace(stage, cost=cost, seconds=seconds) if stage.name == "credit" else stage for stage in estimate.stages
        ]
        return replace(estimate, coalitions=coalitions, stages=stages)

    def trace(self, run: Run) -> Traced:
        """The costs of `run` in one process."""
        with fake_tensors():
            shared = self._share(run)
            credit, coalitions = self._credit(run, shared.models)
        return Traced(run, shared.models, shared.costs | {"credit": credit}, coalitions)

    def _share(self, run: Run) -> _Shared:
        settings = [run.models, asdict(run.load), asdict(run.ppo), asdict(run.memory), run.longest, run.evaluation_rows]
        key = json.dumps(settings, sort_keys=True, default=str)
        if key not in self._shared:
            models = _models(run)
            self._shared[key] = _Shared(models, _shared_costs(run, models))
        return self._shared[key]

    def _credit(self, run: Run, models: Models) -> tuple[Cost, float]:
        rows, length = run.ppo.batch_size, sum(run.longest)
        if run.coalitions is not None:
            players = Players(rows, *run.usual, run.unit_count)
            memory_bytes = run.coalitions.memory_mib * 2**20
            credit = credit_cost(
                models.reward_model,
                run.coalitions.estimator,
                players,
                memory_bytes=memory_bytes,
                gpu=True,
                fill=run.coalitions.fill,
            )
            return replace(credit.cost, peak_bytes=memory_bytes if credit.coalitions else 0), credit.coalitions
        read = models.reward_model.last_layer_attention if run.method == "abc" else models.reward_model.score_prefixes
        return (reading_cost(read, rows=rows, length=length) if "reward_model" in run.needs else Cost()), 0.0

    def _stage(self, traced: Traced, name: str, weights: dict[str, float]) -> Stage:
        run, cost, trained_bytes = traced.run, traced.costs[name], traced.trained_bytes
        learning = name in ("update", "optimizer")
        sizes = weights | dict.fromkeys(away(run, name), 0.0) | {"optimizer": ADAM_NUMBERS * trained_bytes}
        sizes |= {"gradients": trained_bytes if learning else 0.0, "activations": activation_bytes(traced, name)}
        moving = 2 * self.device.transfer_seconds(brought_bytes(run, name, weights))
        return Stage(name, cost, self.device.seconds(cost) + moving, sizes)


def activation_bytes(traced: Traced, stage: str) -> float:
    """The most that a stage holds beside models, optimizer and gradients."""
    ppo, peak = traced.run.ppo, traced.costs[stage].peak_bytes
    # The gradients of a minibatch of one pass are made within it, so its peak has them already.
    made = traced.trained_bytes if stage == "update" and ppo.minibatch_size == ppo.microbatch_size else 0.0
    return max(peak - made, 0.0)


def _models(run: Run) -> Models:
    reward = run.models["reward"]
    settings = Held(
        run.load,
        run.ppo.value_net,
        run.memory.gradient_checkpointing,
        reward.get("weights", "float32"),
        reward["rows_a_batch"],
    )
    return fake_models(policy_shape(run.models), reward_shape(run.models), settings)


def _shared_costs(run: Run, models: Models) -> dict[str, Cost]:
    """Of the stages that no method changes. Batches are padded to their longest row, which is taken to be the longest
    allowed."""
    (prompt, response), ppo = run.longest, run.ppo
    lengths = {"prompt": prompt, "response": response}
    generation = generation_cost(models.policy, rows=ppo.batch_size, **lengths)
    old, reference = (
        evaluation_cost(policy, rows=ppo.batch_size, rows_a_pass=ppo.microbatch_size, **lengths)
        for policy in (models.policy, models.reference)
    )
    score = partial(reading_cost, models.reward_model.score, length=prompt + response)
    update, optimizer = update_costs(models.policy, ppo, **lengths)
    larger = run.evaluation_rows / ppo.batch_size  # keys and values, logits and activations all grow with the rows
    judged = generation.times(larger), score(rows=min(run.evaluation_rows, models.reward_model.rows_a_batch))
    return {
        "generate": generation,
        "logprobs": old + reference,
        "score": score(rows=ppo.batch_size),
        "update": update,
        "optimizer": optimizer,
        "evaluation": replace(
            judged[0], peak_bytes=max(generation.peak_bytes * larger, judged[1].peak_bytes, old.peak_bytes)
        ),
    }


# What to set when a run does not fit: the remedy of the stage that holds most, again and again, each checked by planning.


Replan = Callable[[dict[str, str]], Estimate]
"""The estimate of the same run with some settings changed."""


@dataclass(frozen=True)
class Advice:
    """`settings` to give on the command line and the estimate with them; it may still not fit."""

    settings: dict[str, str]
    estimate: Estimate


def advise(estimate: Estimate, device: Device, replan: Replan) -> Advice:
    """Settings that make a run fit, as few as the stages ask for. None of them changes a result but for rounding, except
    `evaluation.batch_size`, which changes the evaluation's draws."""
    settings: dict[str, str] = {}
    while estimate.largest.peak_bytes > device.usable_bytes:
        remedy = _remedy(estimate)
        if remedy is None:
            break
        settings |= remedy
        estimate = replan(settings)
    return Advice(settings, estimate)


def _remedy(estimate: Estimate) -> dict[str, str] | None:
    run, stage = estimate.run, estimate.largest.name
    rows, reward_rows = run.ppo.microbatch_size, min(run.models["reward"]["rows_a_batch"], run.ppo.batch_size)
    if stage == "update" and not run.memory.gradient_checkpointing:
        return {"memory.gradient_checkpointing": "true"}
    if stage in ("update", "logprobs") and rows > 1:
        return {"ppo.microbatch_size": str(_smaller_divisor(run.ppo.minibatch_size, rows))}
    if stage == "evaluation" and run.evaluation_rows > run.ppo.batch_size:
        return {"evaluation.batch_size": str(max(run.evaluation_rows // 2, run.ppo.batch_size))}
    if stage == "credit" and run.coalitions is not None and run.coalitions.memory_mib > 512:
        return {"coalitions.memory_mib": str(run.coalitions.memory_mib // 2)}
    if stage in ("score", "credit", "evaluation") and reward_rows > 1 and run.coalitions is None:
        return {"models.reward.rows_a_batch": str(reward_rows // 2)}
    narrow = run.coalitions is not None and run.coalitions.dtype != "float32"
    return None if run.memory.offload or narrow else {"memory.offload": "true"}


def _smaller_divisor(number: int, below: int) -> int:
    return max(d for d in range(1, below) if number % d == 0)
