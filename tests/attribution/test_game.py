"""The characteristic function: which token rows a reward model is asked for, and what becomes of its answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scar.attribution.game import GameValues, TextGame
from scar.attribution.plans import exact_plan, owen_plan, permutation_plan
from scar.segmentation.units import balanced_hierarchy, token_units
from scar.types import CoalitionPlan, Rollout, Scores, Units
from tests.builders import (
    EOS,
    SPACE,
    FakeRewardModel,
    hand_units,
    lexicon,
    make_rollout,
    make_scores,
    rollout_of,
    uneven,
)


def units_of(rollout: Rollout) -> Units:
    content = rollout.content_mask
    return token_units(content, [balanced_hierarchy(n) for n in content.sum(1).tolist()])


def plans_of(units: Units) -> list[CoalitionPlan | None]:
    return [exact_plan(n) if n > 1 else None for n in units.count.tolist()]


def play(
    model: FakeRewardModel, rollout: Rollout, scores: Scores, *, fill: str = "space", units: Units | None = None
) -> GameValues:
    units = units_of(rollout) if units is None else units
    return TextGame(model, fill=fill).evaluate(rollout, scores, units, plans_of(units))


def present(row: tuple[list[int], list[bool]]) -> list[int]:
    return [token for token, keep in zip(*row, strict=True) if keep]


def test_space_fill_keeps_length_and_positions_by_hand() -> None:
    model = FakeRewardModel(uneven)
    rollout = rollout_of([[10, 11]], [True], prompts=[[500, 501]], prompt_padding=1, response_padding=1)
    play(model, rollout, make_scores(rollout, [1.0], reads_eos=True))
    pad = int(rollout.prompts.prompt_ids[0, 0])
    mask = [False, True, True, True, True, True, False]
    # All coalitions of two units but the grand one; prompt 500 501 and EOS are in each.
    expected = [[pad, 500, 501, *units, EOS, pad] for units in ([SPACE, SPACE], [10, SPACE], [SPACE, 11])]
    assert sorted(ids for ids, _ in model.rows) == sorted(expected)
    assert all(keep == mask for _, keep in model.rows)


def test_delete_fill_makes_holes_by_hand() -> None:
    model = FakeRewardModel(uneven)
    rollout = rollout_of([[10, 11]], [True], prompts=[[500, 501]], response_padding=1)
    play(model, rollout, make_scores(rollout, [1.0], reads_eos=True), fill="delete")
    assert sorted(map(present, model.rows)) == [[500, 501, 0], [500, 501, 10, 0], [500, 501, 11, 0]]
    holes = {tuple(keep) for _, keep in model.rows}
    assert holes == {
        (True, True, False, False, True, False),
        (True, True, True, False, True, False),
        (True, True, False, True, True, False),
    }
    assert all(SPACE not in ids for ids, _ in model.rows)


@pytest.mark.parametrize("fill", ["space", "delete"])
@pytest.mark.parametrize("reads_eos", [True, False])
def test_prompt_and_eos_are_in_every_row(fill: str, reads_eos: bool) -> None:
    model = FakeRewardModel(uneven)
    rollout = make_rollout([5, 3, 4], finished=[True, True, False], prompt_lengths=[3, 1, 2])
    play(model, rollout, model.score_rollout(rollout, reads_eos=reads_eos), fill=fill)
    prompts = {tuple(range(500, 503)): 2**4 - 1, (503,): 2**2 - 1, (504, 505): 2**4 - 1}
    found = dict.fromkeys(prompts, 0)
    for row in model.rows:
        ids = present(row)
        prompt = tuple(token for token in ids if token >= 500)
        found[prompt] += 1
        assert tuple(ids[: len(prompt)]) == prompt
        ends_with_eos = reads_eos and prompt != (504, 505)
        assert ids.count(EOS) == int(ends_with_eos)
        assert (ids[-1] == EOS) == ends_with_eos
    assert found == prompts


@pytest.mark.parametrize("fill", ["space", "delete"])
def test_the_grand_coalition_is_the_score_and_is_never_asked(fill: str) -> None:
    model = FakeRewardModel(uneven)
    rollout = make_rollout([4, 3], finished=[True, False])
    scores = make_scores(rollout, [123.5, -321.5])  # not what the model would say
    values = play(model, rollout, scores, fill=fill).values
    assert [float(v[1]) for v in values if v is not None] == [123.5, -321.5]
    assert all([t for t in present(row) if 10 <= t < 13] != [10, 11, 12] for row in model.rows)
    assert all([t for t in present(row) if 13 <= t < 16] != [13, 14, 15] for row in model.rows)


@pytest.mark.parametrize("fill", ["space", "delete"])
def test_values_come_in_the_order_of_the_plan(fill: str) -> None:
    # Weights 1, 2, 4 name each coalition by its value; the prompt counts 100, the space token 0.
    model = FakeRewardModel(lexicon({10: 1.0, 11: 2.0, 12: 4.0, 13: 8.0, 14: 16.0}, offset=100.0))
    rollout = make_rollout([3, 2])
    plans = [owen_plan(balanced_hierarchy(3)), owen_plan(balanced_hierarchy(2))]
    found = TextGame(model, fill=fill).evaluate(rollout, model.score_rollout(rollout), units_of(rollout), plans).values
    for plan, weights, v in zip(plans, ([1, 2, 4], [8, 16]), found, strict=True):
        assert v is not None
        np.testing.assert_array_equal(v, 100 + plan.coalitions @ np.array(weights))


def test_a_unit_of_several_tokens_comes_and_goes_as_one() -> None:
    model = FakeRewardModel(uneven)
    rollout = make_rollout([4])
    units = hand_units([[1, 3]], 4, [balanced_hierarchy(2)])
    play(model, rollout, model.score_rollout(rollout), units=units)
    bodies = sorted(ids[2:] for ids, _ in model.rows)
    assert bodies == [[2, 2, 2, 2], [2, 11, 12, 13], [10, 2, 2, 2]]


def test_equal_rows_are_asked_once() -> None:
    model = FakeRewardModel(uneven)
    # The second token is itself the space token: with and without it the row is the same.
    rollout = rollout_of([[10, SPACE, 12]], [False])
    game = play(model, rollout, make_scores(rollout, [1.0]))
    assert int(game.queries[0]) == 7
    assert sorted(ids[2:] for ids, _ in model.rows) == [[2, 2, 2], [2, 2, 12], [10, 2, 2], [10, 2, 12]]
    values = dict(zip(map(bytes, exact_plan(3).coalitions), game.values[0], strict=True))  # type: ignore[arg-type]
    assert values[bytes([1, 0, 0])] == values[bytes([1, 1, 0])] == pytest.approx(uneven([500, 501, 10, 2, 2]))


def test_rows_that_are_equal_once_their_holes_close_are_asked_once() -> None:
    model = FakeRewardModel(uneven)
    rollout = rollout_of([[10, 10]], [False])  # deleting either token leaves the same text
    game = play(model, rollout, make_scores(rollout, [1.0]), fill="delete")
    assert int(game.queries[0]) == 3
    assert sorted(present(row)[2:] for row in model.rows) == [[], [10]]


def test_equal_responses_to_equal_prompts_are_asked_once() -> None:
    model = FakeRewardModel(uneven)
    rollout = rollout_of([[10, 11], [10, 11], [10, 11]], [False] * 3, prompts=[[500], [500], [501]])
    game = play(model, rollout, model.score_rollout(rollout))
    assert len(model.rows) == 6  # three coalitions for either prompt
    assert game.queries.tolist() == [3, 3, 3]
    np.testing.assert_array_equal(game.values[0], game.values[1])
    assert not np.allclose(game.values[0], game.values[2])  # type: ignore[arg-type]


def test_ids_under_the_mask_do_not_make_rows_differ() -> None:
    model = FakeRewardModel(uneven)
    rollout = rollout_of([[10, 11], [10, 11]], [False] * 2, prompts=[[500], [500]], prompt_padding=1)
    rollout.prompts.prompt_ids[1, 0] = 77
    play(model, rollout, model.score_rollout(rollout))
    assert len(model.rows) == 3


def test_all_responses_share_one_call_and_none_costs_none() -> None:
    model = FakeRewardModel(uneven)
    rollout = make_rollout([4, 1, 2, 3], finished=[False, True, True, False])
    game = play(model, rollout, model.score_rollout(rollout))
    assert model.calls == 1
    # Players 4, 0, 1, 3.
    assert game.queries.tolist() == [15, 0, 0, 7]
    assert [v is None for v in game.values] == [False, True, True, False]


def test_without_any_plan_the_reward_model_is_not_called() -> None:
    model = FakeRewardModel(uneven)
    rollout = make_rollout([1, 2], finished=[True, True])
    game = play(model, rollout, model.score_rollout(rollout))
    assert model.calls == 0
    assert game.queries.tolist() == [0, 0]
    assert game.values == [None, None]


@pytest.mark.parametrize("fill", ["space", "delete"])
def test_responses_of_different_lengths_get_the_values_they_have_alone(fill: str) -> None:
    contents, finished = [[10, 11, 12, 13, 14], [15, 16], [17, 18, 19]], [True, False, True]
    prompts = [[500], [501, 502, 503], [504, 505]]
    model = FakeRewardModel(uneven)
    batch = rollout_of(contents, finished, prompts=prompts, prompt_padding=2, response_padding=3)
    together = play(model, batch, model.score_rollout(batch, reads_eos=True), fill=fill).values
    for row in range(3):
        alone = rollout_of([contents[row]], [finished[row]], prompts=[prompts[row]])
        single = play(model, alone, model.score_rollout(alone, reads_eos=True), fill=fill).values[0]
        np.testing.assert_array_equal(together[row], single)


@pytest.mark.parametrize("fill", ["space", "delete"])
def test_batch_order_changes_nothing(fill: str) -> None:
    contents, finished = [[10, 11, 12], [13, 14], [15, 16, 17, 18]], [True, False, True]
    model = FakeRewardModel(uneven)
    order = [2, 0, 1]
    prompts = [[500], [501, 502], [503]]
    plain = rollout_of(contents, finished, prompts=prompts)
    turned = rollout_of([contents[i] for i in order], [finished[i] for i in order], prompts=[prompts[i] for i in order])
    first, second = (play(model, r, model.score_rollout(r), fill=fill) for r in (plain, turned))
    for place, row in enumerate(order):
        np.testing.assert_array_equal(second.values[place], first.values[row])
        assert int(second.queries[place]) == int(first.queries[row])


def test_values_are_what_the_model_says_of_the_row() -> None:
    model = FakeRewardModel(uneven)
    rollout = make_rollout([3], finished=[True])
    v = play(model, rollout, model.score_rollout(rollout)).values[0]
    plan = exact_plan(2)
    for coalition, value in zip(plan.coalitions, v, strict=True):  # type: ignore[arg-type]
        body = [token if here else SPACE for token, here in zip([10, 11], coalition, strict=True)]
        assert value == pytest.approx(uneven([500, 501, *body]), rel=1e-6)


def test_sampled_plans_fit_too() -> None:
    model = FakeRewardModel(lexicon({token: float(token) for token in range(10, 20)}))
    rollout = make_rollout([6, 4])
    rng = np.random.default_rng(0)
    plans = [permutation_plan(6, 2, rng), permutation_plan(4, 2, rng)]
    game = TextGame(model, fill="space").evaluate(rollout, model.score_rollout(rollout), units_of(rollout), plans)
    assert game.queries.tolist() == [len(plan.coalitions) - 1 for plan in plans]
    for plan, start, v in zip(plans, (10, 16), game.values, strict=True):
        np.testing.assert_allclose(plan.weights @ v, np.arange(start, start + len(plan.weights)))


def test_inputs_are_not_changed() -> None:
    model = FakeRewardModel(uneven)
    rollout = make_rollout([3, 2])
    ids, prompts = rollout.response_ids.clone(), rollout.prompts.prompt_ids.clone()
    play(model, rollout, model.score_rollout(rollout))
    assert torch.equal(rollout.response_ids, ids)
    assert torch.equal(rollout.prompts.prompt_ids, prompts)


def test_an_unknown_fill_names_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"shaping\.method\.fill=pad; allowed: space or delete"):
        TextGame(FakeRewardModel(uneven), fill="pad")
