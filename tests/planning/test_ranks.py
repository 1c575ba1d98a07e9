"""Runs on several GPUs: which rows a rank gets, which plans there are, and what they have in common with one GPU."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from scar.config import LoadConfig
from scar.planning.devices import DEVICES, Network
from scar.planning.estimate import Planner
from scar.planning.ranks import Plan, RankPlanner, Shared, possible_plans, rank_run
from tests.planning.test_estimate import POLICY
from tests.planning.tiny import LLAMA, models, tiny_run

A100 = DEVICES["a100-80gb"]


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(A100)


def planned(planner: Planner, ranks: int, **changes: object) -> Shared:
    return RankPlanner(planner, Network.of(A100, ranks)).plan(tiny_run(**changes))


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


def test_the_plans_of_float32_and_of_4_bits() -> None:
    plans, refused = possible_plans("float32", 2, offload_parameters=True)
    assert plans == [Plan(2, 1), Plan(2, 2), Plan(2, 3, 0, False, True), Plan(2, 3, 3, False, True)]
    assert refused is None
    plans, refused = possible_plans("nf4", 2)
    assert plans == [Plan(2, 1), Plan(2, 2), Plan(2, 2, 3)]
    assert "stage 3 with models.policy.load.weights=nf4; allowed: stage 1 or 2" in refused


def test_one_rank_at_stage_1_is_one_gpu_with_a_master_copy_and_a_bucket(planner: Planner) -> None:
    run = tiny_run()
    alone = planner.estimate(run)
    plan, shared = RankPlanner(planner, Network(1, 1.0)).plan(run).plans[0]
    assert plan == Plan(1, 1)
    for before, after in zip((*alone.stages, alone.evaluation), (*shared.stages, shared.evaluation), strict=True):
        assert after.name == before.name
        assert after.seconds == before.seconds
        more = 4 * (POLICY + 33) + (2e9 if after.name == "update" else 0)
        if after.name == "optimizer":
            more += 4 * (POLICY + 33)  # gradients are copied
        assert after.peak_bytes == pytest.approx(before.peak_bytes + more, rel=1e-12)


def test_two_ranks_take_more_than_half_of_the_time(planner: Planner) -> None:
    alone = planner.estimate(tiny_run())
    for _, shared in planned(planner, 2).plans:
        assert shared.update_seconds > alone.update_seconds / 2


def test_more_ranks_and_later_stages_hold_no_more(planner: Planner) -> None:
    run = tiny_run()
    run = replace(run, ppo=replace(run.ppo, batch_size=8, minibatch_size=8, microbatch_size=1))
    ranks = [RankPlanner(planner, Network.of(A100, number)).plan(run) for number in (2, 4, 8)]
    for found in zip(*(shared.plans for shared in ranks), strict=True):
        sizes = [estimate.largest.peak_bytes for _, estimate in found]
        assert all(more >= less for more, less in pairwise(sizes))
    for shared in ranks:
        weights = [estimate.stages[2].held["weights"] for _, estimate in shared.plans]
        assert weights[0] == weights[1] > weights[2] > weights[3]


def test_a_pass_that_makes_its_gradients_is_traced_without_them_too(
    planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scar.planning.ranks.REDUCE_BUCKET", 0)  # each gradient is reduced as it is made
    run = tiny_run()
    among = RankPlanner(planner, Network(1, 1.0)).plan(run)  # two passes of 2 rows
    single = planned(planner, 2)  # one of them a rank
    update = [dict(shared.plans)[Plan(ranks, 3)].stages[4] for ranks, shared in ((1, among), (2, single))]
    assert update[0].held["activations"] == update[1].held["activations"] < update[1].cost.peak_bytes


def test_4_bit_policies_are_planned_at_two_stages(planner: Planner) -> None:
    load = LoadConfig(weights="nf4", compute="bfloat16", lora={"rank": 4, "alpha": 4})
    shared = planned(planner, 2, models=models(LLAMA, LLAMA), load=load)
    assert [plan.label for plan, _ in shared.plans] == ["1", "2", "2 + frozen"]
    assert shared.refused is not None


def test_a_run_fits_if_one_plan_does(planner: Planner) -> None:
    shared = planned(planner, 2)
    sizes = sorted(found.largest.peak_bytes for _, found in shared.plans)
    for allowed, fitting in ((sizes[0] - 1, 0), (sizes[0], 1), (sizes[-1], 4)):
        device = replace(A100, memory_bytes=allowed, reserve=0.0)
        assert len(shared.fitting(device)) >= fitting
        assert shared.fits(device) is (fitting > 0)
