"""Runs on several GPUs: which rows one of them gets, and what it holds at each stage of ZeRO."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scar.config import LoadConfig
from scar.planning.devices import DEVICES
from scar.planning.estimate import Planner
from scar.planning.ranks import plan_shared, rank_run
from scar.planning.runs import Run
from tests.planning.test_estimate import POLICY, SCAR
from tests.planning.tiny import LLAMA, coalitions, models, tiny_run

TRAINED = POLICY + 33
"""Numbers of the tiny policy and its value head."""


@pytest.fixture(scope="module")
def planner() -> Planner:
    pytest.importorskip("deepspeed")
    return Planner(DEVICES["a100-80gb"])


def eight_rows() -> Run:
    """A minibatch of 8 rows, one a pass."""
    run = tiny_run()
    return replace(run, ppo=replace(run.ppo, batch_size=8, minibatch_size=8, microbatch_size=1))


def test_a_rank_takes_its_share_of_every_batch() -> None:
    run = tiny_run(evaluation_rows=5)
    whole = replace(run, ppo=replace(run.ppo, batch_size=24, minibatch_size=12, microbatch_size=3))
    two, six = rank_run(whole, 2), rank_run(whole, 6)
    assert (two.ppo.batch_size, two.ppo.minibatch_size, two.ppo.microbatch_size, two.evaluation_rows) == (12, 6, 3, 3)
    assert (six.ppo.batch_size, six.ppo.minibatch_size, six.ppo.microbatch_size, six.evaluation_rows) == (4, 2, 2, 1)
    with pytest.raises(ValueError, match=r"ppo\.minibatch_size=12 is not divisible by gpus=8"):
        rank_run(whole, 8)
    with pytest.raises(ValueError, match=r"microbatch_size=3 does not divide the 4 rows .* set it to a divisor of 4"):
        rank_run(whole, 3)


def test_states_by_hand(planner: Planner) -> None:
    _, stages = plan_shared(planner, eight_rows(), 4)
    assert [zero.label for zero in stages] == ["1", "2", "3", "3 + frozen"]
    states = [zero.held["states"] for zero in stages]
    # 2 bytes a weight are sharded from stage 3 on; 18 are gradients, master copy and Adam's means. 2 more: float32 weights.
    assert states[1] == pytest.approx((2 + 18 / 4 + 2) * TRAINED, abs=1)
    assert states[0] == pytest.approx(states[1] + 4 * TRAINED * 3 / 4, abs=1)
    embedding = 2048 * 32
    assert states[2] == states[3] == pytest.approx((18 / 4 + 2 / 4) * TRAINED + 4 * embedding, abs=1)


def test_the_rest_by_hand(planner: Planner) -> None:
    estimate, stages = plan_shared(planner, eight_rows(), 4)
    frozen = 4 * POLICY + 4 * (POLICY + 32)
    assert [zero.held["frozen"] for zero in stages] == [frozen, frozen, frozen, frozen / 4]
    bucket = 4 * (500_000_000 + TRAINED)
    assert [zero.held["buffers"] for zero in stages[:2]] == [bucket] * 2
    update = next(stage for stage in estimate.stages if stage.name == "update")
    assert stages[1].largest == "update"
    assert stages[1].held["activations"] == update.cost.peak_bytes


def test_what_waits_on_the_host_is_not_on_a_gpu(planner: Planner) -> None:
    run = eight_rows()
    usual, offloaded, both = (
        plan_shared(planner, run, 4, offload_optimizer=optimizer, offload_parameters=parameters)[1]
        for optimizer, parameters in ((False, False), (True, False), (True, True))
    )
    assert offloaded[1].held["states"] == pytest.approx((2 + 2) * TRAINED, abs=1)
    assert usual[2].held["states"] > offloaded[2].held["states"] > both[2].held["states"]


@pytest.mark.slow
def test_sampling_at_stage_3_gathers_the_policy_and_credit_the_reward_model(planner: Planner) -> None:
    run = replace(eight_rows(), evaluation_rows=4000)  # so that the evaluation holds most
    evaluation = plan_shared(planner, run, 4)[1]
    assert [zero.largest for zero in evaluation] == ["evaluation"] * 4
    bucket = 4 * (500_000_000 + TRAINED)
    assert [zero.held["buffers"] - bucket for zero in evaluation] == [0, 0, 4 * TRAINED, 4 * TRAINED]
    credit = replace(eight_rows(), **SCAR, coalitions=coalitions(memory_mib=2000))
    last = plan_shared(planner, credit, 4)[1][3]
    assert last.largest == "credit"
    assert last.held["buffers"] == bucket + 4 * (POLICY + 32)


def test_adam_works_on_a_part(planner: Planner) -> None:
    run = eight_rows()
    alone = planner.estimate(rank_run(run, 4))
    shared, _ = plan_shared(planner, run, 4)
    before, after = alone.stages[-1], shared.stages[-1]
    assert (before.name, after.seconds, after.cost.other_bytes) == (
        "optimizer",
        before.seconds / 4,
        before.cost.other_bytes / 4,
    )
    assert shared.stages[:-1] == alone.stages[:-1]
    assert shared.hours < alone.hours


@pytest.mark.slow
def test_4_bit_policies_are_planned_at_two_stages(planner: Planner) -> None:
    load = LoadConfig(weights="nf4", compute="bfloat16", lora={"rank": 4, "alpha": 4})
    _, stages = plan_shared(planner, tiny_run(models=models(LLAMA, LLAMA), load=load), 2)
    assert [zero.label for zero in stages] == ["1", "2", "2 + frozen"]
