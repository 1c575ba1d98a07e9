"""What ZeRO holds on a rank, by hand; sizes that DeepSpeed itself allocates are noted where they were seen."""

from __future__ import annotations

from itertools import pairwise

import pytest

from scar.planning.ranks import Plan, State, gathered_bytes, state_bytes, streamed_bytes

BILLION = 10**9


def state(ranks: int, stage: int, **changes: object) -> State:
    return state_bytes(4 * BILLION, BILLION, Plan(ranks, stage, **changes))


@pytest.mark.parametrize(
    ("stage", "parameters", "gradients", "in_update"),
    [(1, 4e9, 4e9, 9.5e9), (2, 4e9, 0.5e9, 6e9), (3, 5e8, 5e8, 2.5e9)],
)
def test_a_billion_parameters_on_eight_ranks(stage: int, parameters: float, gradients: float, in_update: float) -> None:
    found = state(8, stage)
    assert (found.parameters, found.master, found.moments, found.gradients) == (parameters, 4e9 / 8, 8e9 / 8, gradients)
    assert found.in_update == in_update
    assert (found.bucket, found.bucket_copy) == (2e9, 2e9)


def test_between_updates_stage_3_keeps_gradients_and_bucket() -> None:
    # Two ranks of DeepSpeed 0.19.8 on CPUs, in units of the float32 parameters: 2.5 at stages 1 and 2, 2.5 and the bucket at 3.
    assert [state(2, stage).at_rest for stage in (1, 2)] == [2.5 * 4e9] * 2
    assert state(2, 3).at_rest == 2.5 * 4e9 + 2e9


def test_one_rank_holds_what_one_process_does_and_a_master_copy() -> None:
    found = state(1, 1)
    assert found.in_update - found.master == 4e9 + 4e9 + 8e9


def test_no_more_with_more_ranks_or_at_a_later_stage() -> None:
    ranks, stages = (1, 2, 3, 8, 64), (1, 2, 3)
    for stage in stages:
        sizes = [state(number, stage).in_update for number in ranks]
        assert all(more > less for more, less in pairwise(sizes))
    for number in ranks:
        sizes = [state(number, stage).in_update for stage in stages]
        assert all(more >= less for more, less in pairwise(sizes))


def test_gradients_of_several_passes() -> None:
    plans = [Plan(4, stage) for stage in (1, 2, 3)]
    several = [state_bytes(4 * BILLION, BILLION, plan, passes=3).gradients for plan in plans]
    assert several == [4e9, 2e9, 1e9]


def test_a_part_of_the_parameters_is_trained() -> None:
    found = state_bytes(3.5 * BILLION, 16 * 10**6 + 1, Plan(8, 2))  # 4-bit weights with adapters
    assert found.parameters == 3.5e9
    assert found.master == 4 * (2 * 10**6 + 1)  # the last part is filled up
    assert found.bucket_copy == 4 * (16 * 10**6 + 1) < found.bucket


def test_the_host_takes_optimizer_and_parameters() -> None:
    assert state(8, 1, offload_optimizer=True) == State(4e9, 0, 0, 4e9, 2e9, 2e9, always=False)
    assert state(8, 2, offload_optimizer=True) == State(4e9, 0, 0, 0, 2e9, 2e9, always=False)
    assert state(8, 3, offload_optimizer=True, offload_parameters=True) == State(0, 0, 0, 0, 2e9, 2e9, always=True)


def test_gathered_parameters() -> None:
    assert gathered_bytes(1e9, 4e8) == 1e9  # all of a small model stay between forward and backward pass
    assert gathered_bytes(8e9, 4e8) == 4e8 + 4 * (5e7 + 5e8)
    assert streamed_bytes(8e9, 4e8, width=2) == 4e8 + 2 * 5e7
    assert streamed_bytes(3e8, 2e8, width=4) == 3e8


def test_plans() -> None:
    assert [Plan(2, 1).label, Plan(2, 3, frozen_stage=3).label] == ["1", "3 + frozen"]
    assert Plan(2, 2).refusal("nf4") is None
    assert Plan(2, 3).refusal("bfloat16") is None
    assert "nf4; allowed: stage 1 or 2" in (Plan(2, 3).refusal("nf4") or "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": 4}, "stage=4; allowed: 1, 2, 3"),
        ({"stage": 2, "frozen_stage": 2}, "frozen_stage=2; allowed: 0, 3"),
        ({"stage": 2, "offload_parameters": True}, "offload_parameters=true at stage 2; allowed: stage 3 only"),
    ],
)
def test_what_deepspeed_does_not_have(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(2, **changes)
