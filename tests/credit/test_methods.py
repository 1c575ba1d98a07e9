"""The credit methods: contracts that hold for all of them, and each one by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from scar.credit.estimators import ExactEstimator, OwenEstimator, PermutationEstimator
from scar.credit.methods import (
    AttentionMethod,
    RedMethod,
    ScarMethod,
    SparseMethod,
    UniformMethod,
    check_efficiency,
    needs,
)
from scar.credit.rewards import shape_rewards
from scar.credit.shap_oracle import ShapEstimator
from scar.interfaces import CreditMethod
from scar.segmentation.hierarchies import balanced_hierarchy, hierarchy_of
from scar.segmentation.units import token_units
from scar.types import Credit, Rollout, Scores, Units
from tests.builders import FakeRewardModel, chain, hand_units, lexicon, make_rollout, make_scores, rollout_of, uneven

ESTIMATORS: dict[str, Any] = {
    "owen": OwenEstimator(max_coalitions=1024),
    "exact": ExactEstimator(max_units=12),
    "permutation": PermutationEstimator(permutations=2),
    "shap": ShapEstimator(max_evals=1024, batch_size=10),
}
EMPTIES = ("uniform", "zero", "terminal")
COMBINATIONS = [
    ("owen", "space", "uniform"),
    ("owen", "delete", "zero"),
    ("exact", "space", "terminal"),
    ("exact", "delete", "uniform"),
    ("permutation", "space", "zero"),
    ("permutation", "delete", "terminal"),
    ("shap", "space", "zero"),
    ("shap", "delete", "terminal"),
]
"""Every estimator with either fill, and either fill with every treatment of v(empty)."""


def scar(
    model: FakeRewardModel, *, estimator: str = "owen", fill: str = "space", empty: str = "uniform", **options: Any
) -> ScarMethod:
    return ScarMethod(scorer=model.scorer, estimator=ESTIMATORS[estimator], fill=fill, empty=empty, **options)


def all_methods(model: FakeRewardModel) -> dict[str, CreditMethod]:
    plain: dict[str, CreditMethod] = {
        "sparse": SparseMethod(),
        "uniform": UniformMethod(),
        "abc": AttentionMethod(reward_model=model),
        "red": RedMethod(reward_model=model),
    }
    dense = {
        f"scar {estimator} {fill} {empty}": scar(model, estimator=estimator, fill=fill, empty=empty)
        for estimator, fill, empty in COMBINATIONS
    }
    return plain | dense


METHODS = list(all_methods(FakeRewardModel(uneven)))


def units_of(rollout: Rollout) -> Units:
    content = rollout.content_mask
    return token_units(content, [balanced_hierarchy(n) for n in content.sum(1).tolist()])


def assign(
    method: CreditMethod, rollout: Rollout, scores: Scores, units: Units | None = None, *, seed: int = 0
) -> Credit:
    given = {"units": units or units_of(rollout)} if "units" in needs(type(method)) else {}
    return method.assign(rollout, scores, **given, generator=np.random.default_rng(seed))


def mixed_rollout(**options: Any) -> Rollout:
    """Lengths with and without EOS, an EOS alone, a single content token with and without EOS; 4, 3, 0, 1, 1 players."""
    lengths, finished = [5, 3, 1, 2, 1], [True, False, True, True, False]
    return make_rollout(
        lengths,
        finished=finished,
        prompt_lengths=[3, 1, 2, 2, 1],
        logprobs=[[-0.1 * (t + 1) for t in range(length)] for length in lengths],
        ref_logprobs=[[-0.3] * length for length in lengths],
        **options,
    )


# Contracts of every method.


@pytest.mark.parametrize("reads_eos", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_credit_sums_to_the_raw_score(name: str, reads_eos: bool) -> None:
    model = FakeRewardModel(uneven)
    rollout = mixed_rollout(response_padding=2)
    scores = model.score_rollout(rollout, reads_eos=reads_eos)
    credit = assign(all_methods(model)[name], rollout, scores)
    torch.testing.assert_close(credit.per_token.sum(1), scores.raw, atol=1e-5, rtol=1e-5)
    assert torch.equal(credit.per_token * ~rollout.response_mask, torch.zeros(rollout.response_mask.shape))
    assert credit.reward_queries.shape == (5,)


@pytest.mark.parametrize("name", METHODS)
def test_alpha_zero_is_sparse_bit_for_bit(name: str) -> None:
    model = FakeRewardModel(uneven)
    rollout = mixed_rollout()
    scores = model.score_rollout(rollout)
    scores = dataclasses.replace(scores, final=scores.raw - 1)
    totals = [
        shape_rewards(rollout, scores, assign(all_methods(model)[n], rollout, scores), kl_coef=0.2, alpha=0.0).total
        for n in (name, "sparse")
    ]
    assert torch.equal(*totals)


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("sparse", "uniform") and "terminal" not in n])
def test_eos_carries_no_credit(name: str) -> None:
    model = FakeRewardModel(uneven)
    rollout = mixed_rollout(response_padding=1)
    credit = assign(all_methods(model)[name], rollout, model.score_rollout(rollout))
    # Row 2 is nothing but EOS, which then takes all.
    kept = torch.tensor([0, 1, 3, 4])
    assert torch.equal((credit.per_token * ~rollout.content_mask)[kept], torch.zeros(4, 6))
    assert float(credit.per_token[2, 0]) == pytest.approx(float(model.score_rollout(rollout).raw[2]))


@pytest.mark.parametrize("name", METHODS)
def test_no_method_consumes_a_global_random_stream(name: str) -> None:
    model = FakeRewardModel(uneven)
    rollout = mixed_rollout()
    scores = model.score_rollout(rollout)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    credits = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        before = torch.get_rng_state(), np.random.get_state()
        credits.append(assign(all_methods(model)[name], rollout, scores, seed=5).per_token)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert repr(np.random.get_state()) == repr(before[1])
    torch.set_rng_state(torch_state)
    np.random.set_state(numpy_state)
    assert torch.equal(*credits)


@pytest.mark.parametrize("name", [n for n in METHODS if "permutation" not in n])
def test_batch_order_and_padding_change_nothing(name: str) -> None:
    model = FakeRewardModel(uneven)
    rollouts = [mixed_rollout(), mixed_rollout(prompt_padding=3, response_padding=2)]
    plain, padded = (assign(all_methods(model)[name], r, model.score_rollout(r)).per_token for r in rollouts)
    torch.testing.assert_close(padded[:, :5], plain)
    contents, finished = [[10, 11, 12, 13], [14, 15, 16]], [True, False]
    prompts = [[500, 501], [510]]
    ahead = rollout_of(contents, finished, prompts=prompts)
    turned = rollout_of(contents[::-1], finished[::-1], prompts=prompts[::-1])
    first, second = (assign(all_methods(model)[name], r, model.score_rollout(r)).per_token for r in (ahead, turned))
    torch.testing.assert_close(second.flip(0), first)


# Sparse and uniform.


def test_sparse_is_one_hot_on_the_last_real_token() -> None:
    rollout = make_rollout([3, 2, 1], finished=[True, False, True])
    credit = assign(SparseMethod(), rollout, make_scores(rollout, [4.0, -5.0, 6.0]))
    assert torch.equal(credit.per_token, torch.tensor([[0.0, 0.0, 4.0], [0.0, -5.0, 0.0], [6.0, 0.0, 0.0]]))
    assert credit.reward_queries.tolist() == [0, 0, 0]


def test_uniform_gives_every_real_token_eos_included_the_same_share() -> None:
    rollout = make_rollout([4, 2], finished=[True, False])
    credit = assign(UniformMethod(), rollout, make_scores(rollout, [6.0, -5.0]))
    torch.testing.assert_close(credit.per_token, torch.tensor([[1.5, 1.5, 1.5, 1.5], [-2.5, -2.5, 0.0, 0.0]]))
    assert credit.reward_queries.tolist() == [0, 0]


# ABC.


def test_abc_by_hand() -> None:
    # Two prompt columns, then the response. Row 0: three content tokens with attention .1, .3, .1 and EOS with .2.
    # Shares 1/5, 3/5, 1/5 of the raw score 5. Row 1: two content tokens, .3 and .1: 3/4 and 1/4 of -8.
    attention = torch.tensor([[0.2, 0.1, 0.1, 0.3, 0.1, 0.2], [0.5, 0.1, 0.3, 0.1, 0.0, 0.0]])
    model = FakeRewardModel(uneven, attention=attention)
    rollout = make_rollout([4, 2], finished=[True, False])
    credit = assign(AttentionMethod(reward_model=model), rollout, make_scores(rollout, [5.0, -8.0], reads_eos=True))
    expected = torch.tensor([[1.0, 3.0, 1.0, 0.0], [-6.0, -2.0, 0.0, 0.0]])
    torch.testing.assert_close(credit.per_token, expected)
    assert credit.reward_queries.tolist() == [1, 1]
    # EOS left in: 5/7, 15/7, ...; prompt columns in the sum: .5, 1.5, ...
    assert not torch.allclose(5 * attention[0, 2:] / 0.7, expected[0], atol=0.1)
    assert not torch.allclose(5 * attention[0, 2:] / attention[0].sum(), expected[0], atol=0.1)


@pytest.mark.parametrize("reads_eos", [False, True])
def test_abc_and_prefix_ask_for_the_tokens_that_the_score_read(reads_eos: bool) -> None:
    model = FakeRewardModel(uneven)
    rollout = mixed_rollout()
    scores = model.score_rollout(rollout, reads_eos=reads_eos)
    assign(AttentionMethod(reward_model=model), rollout, scores)
    assign(RedMethod(reward_model=model), rollout, scores)
    for mask in model.read_masks:
        assert torch.equal(mask, scores.inputs.sequence_mask())
    assert len(model.read_masks) == 2


# RED.


def test_red_by_hand() -> None:
    # Scores of the prefixes: prompt alone 2; then 10 adds 1, 11 adds -4, 12 adds .5: 3, -1, -.5.
    # The first token carries r(x) + 1 = 3, then -4 and .5; the sum is the score -.5.
    model = FakeRewardModel(lexicon({10: 1.0, 11: -4.0, 12: 0.5}, offset=2.0))
    rollout = make_rollout([4], finished=[True])
    credit = assign(RedMethod(reward_model=model), rollout, model.score_rollout(rollout))
    torch.testing.assert_close(credit.per_token, torch.tensor([[3.0, -4.0, 0.5, 0.0]]))
    assert credit.reward_queries.tolist() == [1]
    # RED's convex mix: a quarter of the differences, and three quarters of -.5 on the last token.
    scores = model.score_rollout(rollout)
    mixed = shape_rewards(rollout, scores, credit, kl_coef=0.0, alpha=0.25).total
    torch.testing.assert_close(mixed, torch.tensor([[0.75, -1.0, 0.125, -0.375]]))


def test_red_of_a_response_of_which_nothing_is_read() -> None:
    model = FakeRewardModel(lexicon({}, offset=2.0))
    rollout = make_rollout([1, 3], finished=[True, False])
    credit = assign(RedMethod(reward_model=model), rollout, model.score_rollout(rollout))
    torch.testing.assert_close(credit.per_token, torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))


# Efficiency is checked, never repaired.


def test_efficiency_is_checked_relative_to_the_score() -> None:
    rollout = make_rollout([2])
    scores = make_scores(rollout, [1.0])  # allowed: 1e-4 * (1 + |1|) = 2e-4
    assert check_efficiency(torch.tensor([[0.5, 0.5]]), scores) == 0.0
    assert check_efficiency(torch.tensor([[0.5, 0.50019]]), scores) == pytest.approx(0.95e-4, rel=1e-2)
    for wrong in (0.50021, 0.49979):
        with pytest.raises(RuntimeError, match="credit does not sum"):
            check_efficiency(torch.tensor([[0.5, wrong]]), scores)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", METHODS)
def test_a_score_that_is_no_number_is_an_error(name: str, bad: float) -> None:
    model = FakeRewardModel(lambda ids: bad)
    rollout = make_rollout([3])
    with pytest.raises(RuntimeError, match="credit does not sum"):
        assign(all_methods(model)[name], rollout, model.score_rollout(rollout))


# SCAR.

# 14 is a null player; the space token and the prompt weigh nothing, so v(empty) = 0.
WEIGHTS = {10: 1.5, 11: -2.25, 12: 4.0, 13: -0.125, 14: 0.0, 15: 3.0, 16: -7.5}


@pytest.mark.parametrize(("estimator", "fill", "empty"), COMBINATIONS)
def test_scar_credit_of_a_lexicon_is_the_weight_of_each_token(estimator: str, fill: str, empty: str) -> None:
    model = FakeRewardModel(lexicon(WEIGHTS))
    rollout = make_rollout([6, 2], finished=[True, False], response_padding=1)
    method = scar(model, estimator=estimator, fill=fill, empty=empty)
    credit = assign(method, rollout, model.score_rollout(rollout))
    expected = torch.tensor([[1.5, -2.25, 4.0, -0.125, 0.0, 0.0, 0.0], [3.0, -7.5, 0.0, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(credit.per_token, expected, atol=1e-9, rtol=0)
    assert credit.unit_values is not None
    torch.testing.assert_close(
        credit.unit_values,
        torch.tensor([[1.5, -2.25, 4.0, -0.125, 0.0], [3.0, -7.5, 0.0, 0.0, 0.0]]),
        atol=1e-9,
        rtol=0,
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_scar_credit_of_a_longer_unit_lands_on_its_last_token(estimator: str) -> None:
    model = FakeRewardModel(lexicon(WEIGHTS))
    rollout = make_rollout([7, 3], finished=[True, True])
    # Row 0: tokens 10..15 in units of 2, 3, 1; row 1: 16, 17 in one unit. EOS belongs to none.
    units = hand_units([[2, 3, 1], [2]], 7, [hierarchy_of([0, [1, 2]]), balanced_hierarchy(1)])
    credit = assign(scar(model, estimator=estimator), rollout, model.score_rollout(rollout), units)
    # 1.5 - 2.25 = -.75 at step 1, 4 - .125 + 0 = 3.875 at step 4, 3 at step 5; -7.5 at step 1.
    expected = torch.tensor([[0.0, -0.75, 0.0, 0.0, 3.875, 3.0, 0.0], [0.0, -7.5, 0.0, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(credit.per_token, expected, atol=1e-9, rtol=0)


# Weights 1, -2, 4 and an offset of 6: v(empty) = 6, the score is 9. Three units: the Owen estimator is exact.
OFFSET_WEIGHTS = {10: 1.0, 11: -2.0, 12: 4.0}
V_EMPTY_BY_HAND = {
    ("owen", "uniform"): [3.0, 0.0, 6.0, 0.0],  # + 6/3 each
    ("exact", "uniform"): [3.0, 0.0, 6.0, 0.0],
    ("permutation", "uniform"): [3.0, 0.0, 6.0, 0.0],
    ("shap", "uniform"): [3.0, 0.0, 6.0, 0.0],
    ("owen", "zero"): [3.0, 0.0, 6.0, 0.0],
    ("exact", "zero"): [3.0, 0.0, 6.0, 0.0],  # Shapley: + 6/3 each
    ("shap", "zero"): [2.5, -0.5, 7.0, 0.0],  # tree ((0, 1), 2): + 6/4, 6/4, 6/2
    ("owen", "terminal"): [1.0, -2.0, 4.0, 6.0],  # the measured v(empty) on EOS
    ("exact", "terminal"): [1.0, -2.0, 4.0, 6.0],
    ("permutation", "terminal"): [1.0, -2.0, 4.0, 6.0],
    ("shap", "terminal"): [1.0, -2.0, 4.0, 6.0],
}


@pytest.mark.parametrize(("estimator", "empty"), V_EMPTY_BY_HAND)
def test_treatment_of_v_empty_by_hand(estimator: str, empty: str) -> None:
    model = FakeRewardModel(lexicon(OFFSET_WEIGHTS, offset=6.0))
    rollout = make_rollout([4], finished=[True])
    scores = model.score_rollout(rollout)
    assert scores.raw.tolist() == [9.0]
    credit = assign(scar(model, estimator=estimator, empty=empty), rollout, scores)
    torch.testing.assert_close(credit.per_token, torch.tensor([V_EMPTY_BY_HAND[estimator, empty]]))
    assert float(credit.per_token.sum()) == pytest.approx(9.0)
    assert credit.diagnostics["scar/v_empty_mean"] == pytest.approx(6.0)
    if empty == "terminal":
        assert credit.unit_values is not None
        assert float(credit.unit_values.sum()) == pytest.approx(3.0)


# Weights 1, -2, 4, -1, 3, an offset of 16, and 32 more where all five are there. Tree (((0, 1), 2), (3, 4)): depths
# 3 3 2 2 2, so the 32 is shared as 4 4 8 8 8. Of v(empty) = 16 that is 2 2 4 4 4; in equal shares it is 3.2 each.
INTERACTION_BY_HAND = {
    "uniform": [8.2, 5.2, 15.2, 10.2, 14.2, 0.0],
    "zero": [7.0, 4.0, 16.0, 11.0, 15.0, 0.0],
    "terminal": [5.0, 2.0, 12.0, 7.0, 11.0, 16.0],
}


@pytest.mark.parametrize("empty", EMPTIES)
@pytest.mark.parametrize("estimator", ["owen", "shap"])
def test_treatment_of_v_empty_beside_an_interaction_by_hand(estimator: str, empty: str) -> None:
    weights = lexicon({10: 1.0, 11: -2.0, 12: 4.0, 13: -1.0, 14: 3.0}, offset=16.0)
    model = FakeRewardModel(lambda ids: weights(ids) + 32 * ({10, 11, 12, 13, 14} <= set(ids)))
    rollout = make_rollout([6], finished=[True])
    scores = model.score_rollout(rollout)
    assert scores.raw.tolist() == [53.0]
    credit = assign(scar(model, estimator=estimator, empty=empty), rollout, scores)
    torch.testing.assert_close(credit.per_token, torch.tensor([INTERACTION_BY_HAND[empty]]))
    assert credit.reward_queries.tolist() == [19]


def test_v_empty_in_the_permutation_estimator_goes_to_first_arrivals() -> None:
    model = FakeRewardModel(lexicon(OFFSET_WEIGHTS, offset=6.0))
    rollout = make_rollout([4], finished=[True])
    credit = assign(scar(model, estimator="permutation", empty="zero"), rollout, model.score_rollout(rollout))
    extra = credit.per_token[0, :3] - torch.tensor([1.0, -2.0, 4.0])
    # One order and its reverse: two units arrive first once each, with 6/2; the one between them gets nothing.
    assert sorted(extra.tolist()) == pytest.approx([0.0, 3.0, 3.0])


def test_terminal_v_empty_goes_to_the_last_content_token_of_an_unfinished_response() -> None:
    model = FakeRewardModel(lexicon(OFFSET_WEIGHTS, offset=6.0))
    rollout = make_rollout([3], response_padding=1)
    credit = assign(scar(model, empty="terminal"), rollout, model.score_rollout(rollout))
    torch.testing.assert_close(credit.per_token, torch.tensor([[1.0, -2.0, 10.0, 0.0]]))


@pytest.mark.parametrize("empty", EMPTIES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_responses_of_one_or_no_unit_cost_no_query(estimator: str, empty: str) -> None:
    model = FakeRewardModel(lexicon({10: 2.0, 11: 3.0}, offset=6.0))
    # EOS alone; one content token and EOS; one content token without EOS.
    rollout = make_rollout([1, 2, 1], finished=[True, True, False])
    credit = assign(scar(model, estimator=estimator, empty=empty), rollout, model.score_rollout(rollout))
    assert model.scorer.calls == 0
    assert credit.reward_queries.tolist() == [0, 0, 0]
    # r = 6 on EOS; r = 8 and r = 9 on the only unit.
    assert torch.equal(credit.per_token, torch.tensor([[6.0, 0.0], [8.0, 0.0], [9.0, 0.0]]))


# The offset of 6 is v(empty), the weights sum to what is left of r = 9 in both responses.
@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_dropped_v_empty_is_paid_to_nobody(estimator: str, alpha: float) -> None:
    model = FakeRewardModel(lexicon(OFFSET_WEIGHTS | {13: 2.0, 14: 1.0}, offset=6.0))
    rollout = make_rollout([4, 2], finished=[True, False])
    scores = model.score_rollout(rollout)
    credit = assign(scar(model, estimator=estimator, empty="drop"), rollout, scores)
    torch.testing.assert_close(credit.per_token, torch.tensor([[1.0, -2.0, 4.0, 0.0], [2.0, 1.0, 0.0, 0.0]]))
    assert credit.diagnostics["scar/v_empty_mean"] == pytest.approx(6.0)
    paid = shape_rewards(rollout, scores, credit, kl_coef=0.0, alpha=alpha).total.sum(1)
    torch.testing.assert_close(paid, torch.tensor([9.0 - 6 * alpha, 9.0 - 6 * alpha]))  # r less alpha v(empty)


def test_a_wrong_sum_is_caught_where_v_empty_is_dropped() -> None:
    class Wrong(ExactEstimator):
        def estimate(self, game: Any, generator: np.random.Generator) -> Any:
            return [dataclasses.replace(one, values=one.values + 0.01) for one in super().estimate(game, generator)]

    model = FakeRewardModel(lexicon(OFFSET_WEIGHTS, offset=6.0))
    rollout = make_rollout([4], finished=[True])
    method = ScarMethod(scorer=model.scorer, estimator=Wrong(max_units=4), fill="space", empty="drop")
    with pytest.raises(RuntimeError, match="credit does not sum"):
        assign(method, rollout, model.score_rollout(rollout))


@pytest.mark.parametrize("empty", [*EMPTIES, "drop"])
def test_one_unit_without_dense_reward(empty: str) -> None:
    model = FakeRewardModel(lexicon({10: 2.0, 11: 3.0, 12: 1.0, 13: 2.0}))
    # EOS alone; one content token and EOS; one content token without EOS; two units, which play as ever.
    rollout = make_rollout([1, 2, 1, 2], finished=[True, True, False, False])
    scores = model.score_rollout(rollout)
    credit = assign(scar(model, empty=empty, one_unit="none"), rollout, scores)
    assert torch.equal(credit.per_token, torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]))
    assert credit.reward_queries.tolist() == [0, 0, 0, 3]


def test_scar_diagnostics_by_hand() -> None:
    model = FakeRewardModel(lexicon({10: 1.0, 11: -2.0, 12: 4.0, 13: -1.0, 14: 2.0}, offset=6.0))
    rollout = make_rollout([3, 2, 1], finished=[False, False, True])
    diagnostics = assign(scar(model, empty="terminal"), rollout, model.score_rollout(rollout)).diagnostics
    # Players 3, 2, 0; coalitions less the grand one 8 - 1, 4 - 1, 0; negative: -2 and -1 of five.
    expected = {
        "scar/n_units_mean": 5 / 3,
        "scar/one_unit_frac": 1 / 3,
        "scar/n_units_max": 3.0,
        "scar/evals_mean": 10 / 3,
        "scar/v_empty_mean": 6.0,
        "scar/exact_frac": 2 / 3,
        "scar/neg_credit_frac": 2 / 5,
        "scar/rebalanced_frac": 0.0,
        "scar/coarsened_frac": 0.0,
        "scar/truncated_frac": 0.0,
        "scar/efficiency_err_max": 0.0,
    }
    assert diagnostics == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("budget", "rebalanced", "coarsened", "queries"),
    [(64, 0.0, 0.0, 63), (30, 1 / 3, 0.0, 27), (20, 0.0, 1 / 3, 15)],  # mid-split 28; four players of a chain 16
)
def test_scar_counts_replaced_hierarchies(budget: int, rebalanced: float, coarsened: float, queries: int) -> None:
    model = FakeRewardModel(lexicon(WEIGHTS))
    rollout = make_rollout([6, 2, 1], finished=[False, False, True])
    units = token_units(rollout.content_mask, [chain(6), balanced_hierarchy(2), balanced_hierarchy(0)])  # 2^6 = 64
    method = ScarMethod(scorer=model.scorer, estimator=OwenEstimator(budget), fill="space", empty="uniform")
    credit = assign(method, rollout, model.score_rollout(rollout), units)
    assert credit.diagnostics["scar/rebalanced_frac"] == pytest.approx(rebalanced)
    assert credit.diagnostics["scar/coarsened_frac"] == pytest.approx(coarsened)
    assert credit.reward_queries.tolist() == [queries, 3, 0]
    assert credit.diagnostics["scar/evals_mean"] == pytest.approx((queries + 3) / 3)


def test_scar_credit_of_joined_units_lands_on_the_last_of_them() -> None:
    # A chain of six in 20 coalitions is four players: 10, 11, 12 together, then 13, 14, 15. v(empty) = 6.
    model = FakeRewardModel(lexicon(WEIGHTS, offset=6.0))
    rollout = make_rollout([7], finished=[True])
    units = token_units(rollout.content_mask, [chain(6)])
    # 1.5 - 2.25 + 4 = 3.25 at step 2, then -.125, 0, 3.
    by_hand = {
        "terminal": [0.0, 0.0, 3.25, -0.125, 0.0, 3.0, 6.0],
        "uniform": [1.0, 1.0, 4.25, 0.875, 1.0, 4.0, 0.0],
        "zero": [0.0, 0.0, 3.25 + 0.75, -0.125 + 0.75, 0.0 + 1.5, 3.0 + 3.0, 0.0],  # depths 3 3 2 1
    }
    for empty, expected in by_hand.items():
        method = ScarMethod(scorer=model.scorer, estimator=OwenEstimator(20), fill="space", empty=empty)
        credit = assign(method, rollout, model.score_rollout(rollout), units)
        torch.testing.assert_close(credit.per_token, torch.tensor([expected]))


@pytest.mark.parametrize(
    ("method", "needed"),
    [
        (SparseMethod, ()),
        (UniformMethod, ()),
        (AttentionMethod, ("reward_model",)),
        (RedMethod, ("reward_model",)),
        (ScarMethod, ("scorer", "estimator", "texts", "units")),
    ],
)
def test_what_a_method_needs_is_read_off_its_signatures(method: type, needed: tuple[str, ...]) -> None:
    assert needs(method) == needed


def test_a_method_that_says_what_it_needs_in_the_old_way_is_refused() -> None:
    class Old(SparseMethod):
        needs_units = False

    with pytest.raises(ValueError, match=r"Old\.needs_units is no longer read; leave it out, and give `assign`"):
        needs(Old)


def test_what_assigns_no_credit_is_no_method() -> None:
    with pytest.raises(ValueError, match=r"mixed_rollout is no credit method; allowed: a class with assign\("):
        needs(mixed_rollout)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"empty": "keep"}, "empty=keep; allowed: uniform, zero, terminal, drop$"),
        ({"one_unit": "keep"}, "one_unit=keep; allowed: score, none$"),
        ({"fill": "pad"}, "fill=pad; allowed: space, delete, collapse, dots$"),
    ],
)
def test_unknown_options_name_what_is_allowed(option: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scar(FakeRewardModel(uneven), **option)
