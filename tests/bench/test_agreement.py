"""The agreement benchmark on games that are solved by hand; nothing here loads a model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from experiments.studies.agreement.cases import Words, case_rows
from experiments.studies.agreement.measures import (
    additive_r2,
    blank_changes,
    compare,
    measure,
)
from experiments.studies.agreement.roles import contrast, negation, repetition
from experiments.studies.agreement.splits import (
    IN_GAME,
    PREFIX,
    Texts,
    exact_reference,
    left_to_right,
    prefix,
    prefix_as_trained,
    prefix_before_blank,
    sampled_reference,
)
from scar.segmentation.hierarchies import balanced_hierarchy
from scar.segmentation.units import token_units
from scar.types import Units
from tests.builders import FakeRewardModel, hand_units, lexicon, rollout_of

NOT, GOOD, DULL, THE, PROMPT = 10, 11, 12, 13, 500
WEIGHTS = {NOT: 1.0, GOOD: 2.0, DULL: -4.0, THE: 0.5, PROMPT: 3.0}
FOUR = [NOT, GOOD, DULL, THE]


def texts_of(function: Callable[[list[int]], float], *responses: list[int]) -> Texts:
    model = FakeRewardModel(function)
    rollout = rollout_of(responses, [False] * len(responses), prompts=[[PROMPT]] * len(responses), response_padding=1)
    return Texts(rollout, model.score_rollout(rollout), model, model.scorer)


def single(texts: Texts) -> Units:
    counts = texts.rollout.content_mask.sum(1).tolist()
    return token_units(texts.rollout.content_mask, [balanced_hierarchy(count) for count in counts])


def negated(ids: list[int]) -> float:
    """ "good" is worth 1, with "not" anywhere -1; "not" alone nothing."""
    return 0.0 if GOOD not in ids else -1.0 if NOT in ids else 1.0


def test_in_an_additive_game_prefix_differences_are_shapley_values() -> None:
    texts = texts_of(lexicon(WEIGHTS), FOUR, [GOOD, THE, THE, DULL, NOT])
    units = single(texts)
    reference = exact_reference(texts.game(units))
    # v(empty) = r(x) = 3: each of four tokens has its weight and 3/4, each of five its weight and 3/5.
    wanted = [[1.75, 2.75, -3.25, 1.25], [2.6, 1.1, 1.1, -3.4, 1.6]]
    for split in (prefix(texts), left_to_right(texts, units), prefix_before_blank(texts)):
        for found, phi, by_hand in zip(split.of_units(units), reference.values, wanted, strict=True):
            np.testing.assert_allclose(found, by_hand, atol=1e-6)
            np.testing.assert_allclose(phi, by_hand, atol=1e-6)
    rows = {row.method: row for row in compare("token", units, {PREFIX: prefix(texts)}, reference)}
    assert rows[PREFIX].pearson == pytest.approx(1)
    assert rows[PREFIX].spearman == pytest.approx(1)
    assert rows[PREFIX].error == pytest.approx(0, abs=1e-6)
    assert rows[PREFIX].same_sign == 1
    assert (rows[PREFIX].responses, rows[PREFIX].correlated) == (2, 2)


def test_as_trained_the_first_token_has_the_prompts_score() -> None:
    texts = texts_of(lexicon(WEIGHTS), FOUR)
    units = single(texts)
    (found,) = prefix_as_trained(texts).of_units(units)
    np.testing.assert_allclose(found, [4, 2, -4, 0.5], atol=1e-6)
    rows = {
        row.method: row
        for row in compare("token", units, {"p": prefix_as_trained(texts)}, exact_reference(texts.game(units)))
    }
    # |4 - 1.75| + 3 * 0.75 = 4.5 over 1.75 + 2.75 + 3.25 + 1.25 = 9; signs all as they should be.
    assert rows["p"].error == pytest.approx(0.5)
    assert rows["p"].same_sign == 1


def test_a_negation_is_shared_by_shapley_and_falls_on_the_later_word_in_a_prefix() -> None:
    texts = texts_of(negated, [NOT, GOOD], [GOOD, NOT])
    units = single(texts)
    # "not" joins second: -2, first: 0, so -1; "good" joins first: 1, second: -1, so 0.
    for found, by_hand in zip(exact_reference(texts.game(units)).values, [[-1, 0], [0, -1]], strict=True):
        np.testing.assert_allclose(found, by_hand)
    np.testing.assert_allclose(prefix(texts).of_units(units), [[0, -1], [1, -2]])
    np.testing.assert_allclose(left_to_right(texts, units).of_units(units), [[0, -1], [1, -2]])


def test_one_blank_behind_a_prefix_takes_away_what_the_last_token_does_to_the_reading() -> None:
    texts = texts_of(lambda ids: lexicon(WEIGHTS)(ids) + 10 * WEIGHTS.get(ids[-1], 0.0), FOUR)
    np.testing.assert_allclose(prefix_before_blank(texts).per_token, [[1, 2, -4, 0.5, 0]])
    np.testing.assert_allclose(prefix(texts).per_token, [[1 - 20, 2 + 10, -4 - 60, 0.5 + 45, 0]])


def test_the_sampled_reference_is_exact_where_permutations_do_not_matter() -> None:
    texts = texts_of(lexicon(WEIGHTS), FOUR, [GOOD])
    reference = sampled_reference(texts.game(single(texts)), 32)
    np.testing.assert_allclose(reference.values[0], [1.75, 2.75, -3.25, 1.25])
    assert reference.values[1] is None
    assert reference.method == "32 permutations, s.e. 0.0%"


def test_an_additive_game_is_explained_and_a_product_is_not() -> None:
    # v = 1 if both first tokens are there: of its variance 3/16 over all coalitions two slopes of 1/2 explain 2/16.
    both = texts_of(lambda ids: float(NOT in ids and GOOD in ids), FOUR)
    assert additive_r2(both.game(single(both)), exact=True) == pytest.approx([2 / 3])
    plain = texts_of(lexicon(WEIGHTS), FOUR)
    assert additive_r2(plain.game(single(plain)), exact=True) == pytest.approx([1])
    assert additive_r2(plain.game(single(plain)), exact=False) == pytest.approx([1])


def test_one_blank_more_counts_where_the_score_counts_tokens() -> None:
    assert blank_changes(texts_of(lexicon(WEIGHTS), FOUR)) == pytest.approx(np.zeros((1, 8)))
    assert blank_changes(texts_of(lambda ids: 0.5 * len(ids), FOUR)) == pytest.approx(np.full((1, 8), 0.5))


def test_all_methods_are_measured_and_scar_is_exact_in_an_additive_game() -> None:
    responses = [FOUR * 2, [GOOD, THE, DULL, NOT, NOT, THE, DULL, THE]]
    texts = texts_of(lexicon(WEIGHTS), *responses)
    spans = hand_units([[2, 2, 2, 2], [1, 3, 3, 1]], 9, [balanced_hierarchy(4)] * 2)
    rows, games = measure(texts, spans, single(texts), permutations=32)
    by_method = {(row.units, row.method): row for row in rows}
    for level in ("span", "token"):
        for method in (PREFIX, IN_GAME, "scar token, 2 permutations", "scar token, owen"):
            assert by_method[level, method].pearson == pytest.approx(1), (level, method)
            assert by_method[level, method].error == pytest.approx(0, abs=1e-6), (level, method)
    assert by_method["token", "uniform"].pearson == 0
    assert by_method["token", "scar token, 2 permutations"].gae_pearson == pytest.approx(1)
    assert by_method["span", "scar span, owen"].error == pytest.approx(0, abs=1e-6)
    assert by_method["token", "scar span, owen"].error > 0.1  # whole spans on their last tokens
    assert [game.additive_r2 for game in games] == pytest.approx([1, 1])
    assert games[1].prefix_to_game == pytest.approx(1)
    assert games[1].blank_effect == pytest.approx(0)


def test_roles() -> None:
    assert negation(["it", "is", "not", "a", "very", "good", "film"]) == {2: "negator", 5: "negated word"}
    assert negation(["it", "did", "'t", ",", "work"]) == {}  # the clause ends
    assert negation(["never", "dull"]) == {0: "negator", 1: "negated word"}
    assert contrast(["nice", "idea", ",", "but", "it", "drags"]) == {
        0: "before", 1: "before", 3: "connective", 4: "after", 5: "after",
    }  # fmt: skip
    assert contrast(["but", "it", "drags"]) == {}
    assert repetition(["funny", "film", ",", "funny", "and", "funny", "to", "me"]) == {
        0: "first occurrence", 3: "later occurrence", 5: "later occurrence",
    }  # fmt: skip


def words(text: str, credit: list[float], shapley: list[float]) -> Words:
    found = np.array(credit)
    return Words("so", 1.0, text.split(), {PREFIX: found, IN_GAME: found}, np.array(shapley))


def test_a_role_is_compared_with_words_of_like_place_and_size() -> None:
    texts = [
        words("not bad stuff here", [0.0, -1.0, 0.5, 0.5], [-1.0, 1.0, 0.0, 0.0]),
        words("one two three four five six", [1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ]
    roles = [negation(text.words) for text in texts]
    rows = {row.role: row for row in case_rows(("negation", "here", PREFIX, "exact"), texts, roles)}
    bad = rows["negated word"]
    assert (bad.texts, bad.words, bad.shapley, bad.credit, bad.difference) == (1, 1, 1, 1, 2)
    assert bad.nearest_others == 0  # five of the six other words of size 1, all agreed upon; not "stuff here"
    assert (bad.excess, bad.same_sign, bad.overstated) == (2, 0, -2)
    assert rows["negator"].overstated == -1
