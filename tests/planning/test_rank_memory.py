"""What a rank holds by part and stage: made-up activations around a tiny model whose bytes are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scar.config import LoadConfig, MemoryConfig
from scar.planning.devices import DEVICES
from scar.planning.estimate import Planner, Traced
from scar.planning.ranks import Plan, RankMemory
from scar.planning.tracing import Cost
from tests.planning.test_estimate import POLICY, SCAR
from tests.planning.tiny import LLAMA, coalitions, models, tiny_run

TRAINED = POLICY + 33
BUCKET, COPY, PART = 2e9, 4 * TRAINED, 4 * ((TRAINED + 1) // 2)
POLICY_BYTES, REWARD = 4 * TRAINED, 4 * (POLICY + 32)
STAGES = ("generate", "logprobs", "score", "credit", "update", "optimizer", "evaluation")
BARE = 7e7


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(DEVICES["a100-80gb"])


def with_peak(traced: Traced, peak: float) -> Traced:
    return replace(traced, costs=dict.fromkeys(STAGES, Cost(peak_bytes=peak)))


@pytest.fixture(scope="module")
def several(planner: Planner) -> Traced:
    """Two passes a minibatch, each of which holds 70 MB."""
    return with_peak(planner.trace(tiny_run()), BARE)


@pytest.fixture(scope="module")
def one(planner: Planner) -> Traced:
    """One pass a minibatch."""
    run = tiny_run()
    return with_peak(planner.trace(replace(run, ppo=replace(run.ppo, minibatch_size=2))), BARE)


def held(traced: Traced, stage: str, zero: int, bare: float = BARE, **changes: object) -> tuple[float, ...]:
    found = RankMemory(traced, Plan(2, zero, **changes)).held(stage, bare)
    return tuple(found[part] for part in ("weights", "buffers", "gradients", "optimizer", "activations"))


WEIGHTS = POLICY_BYTES + 4 * POLICY + REWARD


def test_stages_1_and_2_hold_parameters_and_optimizer_where_nothing_is_learned(several: Traced) -> None:
    for zero in (1, 2):
        for stage in ("generate", "logprobs", "score", "credit", "evaluation"):
            assert held(several, stage, zero) == (WEIGHTS, 0, 0, 3 * PART, BARE)


def test_the_update_of_several_passes(several: Traced) -> None:
    assert held(several, "update", 1) == (WEIGHTS, BUCKET, 4 * TRAINED, 3 * PART, BARE)
    assert held(several, "update", 2) == (WEIGHTS, BUCKET + COPY, 2 * PART, 3 * PART, BARE)


def test_the_gradients_of_one_pass_are_made_while_activations_go(one: Traced) -> None:
    assert held(one, "update", 1) == (WEIGHTS, BUCKET, 4 * TRAINED, 3 * PART, BARE - 4 * TRAINED)
    # The bucket has taken as many gradients as it copies, and this rank's part is some of them.
    assert held(one, "update", 2) == (WEIGHTS, BUCKET + COPY, PART, 3 * PART, BARE - COPY - PART)
    assert held(one, "update", 2, bare=1.0)[-1] == 1.0
    stage_1, stage_2 = (sum(held(one, "update", zero)) for zero in (1, 2))
    assert stage_2 == stage_1


def test_gradients_may_be_most_when_the_pass_has_ended(one: Traced) -> None:
    few = with_peak(one, 4 * TRAINED)  # no activations
    parts = held(few, "update", 1)
    assert parts == (WEIGHTS, BUCKET + COPY, PART, 3 * PART, 0)
    assert sum(parts) > WEIGHTS + BUCKET + 4 * TRAINED + 3 * PART


def test_the_step_copies_this_ranks_gradients(several: Traced) -> None:
    assert held(several, "optimizer", 1) == held(several, "optimizer", 2) == (WEIGHTS, 0, 2 * PART, 3 * PART, BARE / 2)
    assert held(several, "optimizer", 2, offload_optimizer=True) == (WEIGHTS, 0, 0, 0, 0)


def test_stage_3_gathers_what_is_used(several: Traced) -> None:
    weights = POLICY_BYTES / 2 + 4 * POLICY + REWARD
    assert held(several, "generate", 3) == (weights, BUCKET + POLICY_BYTES, PART, 3 * PART, BARE)
    assert held(several, "score", 3) == (weights, BUCKET, PART, 3 * PART, BARE)
    assert held(several, "update", 3) == (weights, BUCKET + POLICY_BYTES + COPY, PART, 3 * PART, BARE)
    away = held(several, "score", 3, offload_parameters=True, offload_optimizer=True)
    assert away == (weights - POLICY_BYTES / 2, BUCKET, 0, 0, BARE)


def test_frozen_models_are_sharded_and_gathered(several: Traced) -> None:
    weights = POLICY_BYTES + (4 * POLICY + REWARD) / 2
    usual = {"generate": 0, "logprobs": 4 * POLICY, "score": REWARD, "credit": 0, "evaluation": REWARD}
    for stage, gathered in usual.items():  # all of these small models is fetched ahead
        assert held(several, stage, 2, frozen_stage=3)[:2] == (weights, gathered)


def test_coalitions_are_scored_by_a_whole_reward_model(planner: Planner) -> None:
    traced = planner.trace(tiny_run(**SCAR, coalitions=coalitions(dtype="bfloat16")))
    found = RankMemory(traced, Plan(2, 2, frozen_stage=3)).held("credit", BARE)
    assert found["buffers"] == REWARD
    assert found["weights"] == POLICY_BYTES + (4 * POLICY + REWARD) / 2 + 2 * POLICY  # the narrower copy is whole


def test_models_that_wait_on_the_host_are_away_unless_they_are_sharded(planner: Planner) -> None:
    traced = planner.trace(tiny_run(memory=MemoryConfig(False, offload=True)))
    assert held(traced, "update", 2)[0] == POLICY_BYTES
    assert held(traced, "score", 2)[0] == POLICY_BYTES + REWARD
    assert held(traced, "update", 2, frozen_stage=3)[0] == POLICY_BYTES + (4 * POLICY + REWARD) / 2


def test_adapters_alone_are_trained(planner: Planner) -> None:
    load = LoadConfig(weights="nf4", compute="bfloat16", lora={"rank": 4, "alpha": 4})
    traced = planner.trace(tiny_run(models=models(LLAMA, LLAMA), load=load))
    found = RankMemory(traced, Plan(2, 1)).held("update", BARE)
    trained = 2 * 2 * 2 * 4 * 64 + 65  # layers, projections, two matrices of rank 4; the value head
    assert found["gradients"] == 4 * trained
    assert found["optimizer"] == 3 * 4 * ((trained + 1) // 2)
