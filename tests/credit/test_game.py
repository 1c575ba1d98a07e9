"""The characteristic function: which token rows a scorer is asked for, and what becomes of its answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scar.credit.estimators import ExactEstimator
from scar.credit.game import TextGame
from scar.credit.plans import exact_plan
from scar.segmentation.hierarchies import balanced_hierarchy
from scar.segmentation.units import token_units
from scar.types import CoalitionRows, Rollout, Scores, Units
from tests.builders import (
    EOS,
    SPACE,
    FakeRewardModel,
    hand_units,
    lexicon,
    make_rollout,
    make_scores,
    rollout_of,
    texts_of,
    uneven,
)

Values = list[np.ndarray | None]


def units_of(rollout: Rollout) -> Units:
    content = rollout.content_mask
    return token_units(content, [balanced_hierarchy(n) for n in content.sum(1).tolist()])


def play(
    model: FakeRewardModel, rollout: Rollout, scores: Scores, *, fill: str = "space", units: Units | None = None
) -> Values:
    """v of every coalition of every response of two units or more."""
    units = units_of(rollout) if units is None else units
    game = TextGame(model.scorer, fill=fill).batch(scores, units)
    return game.evaluate([exact_plan(n).coalitions if n > 1 else None for n in game.counts])


def asked(model: FakeRewardModel) -> list[CoalitionRows]:
    """The rows asked for, prompt by prompt."""
    return [rows for batch in model.scorer.batches for rows in batch]


def bodies(model: FakeRewardModel) -> list[list[int]]:
    """What was asked for behind the prompts, sorted."""
    return sorted(ids[len(rows.prompt_ids) :] for rows in asked(model) for ids in texts_of(rows))


# The rows.


def test_space_fill_keeps_length_and_positions_by_hand() -> None:
    model = FakeRewardModel(uneven)
    rollout = rollout_of([[10, 11]], [True], prompts=[[500, 501]], prompt_padding=1, response_padding=1)
    play(model, rollout, make_scores(rollout, [1.0], reads_eos=True))
    # All coalitions of two units but the grand one; prompt 500 501 and EOS are in each, padding is in none.
    expected = [[500, 501, *units, EOS] for units in ([SPACE, SPACE], [10, SPACE], [SPACE, 11])]
    assert sorted(model.scorer.rows) == sorted(expected)
    [rows] = asked(model)
    assert rows.prompt_ids.tolist() == [500, 501]
    assert rows.lengths.tolist() == [3, 3, 3]


def test_delete_fill_closes_up_by_hand() -> None:
    model = FakeRewardModel(uneven)
    rollout = rollout_of([[10, 11]], [True], prompts=[[500, 501]], response_padding=1)
    play(model, rollout, make_scores(rollout, [1.0], reads_eos=True), fill="delete")
    assert sorted(model.scorer.rows) == [[500, 501, 0], [500, 501, 10, 0], [500, 501, 11, 0]]
    [rows] = asked(model)
    assert sorted(rows.lengths.tolist()) == [1, 2, 2]
    assert SPACE not in rows.ids


def test_delete_fill_keeps_the_order_of_many_tokens() -> None:
    model = FakeRewardModel(lambda ids: float(ids == sorted(ids)))  # prompt first, then rising ids
    rollout = rollout_of([list(range(10, 110))], [False], prompts=[[3]])
    masks = np.random.default_rng(0).random((20, 100)) < 0.5
    game = TextGame(model.scorer, fill="delete").batch(make_scores(rollout, [0.0]), units_of(rollout))
    assert game.evaluate([masks])[0].tolist() == [1.0] * 20  # type: ignore[union-attr]
    assert sorted(map(len, model.scorer.rows)) == sorted((1 + masks.sum(1)).tolist())


def test_a_unit_of_several_tokens_comes_and_goes_as_one() -> None:
    for fill, expected in {
        "space": [[2, 2, 2, 2], [2, 11, 12, 13], [10, 2, 2, 2]],
        "delete": [[], [10], [11, 12, 13]],
    }.items():
        model = FakeRewardModel(uneven)
        rollout = make_rollout([4])
        units = hand_units([[1, 3]], 4, [balanced_hierarchy(2)])
        play(model, rollout, model.score_rollout(rollout), units=units, fill=fill)
        assert bodies(model) == expected


def test_a_token_of_no_unit_is_always_present() -> None:
    model = FakeRewardModel(uneven)
    rollout = make_rollout([4])
    units = hand_units([[1, 2]], 4, [balanced_hierarchy(2)])  # the last token, 13, belongs to none
    play(model, rollout, model.score_rollout(rollout), units=units)
    assert bodies(model) == [[2, 2, 2, 13], [2, 11, 12, 13], [10, 2, 2, 13]]


# The values.


@pytest.mark.parametrize("fill", ["space", "delete"])
def test_the_grand_coalition_is_the_score_wherever_and_however_often_it_stands(fill: str) -> None:
    model = FakeRewardModel(lexicon({10: 1.0, 11: 2.0}))
    rollout = make_rollout([2])
    game = TextGame(model.scorer, fill=fill).batch(make_scores(rollout, [50.0]), units_of(rollout))
    masks = np.array([[True, True], [True, False], [True, True], [True, False], [False, True]])
    np.testing.assert_array_equal(game.evaluate([masks])[0], [50.0, 1.0, 50.0, 1.0, 2.0])  # type: ignore[arg-type]
    assert len(model.scorer.rows) == 2


# Nothing is scored twice, and nothing for nothing.


def test_equal_rows_are_asked_once() -> None:
    model = FakeRewardModel(uneven)
    # The second token is itself the space token: with and without it the row is the same.
    rollout = rollout_of([[10, SPACE, 12]], [False])
    [v] = play(model, rollout, make_scores(rollout, [1.0]))
    assert bodies(model) == [[2, 2, 2], [2, 2, 12], [10, 2, 2], [10, 2, 12]]
    values = dict(zip(map(bytes, exact_plan(3).coalitions), v, strict=True))  # type: ignore[arg-type]
    assert values[bytes([1, 0, 0])] == values[bytes([1, 1, 0])] == pytest.approx(uneven([500, 501, 10, 2, 2]))


def test_a_coalition_that_reads_like_the_whole_is_scored_all_the_same() -> None:
    """v(all) is the score that PPO got; the same text as a smaller coalition is what the scorer says of it."""
    model = FakeRewardModel(uneven)
    rollout = rollout_of([[10, SPACE]], [False])
    [v] = play(model, rollout, make_scores(rollout, [50.0]))
    by_mask = dict(zip(map(bytes, exact_plan(2).coalitions), v.tolist(), strict=True))  # type: ignore[union-attr,arg-type]
    assert by_mask[bytes([1, 1])] == 50.0
    assert by_mask[bytes([1, 0])] == uneven([500, 501, 10, SPACE])


def test_queries_count_coalitions_and_not_rows() -> None:
    model = FakeRewardModel(uneven)
    rollout = rollout_of([[10, SPACE, 12]], [False])
    game = TextGame(model.scorer, fill="space").batch(make_scores(rollout, [1.0]), units_of(rollout))
    [found] = ExactEstimator(max_units=4).estimate(game, np.random.default_rng(0))
    assert found is not None
    assert (found.queries, len(model.scorer.rows)) == (7, 4)


def test_equal_responses_to_equal_prompts_are_asked_once() -> None:
    model = FakeRewardModel(uneven)
    rollout = rollout_of([[10, 11], [10, 11], [10, 11]], [False] * 3, prompts=[[500], [500], [501]])
    first, second, third = play(model, rollout, model.score_rollout(rollout))
    assert len(model.scorer.rows) == 6  # three coalitions for either prompt
    assert [rows.prompt_ids.tolist() for rows in asked(model)] == [[500], [501]]
    np.testing.assert_array_equal(first, second)  # type: ignore[arg-type]
    assert not np.allclose(first, third)  # type: ignore[arg-type]


BLANKED_TWO = [[2, 2], [2, 11], [2, 13], [10, 2], [12, 2]]
BLANKED_THREE = [[2, 2, 2], [2, 2, 14], [2, 13, 2], [2, 13, 14], [15, 2, 2], [15, 2, 14], [15, 13, 2]]
SHARED_ROWS = {
    # The blank row of two tokens is shared by the first two responses; that of three tokens is another text.
    "space": BLANKED_TWO + BLANKED_THREE,
    # Without any token all three are the prompt alone, and 13 alone is left of two of them.
    "delete": [[], [10], [11], [12], [13], [14], [15], [13, 14], [15, 13], [15, 14]],
}


@pytest.mark.parametrize("fill", SHARED_ROWS)
def test_equal_rows_of_different_responses_behind_one_prompt_are_asked_once(fill: str) -> None:
    model = FakeRewardModel(uneven)
    rollout = rollout_of([[10, 11], [12, 13], [15, 13, 14]], [False] * 3, prompts=[[500]] * 3)
    values = play(model, rollout, model.score_rollout(rollout), fill=fill)
    assert len(asked(model)) == 1
    assert bodies(model) == sorted(SHARED_ROWS[fill])
    empty = [v[0] for v in values if v is not None]
    assert empty == [uneven([500, *([SPACE] * n if fill == "space" else [])]) for n in (2, 2, 3)]


def test_all_responses_share_one_call_and_none_costs_none() -> None:
    model = FakeRewardModel(uneven)
    rollout = make_rollout([4, 1, 2, 3], finished=[False, True, True, False])
    values = play(model, rollout, model.score_rollout(rollout))
    assert model.scorer.calls == 1
    # Players 4, 0, 1, 3.
    assert [len(rows.ids) for rows in asked(model)] == [15, 7]
    assert [v is None for v in values] == [False, True, True, False]


def test_without_any_coalition_the_scorer_is_not_called() -> None:
    model = FakeRewardModel(uneven)
    rollout = make_rollout([1, 2], finished=[True, True])
    assert play(model, rollout, model.score_rollout(rollout)) == [None, None]
    assert model.scorer.calls == 0


# The batch is no part of the game.


def text(tokens: list[int], unit: list[int], present: np.ndarray, fill: str) -> list[int]:
    """A coalition's response, token by token."""
    here = [index < 0 or bool(present[index]) for index in unit]
    if fill == "space":
        return [token if stays else SPACE for token, stays in zip(tokens, here, strict=True)]
    return [token for token, stays in zip(tokens, here, strict=True) if stays]


@given(
    contents=st.lists(st.lists(st.sampled_from([SPACE, 10, 11, 12]), min_size=1, max_size=7), min_size=1, max_size=5),
    seed=st.integers(0, 10_000),
    fill=st.sampled_from(["space", "delete"]),
    reads_eos=st.booleans(),
)
def test_every_coalition_of_every_batch_is_the_text_of_its_present_units(
    contents: list[list[int]], seed: int, fill: str, reads_eos: bool
) -> None:
    rng = np.random.default_rng(seed)
    finished = rng.random(len(contents)) < 0.5
    prompts = [[[500], [501, 502], [500, 500]][number] for number in rng.integers(0, 3, len(contents))]
    rollout = rollout_of(contents, finished.tolist(), prompts=prompts, prompt_padding=1, response_padding=1)
    groups = [_split(len(ids), rng) for ids in contents]
    units = hand_units(groups, rollout.response_ids.shape[1], [balanced_hierarchy(len(group)) for group in groups])
    masks = [rng.random((int(rng.integers(1, 6)), len(g))) < 0.6 if rng.random() < 0.8 else None for g in groups]
    model = FakeRewardModel(uneven)
    scores = make_scores(rollout, list(range(1000, 1000 + len(contents))), reads_eos=reads_eos)
    found = TextGame(model.scorer, fill=fill).batch(scores, units).evaluate(masks)
    needed: set[tuple[int, ...]] = set()
    for row, (coalitions, v) in enumerate(zip(masks, found, strict=True)):
        assert (v is None) == (coalitions is None)
        for present, value in zip([] if coalitions is None else coalitions, [] if v is None else v, strict=True):
            unit = np.repeat(np.arange(len(groups[row])), groups[row]).tolist()
            tail = [EOS] if finished[row] and reads_eos else []
            whole = prompts[row] + text(contents[row] + tail, unit + [-1] * len(tail), present, fill)
            assert value == (1000 + row if present.all() else uneven(whole))
            needed |= set() if present.all() else {(len(prompts[row]), *whole)}
    # Behind equal prompts no text is asked for twice; a prompt and its text are told apart by the prompt's length.
    behind = [(len(rows.prompt_ids), *ids) for rows in asked(model) for ids in texts_of(rows)]
    assert sorted(behind) == sorted(needed)
    assert model.scorer.calls <= 1


def _split(length: int, rng: np.random.Generator) -> list[int]:
    """Sizes of contiguous units."""
    sizes = []
    while length:
        sizes.append(int(rng.integers(1, min(length, 3) + 1)))
        length -= sizes[-1]
    return sizes
