"""What one of several GPUs holds in each stage of an update, by part, with DeepSpeed ZeRO."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from scar.planning.estimate import Traced, activation_bytes, away
from scar.planning.models import count, largest_layer_bytes
from scar.planning.zero import Plan, gathered_bytes, state_bytes, streamed_bytes

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
