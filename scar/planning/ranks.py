"""What a run takes on several GPUs with DeepSpeed ZeRO: a rank's memory and seconds at every stage of ZeRO, from one trace of
a rank's rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scar.planning.devices import Device
from scar.planning.estimate import ORDER, Estimate, Planner, Stage, Traced
from scar.planning.links import Network
from scar.planning.models import Models, count
from scar.planning.rank_memory import RankMemory
from scar.planning.rank_time import RankTime
from scar.planning.runs import Run
from scar.planning.stages import update_costs
from scar.planning.tracing import fake_tensors
from scar.planning.zero import Plan


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
