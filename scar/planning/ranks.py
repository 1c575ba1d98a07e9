"""What one of several GPUs holds at each stage of ZeRO: DeepSpeed's own estimate of what is trained, beside what the run's code was
traced to hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scar.engine.zero import reduce_bucket_numbers, state_bytes
from scar.planning.devices import NODE
from scar.planning.estimate import Estimate, Planner, Stage, Traced
from scar.planning.models import count, largest_layer
from scar.planning.runs import Run

WIDTH = 4
"""Bytes of a float32 number."""
NARROW = 2
"""Bytes of a weight in DeepSpeed's estimates, which are of 16-bit training."""


@dataclass(frozen=True)
class Zero:
    """ZeRO `stage` of policy and value function; `frozen`: reference policy and reward model sharded too
    (engine.frozen_zero_stage=3). `held`: bytes of a GPU by part, in the stage of the update that holds most, `largest`."""

    stage: int
    frozen: bool
    held: dict[str, float]
    largest: str

    @property
    def label(self) -> str:
        """For a table."""
        return f"{self.stage} + frozen" if self.frozen else str(self.stage)

    @property
    def peak_bytes(self) -> float:
        """All that a GPU holds."""
        return sum(self.held.values())


def plan_shared(
    planner: Planner, run: Run, gpus: int, *, offload_optimizer: bool = False, offload_parameters: bool = False
) -> tuple[Estimate, list[Zero]]:
    """`run` on `gpus` GPUs: the estimate of what one of them computes, and what it holds at each stage of ZeRO that the run allows.
    Needs DeepSpeed. ValueError when the run's rows cannot be shared."""
    traced = planner.trace(rank_run(run, gpus))
    estimate = _sharded_step(planner.price(traced), gpus)
    stages = (1, 2) if run.load.weights == "nf4" else (1, 2, 3)  # DeepSpeed cannot partition 4-bit weights
    offload = {"offload_optimizer": offload_optimizer, "offload_parameters": offload_parameters}
    cases = [*((stage, False) for stage in stages), (stages[-1], True)]
    return estimate, [_zero(traced, estimate, gpus, *case, offload) for case in cases]


def rank_run(run: Run, gpus: int) -> Run:
    """What one of `gpus` processes computes of a run: its share of every batch."""
    ppo, whole = run.ppo, run.ppo.minibatch_size
    if whole % gpus:
        raise ValueError(f"ppo.minibatch_size={whole} is not divisible by gpus={gpus}; set one of them")
    minibatch = whole // gpus
    micro = min(ppo.microbatch_size, minibatch)
    if minibatch % micro:
        raise ValueError(
            f"ppo.microbatch_size={ppo.microbatch_size} does not divide the {minibatch} rows of a minibatch that each of "
            f"{gpus} GPUs takes, which cannot be planned; set it to a divisor of {minibatch}"
        )
    shared = replace(ppo, batch_size=ppo.batch_size // gpus, minibatch_size=minibatch, microbatch_size=micro)
    return replace(run, ppo=shared, evaluation_rows=math.ceil(run.evaluation_rows / gpus))


def _sharded_step(estimate: Estimate, gpus: int) -> Estimate:
    """Adam works on a GPU's part of the parameters."""

    def share_of(stage: Stage) -> Stage:
        sizes = stage.held | {"activations": stage.held["activations"] / gpus}
        return replace(stage, cost=stage.cost.times(1 / gpus), seconds=stage.seconds / gpus, held=sizes)

    return replace(
        estimate, stages=[share_of(stage) if stage.name == "optimizer" else stage for stage in estimate.stages]
    )


def _zero(traced: Traced, estimate: Estimate, gpus: int, stage: int, frozen: bool, offload: dict[str, bool]) -> Zero:
    """The stage of the update, or the evaluation, in which a GPU holds most."""
    moments = {
        moment.name: _other_bytes(traced, moment, gpus, stage, frozen)
        for moment in (*estimate.stages, estimate.evaluation)
    }
    largest = max(moments, key=lambda name: sum(moments[name].values()))
    return Zero(stage, frozen, {"states": _states(traced, gpus, stage, offload)} | moments[largest], largest)


def _states(traced: Traced, gpus: int, stage: int, offload: dict[str, bool]) -> float:
    """Weights, gradients and optimizer of what is trained, at all times. DeepSpeed has no estimate of stage 1, which keeps whole
    gradients where stage 2 keeps a part."""
    trained, whole = count(traced.trained), traced.trained_bytes
    nodes = max(1, gpus // NODE)
    layer = largest_layer(traced.models.policy)
    states = state_bytes(max(stage, 2), trained, layer, gpus_a_node=gpus // nodes, nodes=nodes, **offload)
    wider = whole - NARROW * trained
    gradients = whole * (gpus - 1) / gpus if stage == 1 else 0.0
    return states + gradients + (wider / gpus if stage == 3 else wider)


def _other_bytes(traced: Traced, moment: Stage, gpus: int, stage: int, frozen: bool) -> dict[str, float]:
    """Bytes of the rest: `frozen` weights, `buffers` of DeepSpeed and of whole weights that are gathered, and activations."""
    weights, trained = traced.weights, count(traced.trained)
    waiting = moment.held["reference"] + moment.held["reward"]
    bucket = reduce_bucket_numbers()
    buffers: float = WIDTH * (bucket + min(bucket, trained))  # the bucket, and a copy of what is in it
    policy = weights["policy"] + weights["value"]
    untrained = (policy - traced.trained_bytes) / (gpus if stage == 3 else 1)
    if stage == 3 and moment.name in ("generate", "evaluation"):
        buffers += policy
    if frozen:
        waiting = (weights["reference"] + weights["reward"]) / gpus + weights["narrow"]
        buffers += weights["reward"] if moment.name == "credit" and traced.run.coalitions is not None else 0.0
    # Stages 2 and 3 reduce gradients as a pass makes them, so that what a pass holds has them.
    made_within = moment.name == "update" and stage > 1
    return {
        "frozen": untrained + waiting,
        "buffers": buffers,
        "activations": traced.costs["update"].peak_bytes if made_within else moment.held["activations"],
    }
