"""What to set when a run does not fit: each stage has its remedies, and each is planned before it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from scar.config import MemoryConfig
from scar.planning.devices import DEVICES
from scar.planning.estimate import Advice, Estimate, Planner, Stage, advise
from scar.planning.runs import Run
from scar.planning.tracing import Cost
from tests.planning.tiny import coalitions, tiny_run

SCAR = {"method": "scar", "needs": ("scorer", "estimator"), "units": "token"}


def made_up(run: Run) -> Estimate:
    """An estimate by simple rules: 100 bytes of policy, 50 each of reference and reward model, and what grows with the
    settings: 40 an episode in the update (a quarter if it computes twice), 10 in log-probabilities, 1 a row of an evaluation, a
    MiB or 5 a row in credit."""
    episodes, reward_rows = run.ppo.microbatch_size, min(run.models["reward"]["rows_a_batch"], run.ppo.batch_size)
    activations = {
        "generate": 5.0,
        "logprobs": 10.0 * episodes,
        "score": 2.0 * reward_rows,
        "credit": float(run.coalitions.memory_mib if run.coalitions else 5 * reward_rows * bool(run.needs)),
        "update": 40.0 * episodes / (4 if run.memory.gradient_checkpointing else 1),
        "optimizer": 0.0,
        "evaluation": 1.0 * run.evaluation_rows,
    }
    waiting = 0.0 if run.memory.offload else 50.0
    stages = [
        Stage(name, Cost(), 1.0, {"policy": 100.0, "others": 2 * waiting, "activations": size})
        for name, size in activations.items()
    ]
    return Estimate(run, {}, 0, 0.0, stages[:-1], stages[-1])


def changed(run: Run, settings: Mapping[str, str]) -> Run:
    """The run with settings of the command line."""
    for key, value in settings.items():
        if key.startswith("memory."):
            run = replace(run, memory=replace(run.memory, **{key.removeprefix("memory."): True}))
        elif key == "ppo.microbatch_size":
            run = replace(run, ppo=replace(run.ppo, microbatch_size=int(value)))
        elif key == "evaluation.batch_size":
            run = replace(run, evaluation_rows=int(value))
        elif key == "coalitions.memory_mib":
            assert run.coalitions is not None
            run = replace(run, coalitions=replace(run.coalitions, memory_mib=int(value)))
        else:
            assert key == "models.reward.rows_a_batch"
            run = replace(run, models=with_rows(run, int(value)))
    return run


def with_rows(run: Run, rows: int) -> dict[str, Any]:
    return {**run.models, "reward": {**run.models["reward"], "rows_a_batch": rows}}


def advice(run: Run, *, allowed: float) -> Advice:
    device = replace(DEVICES["a100-80gb"], memory_bytes=allowed, reserve=0.0)
    return advise(made_up(run), device, lambda settings: made_up(changed(run, settings)))


def large(**changes: Any) -> Run:
    """12 episodes at once."""
    run = tiny_run(**changes)
    return replace(run, ppo=replace(run.ppo, batch_size=12, minibatch_size=12, microbatch_size=12))


def test_activations_of_the_update_are_computed_twice() -> None:
    found = advice(large(), allowed=200 + 479)
    assert found.settings == {"memory.gradient_checkpointing": "true"}
    assert found.estimate.largest.peak_bytes == 200 + 120


def test_then_fewer_episodes_go_at_once() -> None:
    found = advice(large(), allowed=200 + 45)
    # 120 of log-probabilities and update with 12 episodes; 60 with 6; 40 with 4, which divides 12 as 5 does not.
    assert found.settings == {"memory.gradient_checkpointing": "true", "ppo.microbatch_size": "4"}
    assert found.estimate.largest.peak_bytes == 200 + 40


def test_a_large_evaluation_is_made_smaller_but_not_than_training() -> None:
    run = large(evaluation_rows=1000, memory=MemoryConfig(gradient_checkpointing=True, offload=False))
    assert advice(run, allowed=200 + 300).settings == {"evaluation.batch_size": "250"}
    assert advice(run, allowed=200 + 130).settings == {"evaluation.batch_size": "125"}


def test_coalitions_get_less() -> None:
    run = tiny_run(**SCAR, coalitions=coalitions(memory_mib=8192))
    assert advice(run, allowed=200 + 3000).settings == {"coalitions.memory_mib": "2048"}


def test_the_reward_model_reads_fewer_rows() -> None:
    run = large(method="abc", needs=("reward_model",))
    run = replace(run, ppo=replace(run.ppo, microbatch_size=1), models=with_rows(run, 64))  # 12 are all that there are
    assert advice(run, allowed=200 + 50).settings == {"models.reward.rows_a_batch": "6"}


def test_a_narrower_copy_cannot_be_offloaded() -> None:
    found = advice(tiny_run(**SCAR, coalitions=coalitions(dtype="bfloat16", memory_mib=1)), allowed=90)
    assert "memory.offload" not in found.settings


@pytest.mark.slow
def test_advice_about_a_traced_run() -> None:
    run = tiny_run(prompt_tokens=(100, 100))
    run = replace(run, ppo=replace(run.ppo, microbatch_size=4))
    planner = Planner(DEVICES["a100-80gb"])
    before = planner.estimate(run)
    assert before.largest.name == "update"
    limit = 0.95 * before.largest.peak_bytes
    device = replace(planner.device, memory_bytes=limit, reserve=0.0)
    found = advise(before, device, lambda settings: planner.estimate(changed(run, settings)))
    assert found.settings == {"memory.gradient_checkpointing": "true"}
    assert found.estimate.largest.peak_bytes < limit
