"""What DeepSpeed's ZeRO holds on each rank, in bytes, as its source does it (deepspeed/runtime/zero, 0.19: stage_1_and_2.py,
stage3.py) for parameters in float32 with torch's AdamW. Pure arithmetic.

n trained numbers on W ranks; the master copy is made though the parameters are float32, at every stage:

| stage | parameters | master | Adam's means | gradients | bucket |
| --- | --- | --- | --- | --- | --- |
| 1 | whole | 4n/W | 8n/W | 4n, reduced when the last backward pass of a step has ended | in the update |
| 2 | whole | 4n/W | 8n/W | 4n/W, twice where a step has several passes | in the update |
| 3 | 1/W | 4n/W | 8n/W | 4n/W, always | always |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
