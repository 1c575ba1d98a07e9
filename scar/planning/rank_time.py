"""Seconds of each stage of an update on one of several GPUs: its own work, and what it exchanges with the others."""

from __future__ import annotations

import math
from collections.abc import Iterator

from scar.planning.devices import Device
from scar.planning.estimate import Traced, brought_bytes
from scar.planning.links import Network
from scar.planning.models import count
from scar.planning.zero import Plan, partition_bytes

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
