"""What a run takes on several GPUs with DeepSpeed ZeRO: a rank's memory and seconds at every stage of ZeRO, from one trace of
a rank's rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from scar.planning.devices import Device, Network
from scar.planning.estimate import ORDER, Estimate, Planner, Stage, Traced, activation_bytes, away, brought_bytes
from scar.planning.models import Models, count, largest_layer_bytes
from scar.planning.runs import Run
from scar.planning.tracing import fake_tensors, update_costs

# What DeepSpeed's ZeRO holds on each rank, in bytes, as its source does it (deepspeed/runtime/zero, 0.19: stage_1_and_2.py,
# stage3.py) for parameters in float32 with torch's AdamW. Pure arithmetic.
#
# n trained numbers on W ranks; the master copy is made though the parameters are float32, at every stage:
#
# | stage | parameters | master | Adam's means | gradients | bucket |
# | --- | --- | --- | --- | --- | --- |
# | 1 | whole | 4n/W | 8n/W | 4n, reduced when the last backward pass of a step has ended | in the update |
# | 2 | whole | 4n/W | 8n/W | 4n/W, twice where a step has several passes | in the update |
# | 3 | 1/W | 4n/W | 8n/W | 4n/W, always | always |


WIDTH = 4
"""Bytes of a float32 number."""
REDUCE_BUCKET, REUSE_DISTANCE, PREFETCH_BUCKET = 500_000_000, 1_000_000_000, 50_000_000
"""Numbers; the defaults of zero_optimization's reduce_bucket_size, stage3_max_reuse_distance, stage3_prefetch_bucket_size."""


@dataclass(frozen=True)
class Plan:
    """ZeRO `stage` of policy and value function on `ranks` GPUs; `frozen_stage` of reference policy and reward model: 0 (whole
    on every rank) or 3 (sharded); what waits in the host's memory. ValueError for what DeepSpeed does not have."""

    ranks: int
    stage: int
    frozen_stage: int = 0
    offload_optimizer: bool = False
    offload_parameters: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("stage", (1, 2, 3)), ("frozen_stage", (0, 3))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)}; allowed: {', '.join(map(str, allowed))}")
        if self.offload_parameters and self.stage != 3:
            raise ValueError(f"engine.offload_parameters=true at stage {self.stage}; allowed: stage 3 only")

    @property
    def label(self) -> str:
        """For a table."""
        return f"{self.stage} + frozen" if self.frozen_stage else str(self.stage)

    def refusal(self, weights: str) -> str | None:
        """Why policy weights of the type `weights` cannot be held so, if they cannot."""
        if self.stage < 3 or weights != "nf4":
            return None
        return (
            "stage 3 with models.policy.load.weights=nf4; allowed: stage 1 or 2 "
            "(DeepSpeed cannot partition the 4-bit weights of bitsandbytes)"
        )


@dataclass(frozen=True)
class State:
    """Bytes on a rank's GPU. `gradients` are all that there are in the update; `bucket` collects them to be reduced, and
    `bucket_copy` is what the reduction makes of a full one. `always`: gradients and bucket stay between updates."""

    parameters: float
    master: float
    moments: float
    gradients: float
    bucket: float
    bucket_copy: float
    always: bool

    @property
    def in_update(self) -> float:
        """Parameters, optimizer and gradients, without buckets."""
        return self.parameters + self.master + self.moments + self.gradients

    @property
    def at_rest(self) -> float:
        """All that there is between updates."""
        return self.parameters + self.master + self.moments + (self.gradients + self.bucket if self.always else 0.0)


def state_bytes(parameter_bytes: float, trained: int, plan: Plan, *, passes: int = 1) -> State:
    """What a rank holds of a model of `parameter_bytes` (4 a float32 number), `trained` numbers of which are trained, `passes`
    backward passes an optimizer step. Padding, and parameters of fewer than 10^5 numbers, which stage 3 keeps whole, are left
    out."""
    part = partition_bytes(trained, plan.ranks)
    on_device = 0 if plan.offload_optimizer else 1
    if plan.stage == 1:
        gradients: float = WIDTH * trained
    else:
        gradients = part * on_device * (2 if plan.stage == 2 and passes > 1 else 1)
    return State(
        parameters=_share(parameter_bytes, plan),
        master=part * on_device,
        moments=2 * part * on_device,
        gradients=gradients,
        bucket=WIDTH * REDUCE_BUCKET,
        bucket_copy=WIDTH * min(REDUCE_BUCKET, trained),
        always=plan.stage == 3,
    )


def partition_bytes(trained: int, ranks: int) -> int:
    """Of a rank's part of the trained parameters in float32."""
    return WIDTH * math.ceil(trained / ranks)


def _share(parameter_bytes: float, plan: Plan) -> float:
    if plan.stage < 3:
        return parameter_bytes
    return 0.0 if plan.offload_parameters else parameter_bytes / plan.ranks


def gathered_bytes(parameter_bytes: float, largest_layer: float) -> float:
    """Of a trained model at stage 3, the parameters that are gathered at once: the layer in use, those fetched ahead, and those
    whose backward pass comes within the reuse distance, half of which lies before it."""
    return min(parameter_bytes, largest_layer + WIDTH * (PREFETCH_BUCKET + REUSE_DISTANCE / 2))


def streamed_bytes(parameter_bytes: float, largest_layer: float, width: int) -> float:
    """The same of a frozen model, whose parameters of `width` bytes are used once a pass."""
    return min(parameter_bytes, largest_layer + width * PREFETCH_BUCKET)


@dataclass(frozen=True)
class Shared:
    """A run on several GPUs: for each plan the estimate of one of them; `refused`: why there are no other plans."""

    run: Run
    parameters: dict[str, int]
    plans: list[tuple[Plan, Estimate]]
    refused: str | None

    def fitting(self, device: Device) -> list[tuple[Plan, Estimate]]:
        """The plans that fit."""
        return [(plan, found) for plan, found in self.plans if found.largest.peak_bytes <= device.usable_bytes]

    def fits(self, device: Device) -> bool:
        """Whether one plan at least does."""
        return bool(self.fitting(device))


class RankPlanner:
    """Plans runs on the GPUs of `network`; what runs have in common is traced once. `offload`: see Plan."""

    def __init__(self, planner: Planner, network: Network, **offload: bool) -> None:
        self._planner, self._network, self._offload = planner, network, offload
        self._bare: dict[Models, float] = {}

    def plan(self, run: Run) -> Shared:
        """`run` at every stage of ZeRO. ValueError when its rows cannot be shared."""
        ranks = self._network.ranks
        traced = self._planner.trace(rank_run(run, ranks))
        plans, refused = possible_plans(run.load.weights, ranks, **self._offload)
        return Shared(run, traced.parameters, [(plan, self._estimate(traced, plan)) for plan in plans], refused)

    def _estimate(self, traced: Traced, plan: Plan) -> Estimate:
        memory, time = RankMemory(traced, plan), RankTime(traced, plan, self._network, self._planner.device)
        bare = self._bare_update_bytes(traced)
        stages = {
            name: Stage(name, cost, time.seconds(name), memory.held(name, bare)) for name, cost in traced.costs.items()
        }
        numbers = traced.parameters, count(traced.trained), traced.coalitions
        return Estimate(traced.run, *numbers, [stages[name] for name in ORDER], stages["evaluation"])

    def _bare_update_bytes(self, traced: Traced) -> float:
        """What a backward pass holds beside gradients, where those are not made within it."""
        ppo = traced.run.ppo
        if ppo.minibatch_size > ppo.microbatch_size:
            return traced.costs["update"].peak_bytes
        if traced.models not in self._bare:
            (prompt, response), rows = traced.run.longest, ppo.microbatch_size
            twice = replace(ppo, batch_size=2 * rows, minibatch_size=2 * rows, ppo_epochs=1)
            with fake_tensors():
                cost, _ = update_costs(traced.models.policy, twice, prompt=prompt, response=response)
            self._bare[traced.models] = cost.peak_bytes
        return self._bare[traced.models]


def rank_run(run: Run, ranks: int) -> Run:
    """What one of `ranks` processes computes of a run: its share of every batch."""
    ppo, whole = run.ppo, run.ppo.minibatch_size
    if whole % ranks:
        raise ValueError(f"ppo.minibatch_size={whole} is not divisible by gpus={ranks}; set one of them")
    part = whole // ranks
    micro = min(ppo.microbatch_size, part)
    if part % micro:
        raise ValueError(
            f"ppo.microbatch_size={ppo.microbatch_size} does not divide the {part} rows of a minibatch that each of "
            f"{ranks} GPUs takes, which cannot be planned; set it to a divisor of {part}"
        )
    shared = replace(ppo, batch_size=ppo.batch_size // ranks, minibatch_size=part, microbatch_size=micro)
    return replace(run, ppo=shared, evaluation_rows=math.ceil(run.evaluation_rows / ranks))


def possible_plans(
    weights: str, ranks: int, *, offload_optimizer: bool = False, offload_parameters: bool = False
) -> tuple[list[Plan], str | None]:
    """Every stage that policy weights of the type `weights` allow, then the last of them with frozen models sharded as well;
    why there are no others."""
    plans = [Plan(ranks, stage, 0, offload_optimizer, offload_parameters and stage == 3) for stage in (1, 2, 3)]
    allowed = [plan for plan in plans if plan.refusal(weights) is None]
    return [*allowed, replace(allowed[-1], frozen_stage=3)], plans[-1].refusal(weights)


# What one of several GPUs holds in each stage of an update, by part, with DeepSpeed ZeRO.


Held = dict[str, float]
"""Bytes of weights, buffers (gathered parameters, and DeepSpeed's bucket of gradients), gradients, optimizer (the master copy
too) and activations."""


class RankMemory:
    """A rank of `plan`, whose own rows are in `traced`."""

    def __init__(self, traced: Traced, plan: Plan) -> None:
        self._traced, self._plan, self._run, self._weights = traced, plan, traced.run, traced.weights
        passes = traced.run.ppo.minibatch_size // traced.run.ppo.microbatch_size
        self._policy_bytes = self._weights["policy"] + self._weights["value"]
        self._state = state_bytes(self._policy_bytes, count(traced.trained), plan, passes=passes)

    def held(self, stage: str, bare_update_bytes: float) -> Held:
        """Bytes by part, at the moment of a stage at which they are most. `bare_update_bytes`: what a backward pass holds
        beside gradients."""
        state, peak = self._state, self._traced.costs[stage].peak_bytes
        held = {
            "weights": state.parameters + sum(self._frozen(stage)),
            "buffers": self._gathered(stage) + self._streamed(stage) + (state.bucket if state.always else 0.0),
            "gradients": state.gradients if state.always else 0.0,
            "optimizer": state.master + state.moments,
            "activations": peak,
        }
        if stage == "optimizer":
            return held | self._step(peak)
        if stage == "update":
            return max(self._update(held, bare_update_bytes), key=lambda moment: sum(moment.values()))
        return held

    def _step(self, peak: float) -> Held:
        """This rank's part of the gradients is copied once more, then Adam works on it."""
        own = 0.0 if self._plan.offload_optimizer else 1.0
        return {"gradients": 2 * self._state.master, "activations": own * peak / self._plan.ranks}

    def _update(self, held: Held, bare_update_bytes: float) -> Iterator[Held]:
        state, buffers = self._state, held["buffers"] + (0.0 if self._state.always else self._state.bucket)
        reducing = held | {"buffers": buffers + state.bucket_copy}
        if self._plan.stage > 1:  # gradients are reduced in the backward pass
            activations = min(bare_update_bytes, self._most_while_reducing())
            yield reducing | {"gradients": state.gradients, "activations": activations}
            return
        activations = activation_bytes(self._traced, "update")
        yield held | {"buffers": buffers, "gradients": state.gradients, "activations": activations}
        # After the pass: one bucket took the place of its gradients and is copied, and this rank's part is put aside.
        gradients = state.gradients - state.bucket_copy + state.master
        yield reducing | {"gradients": gradients, "activations": 0.0}

    def _most_while_reducing(self) -> float:
        """A bound on activations at stages 2 and 3 when a minibatch is one pass: that pass is known with whole gradients, of
        which as many are made as the buckets took; stage 2 has put its part aside before it fills the second."""
        ppo, copied = self._run.ppo, self._state.bucket_copy
        if ppo.minibatch_size > ppo.microbatch_size:
            return math.inf
        aside = min(self._state.gradients, copied) if self._plan.stage == 2 else 0.0
        return max(self._traced.costs["update"].peak_bytes - copied - aside, 0.0)

    def _frozen(self, stage: str) -> Iterator[float]:
        yield self._weights["narrow"]
        for model in ("reference", "reward"):
            if self._plan.frozen_stage:
                yield self._weights[model] / self._plan.ranks
            elif model not in away(self._run, stage):
                yield self._weights[model]

    def _gathered(self, stage: str) -> float:
        """Parameters of policy and value function that are gathered at stage 3: all to sample, else those of some layers."""
        if self._plan.stage < 3:
            return 0.0
        if stage in ("generate", "evaluation"):
            return self._policy_bytes
        some = gathered_bytes(self._policy_bytes, largest_layer_bytes(self._traced.models.policy))
        return some if stage in ("logprobs", "update") else 0.0

    def _streamed(self, stage: str) -> float:
        """Parameters of sharded frozen models that are gathered: all of the reward model to score coalitions, else those of a
        layer and the next."""
        if not self._plan.frozen_stage:
            return 0.0
        if stage == "credit" and self._run.coalitions is not None:
            return self._weights["reward"]
        models = {"reference": self._traced.models.reference, "reward": self._traced.models.reward_model.model}
        used = {
            "logprobs": ["reference"],
            "score": ["reward"],
            "credit": ["reward"] if "reward_model" in self._run.needs else [],
            "evaluation": ["reference", "reward"],  # one after the other
        }
        return max((_stream(self._weights[model], models[model]) for model in used.get(stage, [])), default=0.0)


def _stream(size: float, model: nn.Module) -> float:
    width = max(parameter.itemsize for parameter in model.parameters())
    return streamed_bytes(size, largest_layer_bytes(model), width)


# Seconds of each stage of an update on one of several GPUs: its own work, and what it exchanges with the others.


ADAM_NUMBERS = 7
"""Float32 numbers that Adam reads and writes for each trained one: the gradient once, master copy and two means twice."""


class RankTime:
    """A rank of `plan`, whose own rows are in `traced`."""

    def __init__(self, traced: Traced, plan: Plan, network: Network, device: Device) -> None:
        self._traced, self._plan, self._network, self._device = traced, plan, network, device
        self._run, self._weights, ppo = traced.run, traced.weights, traced.run.ppo
        self._policy_bytes = self._weights["policy"] + self._weights["value"]
        self._steps = ppo.ppo_epochs * ppo.batch_size // ppo.minibatch_size
        self._passes = self._steps * ppo.minibatch_size // ppo.microbatch_size

    def seconds(self, stage: str) -> float:
        """All that a stage takes; nothing of it at the same time."""
        moved = 0.0 if self._plan.frozen_stage else brought_bytes(self._run, stage, self._weights)
        exchange = self._exchange_gradients(stage) + self._gather_policy(stage) + sum(self._gather_frozen(stage))
        return self._work(stage) + exchange + 2 * self._device.transfer_seconds(moved)

    def _work(self, stage: str) -> float:
        cost = self._traced.costs[stage]
        if stage != "optimizer":
            return self._device.seconds(cost)
        if not self._plan.offload_optimizer:
            return self._device.seconds(cost.times(1 / self._plan.ranks))
        # Gradients to the host, Adam there (its memory is taken to be as fast as the link to it), parameters back.
        part = partition_bytes(count(self._traced.trained), self._plan.ranks)
        return self._steps * self._device.transfer_seconds((2 + ADAM_NUMBERS) * part)

    def _exchange_gradients(self, stage: str) -> float:
        """Stages 1 and 2 reduce them to every rank, at each step or at each pass, and gather the new parameters; stage 3 reduces
        them to the ranks that own them."""
        size, network = self._traced.trained_bytes, self._network
        if stage == "update":
            if self._plan.stage == 3:
                return self._passes * network.gather_seconds(size)
            return (self._steps if self._plan.stage == 1 else self._passes) * network.reduce_seconds(size)
        gathered = stage == "optimizer" and self._plan.stage < 3
        return self._steps * network.gather_seconds(size) if gathered else 0.0

    def _gather_policy(self, stage: str) -> float:
        """At stage 3: once to sample, and in every forward and every backward pass."""
        if self._plan.stage < 3:
            return 0.0
        uses = {"generate": 1, "logprobs": self._reading_passes, "update": 2 * self._passes}.get(stage, 0)
        fetched = self._policy_bytes / self._plan.ranks if self._plan.offload_parameters else 0.0
        once = self._network.gather_seconds(self._policy_bytes) + self._device.transfer_seconds(fetched)
        return uses * once

    def _gather_frozen(self, stage: str) -> Iterator[float]:
        """Of sharded frozen models: in every forward pass, and once to score coalitions."""
        if not self._plan.frozen_stage:
            return
        gather, rows_a_batch = self._network.gather_seconds, self._traced.models.reward_model.rows_a_batch
        readings = math.ceil(self._run.ppo.batch_size / rows_a_batch)
        if stage == "logprobs":
            yield self._reading_passes * gather(self._weights["reference"])
        if stage == "score" or (stage == "credit" and "reward_model" in self._run.needs):
            yield readings * gather(self._weights["reward"])
        if stage == "credit" and self._run.coalitions is not None:
            yield gather(self._weights["reward"])

    @property
    def _reading_passes(self) -> int:
        return self._run.ppo.batch_size // self._run.ppo.microbatch_size
