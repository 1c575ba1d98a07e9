"""A rank's seconds, by hand: links of 1,000 bytes/s and costs that take no time of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scar.config import MemoryConfig
from scar.planning.devices import DEVICES, Network
from scar.planning.estimate import Planner, Traced
from scar.planning.ranks import Plan, RankTime
from scar.planning.tracing import Cost
from tests.planning.test_estimate import POLICY, SCAR
from tests.planning.tiny import coalitions, tiny_run

DEVICE = replace(DEVICES["a100-80gb"], host_rate=500.0)
STAGES = ("generate", "logprobs", "score", "credit", "update", "optimizer", "evaluation")
WHOLE, REFERENCE, REWARD = 4 * (POLICY + 33), 4 * POLICY, 4 * (POLICY + 32)
STEPS, PASSES = 4, 8
"""4 epochs of 4 rows, 2 at a time."""


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(DEVICE)


@pytest.fixture(scope="module")
def traced(planner: Planner) -> Traced:
    found = planner.trace(tiny_run())
    return replace(found, costs=dict.fromkeys(STAGES, Cost()))


def seconds(traced: Traced, stage: int, **changes: object) -> dict[str, float]:
    """Of the stages that take time, in whole models of float32 that a link of 1,000 bytes/s carries; 2 ranks send a half."""
    time = RankTime(traced, Plan(2, stage, **changes), Network(2, 1000.0), DEVICE)
    return {name: found for name in STAGES if (found := time.seconds(name))}


def test_gradients_are_reduced_at_each_step_or_each_pass(traced: Traced) -> None:
    assert seconds(traced, 1) == {"update": STEPS * WHOLE / 1000, "optimizer": STEPS * WHOLE / 2000}
    assert seconds(traced, 2) == {"update": PASSES * WHOLE / 1000, "optimizer": STEPS * WHOLE / 2000}


def test_stage_3_gathers_parameters_in_every_pass(traced: Traced) -> None:
    assert seconds(traced, 3) == {
        "generate": WHOLE / 2000,
        "logprobs": 2 * WHOLE / 2000,
        "update": pytest.approx(PASSES * 3 * WHOLE / 2000),
    }


def test_sharded_frozen_models_are_gathered_too(planner: Planner, traced: Traced) -> None:
    more = seconds(traced, 1, frozen_stage=3)
    assert more["logprobs"] == 2 * REFERENCE / 2000
    assert more["score"] == REWARD / 2000  # 4 rows in one batch
    assert "credit" not in more
    for changes in (SCAR | {"coalitions": coalitions()}, {"method": "abc", "needs": ("reward_model",)}):
        credit = replace(planner.trace(tiny_run(**changes)), costs=dict.fromkeys(STAGES, Cost()))
        assert seconds(credit, 1, frozen_stage=3)["credit"] == REWARD / 2000


def test_the_host_is_on_the_way(planner: Planner, traced: Traced) -> None:
    trained = POLICY + 33
    part = 4 * ((trained + 1) // 2)
    optimizer = seconds(traced, 3, offload_optimizer=True)["optimizer"]
    assert optimizer == STEPS * 9 * part / 500  # down, 7 numbers of Adam, up
    fetched = seconds(traced, 3, offload_parameters=True)
    assert fetched["generate"] == WHOLE / 2000 + WHOLE / 2 / 500
    waiting = planner.trace(tiny_run(memory=MemoryConfig(False, offload=True)))
    waiting = replace(waiting, costs=dict.fromkeys(STAGES, Cost()))
    assert seconds(waiting, 1)["generate"] == 2 * REFERENCE / 500
    assert "generate" not in seconds(waiting, 1, frozen_stage=3)


def test_a_rank_steps_its_part(traced: Traced) -> None:
    long = replace(traced, costs=dict.fromkeys(STAGES, Cost(other_bytes=DEVICE.memory_rate)))
    time = RankTime(long, Plan(2, 3), Network(2, 1e30), DEVICE)
    assert time.seconds("score") == 1 / DEVICE.memory_share
    assert time.seconds("optimizer") == 0.5 / DEVICE.memory_share
