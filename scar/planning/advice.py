"""What to set when a run does not fit: the remedy of the stage that holds most, again and again, each checked by planning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scar.planning.devices import Device
from scar.planning.estimate import Estimate

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
