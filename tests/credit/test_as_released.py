"""SCAR as released: masked texts that are tokenised again, and Owen values cut off on shap's own tree. The shap package, which
the authors' code calls, is the oracle."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from scar.credit.game import BLANKS, TextGame
from scar.credit.methods import ScarMethod
from scar.credit.partition import PartitionEstimator, shap_tree
from scar.credit.shap_oracle import partition_values, untouched_global_rng
from scar.credit.texts import UnitTexts, masked_text
from scar.models.loading import train_tokenizer
from scar.segmentation.hierarchies import balanced_hierarchy, coalition_count
from scar.segmentation.offsets import token_offsets
from scar.segmentation.units import TextUnits, token_units, units_of_spans
from scar.types import Rollout, Units
from tests.builders import (
    EOS,
    FakeRewardModel,
    TableGames,
    closed_form_owen,
    random_game,
    random_hierarchy,
    rollout_of,
    worths,
)

TEXT = """the film was good and they did not know but it is a quiet story of two people who can't agree or leave I don't think
that's right ( maybe ) [note] 'thing' unbelievable performances 3.50 really yes no well-made é"""
WORDS = TEXT.split()
PIECES = [*WORDS, "a", "t", "s", "'", ",", ".", "?", "!", "(", ")", "or", "", "\n"]
MAX_EVALS = 500


@lru_cache(maxsize=1)
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, most words in one or two tokens; EOS is that of the builders."""
    return train_tokenizer([" ".join(WORDS)] * 3 + [" " + word + "," for word in WORDS], vocab_size=400)


def encode(text: str) -> list[int]:
    ids: list[int] = tokenizer().encode(text, add_special_tokens=False)
    return ids


def random_response(rng: np.random.Generator, tokens: int) -> list[int]:
    """Tokens of a text of random words with commas and full stops, such that its text has these tokens again."""
    while True:
        words = [str(word) + str(rng.choice(["", "", "", "", ",", ".", "!"])) for word in rng.choice(WORDS, tokens)]
        ids = encode(" " + " ".join(words))[:tokens]
        if encode(tokenizer().decode(ids)) == ids:
            return ids


def cuts(text: str) -> list[tuple[int, int]]:
    """Spans that end behind each of . , ; ? !"""
    ends = [match.end() for match in re.finditer(r"[.,;?!]", text)]
    ends += [len(text)] * (len(text) > (ends[-1] if ends else 0))
    return list(pairwise([0, *ends]))


def spans_of(text: str, return_offsets_mapping: bool = True) -> dict[str, Any]:
    """`cuts` in the form that shap's text masker asks of a tokenizer."""
    offsets = cuts(text)
    return {"input_ids": [text[start:end] for start, end in offsets], "offset_mapping": offsets}


def token_game_units(rollout: Rollout) -> Units:
    content = rollout.content_mask
    return token_units(content, [balanced_hierarchy(n) for n in content.sum(1).tolist()])


def span_game_units(rollout: Rollout) -> Units:
    responses = []
    for ids, length in zip(rollout.response_ids.tolist(), rollout.content_mask.sum(1).tolist(), strict=True):
        text, offsets = token_offsets(ids[:length], tokenizer())
        starts = [start for start, _ in cuts(text)]
        responses.append(TextUnits(text, offsets, starts, balanced_hierarchy(len(starts))))
    return units_of_spans(rollout.content_mask, responses)


def worth(ids: list[int]) -> float:
    """A score of tokens with interactions of every order, which depends on their order."""
    total = 0.3
    for place, token in enumerate(ids):
        total = 1.9 * math.sin(1.7 * total + 0.37 * token + 0.11 * place) + 0.05 * (token % 5)
    return total


KINDS: dict[str, SimpleNamespace] = {
    "spans": SimpleNamespace(units=span_game_units, fill="collapse", masker=spans_of),
    "tokens": SimpleNamespace(units=token_game_units, fill="dots", masker=None),
}


def text_masker(kind: str) -> Any:
    shap = pytest.importorskip("shap", reason="the shap package is not installed (pip install 'scar[shap]')")
    if kind == "tokens":
        return shap.maskers.Text(tokenizer())
    return shap.maskers.Text(spans_of, mask_token=" ", collapse_mask_token=True)


def shap_values(kind: str, score: Callable[[str], float], text: str) -> tuple[np.ndarray, int]:
    """shap's values of a text as the authors' code asks for them, and how many texts were scored."""
    import shap

    asked: list[str] = []

    def model(texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        return np.array([score(one) for one in texts])

    with untouched_global_rng():
        explainer = shap.Explainer(model, text_masker(kind), algorithm="auto")
        explanation = explainer([text], silent=True)
    return explanation.values[0], len(asked)


def texts_of(**options: Any) -> UnitTexts:
    return UnitTexts(tokenizer(), tokenizer(), **({"max_tokens": 10_000} | options))


def method_of(model: FakeRewardModel, fill: str, **options: Any) -> ScarMethod:
    estimator = PartitionEstimator(max_evals=MAX_EVALS, batch_size=5, hierarchy="shap")
    return ScarMethod(
        scorer=model.scorer, estimator=estimator, fill=fill, empty="drop", one_unit="none", texts=texts_of(), **options
    )


# The whole of it against shap.


@pytest.mark.parametrize(("kind", "reads_eos"), [("spans", True), ("tokens", False)])
def test_credit_is_what_the_shap_package_gives_the_same_texts(kind: str, reads_eos: bool) -> None:
    text_masker(kind)  # skips where shap is absent
    rng = np.random.default_rng(0)
    lengths = [53, 53, 53, 40, 33, 24, 24, 20, 18, 17, 16, 12, 9, 7, 5, 4, 3, 2, 53, 30]
    if kind == "spans":  # about every second word ends one
        lengths = [200, 160, 120, *(max(length, 12) for length in lengths[3:])]
    contents = [random_response(rng, length) for length in lengths]
    rollout = rollout_of(contents, [True] * len(contents))
    model = FakeRewardModel(worth)
    scores = model.score_rollout(rollout, reads_eos=reads_eos)
    units = KINDS[kind].units(rollout)
    credit = method_of(model, KINDS[kind].fill).assign(rollout, scores, units, generator=np.random.default_rng(0))
    closing = [EOS] * reads_eos
    differences, cut_off = [], 0
    for row, content in enumerate(contents):
        prompt = rollout.prompts.prompt_ids[row].tolist()

        def score(text: str, prompt: list[int] = prompt) -> float:
            return worth(prompt + encode(f" {text}") + closing)

        text = tokenizer().decode(content)
        count = int(units.count[row])
        expected, queries = shap_values(kind, score, text)
        assert credit.unit_values is not None
        differences.append(np.abs(credit.unit_values[row, :count].numpy() - expected).max())
        assert int(credit.reward_queries[row]) == queries - 1  # v(all) is known
        cut_off += queries >= MAX_EVALS
    assert cut_off >= 3
    assert len(differences) == 20
    assert max(differences) <= 1e-5


# Texts.


@pytest.mark.parametrize(
    ("present", "blank", "expected"),
    [
        ("111", " ", "A cat, a dog. It"),
        ("101", " ", "A cat, It"),
        ("101", "...", "A cat, ... It"),
        ("001", "...", "... It"),
        ("001", " ", "It"),
        ("100", "...", "A cat, ..."),
        ("000", " ", ""),
        ("000", "...", "..."),
        ("010", "...", "... a dog. ..."),
    ],
)
def test_masked_texts_by_hand(present: str, blank: str, expected: str) -> None:
    units = [" A  cat,", " a dog.\n", "\nIt"]
    assert masked_text(units, np.array([one == "1" for one in present]), blank) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_masked_texts_are_those_of_shaps_masker(kind: str) -> None:
    masker, rng = text_masker(kind), np.random.default_rng(1)
    for length in (2, 7, 20, 53):
        text = tokenizer().decode(random_response(rng, length)).replace(" film", "\n film  ")
        offsets = spans_of(text)["offset_mapping"] if kind == "spans" else token_offsets(encode(text), tokenizer())[1]
        units = [text[start:end] for start, end in offsets]
        for _ in range(30):
            present = rng.random(len(units)) < rng.random()
            assert masked_text(units, present, BLANKS[KINDS[kind].fill]) == masker(present, text)[0][0]


def test_texts_of_units_are_the_decoded_response() -> None:
    content = encode(" I don't know, naïve café 🙂!")
    rollout = rollout_of([content, []], [True, True])
    for units in (token_game_units(rollout), span_game_units(rollout)):
        first, second = texts_of().of(rollout, units)
        assert "".join(first) == tokenizer().decode(content)
        assert (len(first), second) == (int(units.count[0]), [])


def test_a_masked_text_is_read_behind_its_prompt_and_before_the_eos_that_was_read() -> None:
    contents = [encode(" the film, it was good."), encode("know")]
    rollout = rollout_of(contents, [True, True])
    for reads_eos in (True, False):
        model = FakeRewardModel(worth)
        game = TextGame(model.scorer, fill="collapse", texts=texts_of()).batch(
            model.score_rollout(rollout, reads_eos=reads_eos), span_game_units(rollout), rollout
        )
        v = game.evaluate([np.array([[False, False], [True, False], [False, True], [True, True]]), None])[0]
        prompt, closing = rollout.prompts.prompt_ids[0].tolist(), [EOS] * reads_eos
        rows = [prompt + encode(text) + closing for text in (" ", " the film,", " it was good.")]
        assert sorted(model.scorer.rows) == sorted(rows)  # v(all) is not asked for
        assert v is not None
        assert v.tolist() == pytest.approx([*(worth(row) for row in rows), game._responses[0].raw])


def test_a_masked_text_that_the_reward_model_cannot_read_is_an_error() -> None:
    rollout = rollout_of([encode(" the film, it was good.")], [True])
    model = FakeRewardModel(worth)
    needed = 2 + len(encode(" the film,")) + 1  # prompt, text, EOS
    scores, units = model.score_rollout(rollout, reads_eos=True), span_game_units(rollout)
    games = [
        TextGame(model.scorer, fill="collapse", texts=texts_of(max_tokens=room)).batch(scores, units, rollout)
        for room in (needed, needed - 1)
    ]
    masks: list[np.ndarray | None] = [np.array([[True, False]])]
    games[0].evaluate(masks)
    message = rf"tokenised again, take {needed} tokens .*which reads {needed - 1}; lower task\.generation"
    with pytest.raises(ValueError, match=message):
        games[1].evaluate(masks)


def test_what_needs_texts_says_so() -> None:
    model, rollout = FakeRewardModel(worth), rollout_of([encode(" the film")], [True])
    with pytest.raises(ValueError, match=r"fill=collapse needs the texts of units"):
        TextGame(model.scorer, fill="collapse")
    game = TextGame(model.scorer, fill="space").batch(model.score_rollout(rollout), token_game_units(rollout))
    with pytest.raises(ValueError, match=r"this game has no texts of units; make it by TextGame\("):
        PartitionEstimator(max_evals=9, batch_size=5, hierarchy="shap").estimate(game, np.random.default_rng(0))


# shap's tree.


@given(texts=st.lists(st.sampled_from(PIECES), min_size=1, max_size=25), seed=st.integers(0, 999))
def test_the_tree_is_that_of_shaps_masker(texts: list[str], seed: int) -> None:
    masker, rng = text_masker("spans"), np.random.default_rng(seed)
    spaced = [" " * int(rng.integers(2)) + text + " " * int(rng.random() < 0.1) for text in texts]
    # What the masker keeps of the text that it read last.
    masker._s, masker._segments_s, masker._tokenized_s = "", np.array(spaced, dtype=object), np.arange(len(spaced))
    expected = masker.clustering("")[:, :2] if len(spaced) > 1 else np.zeros((0, 2))
    np.testing.assert_array_equal(shap_tree(spaced), expected)


def test_a_tree_by_hand() -> None:
    units = ["It", " is", " un", "fair", ",", " but", " no", "."]
    # 8 = un fair: +20 - 2. 9 = It is: -2. 10 = no .: -2 - 1. 11 = It is unfair: -4, left of " but no.": -3 - 2, which is 12.
    # 13 = 11 and the comma: -5 - 1. 14: -5 - 3 - 10 (comma) - 2 ("but").
    assert shap_tree(units).tolist() == [[2, 3], [0, 1], [6, 7], [9, 8], [5, 10], [11, 4], [13, 12]]
    assert shap_tree(["one"]).tolist() == []


# The walk.


@given(count=st.integers(2, 12), seed=st.integers(0, 10_000), budget=st.integers(4, 150), batch=st.integers(1, 12))
def test_a_walk_over_the_given_tree_is_shaps(count: int, seed: int, budget: int, batch: int) -> None:
    text_masker("spans")
    rng = np.random.default_rng(seed)
    hierarchy, game = random_hierarchy(count, rng), random_game(count, rng)
    estimator = PartitionEstimator(max_evals=budget, batch_size=batch, hierarchy="given")
    one = estimator.estimate(TableGames([game], [hierarchy]), rng)[0]
    assert one is not None
    expected = partition_values(lambda masks: worths(game, masks), hierarchy, max_evals=budget, batch_size=batch)
    np.testing.assert_allclose(one.values, expected, atol=1e-12)
    assert one.values.sum() == pytest.approx(game(frozenset(range(count))) - game(frozenset()))
    assert one.empty_share.sum() == pytest.approx(1)


def test_a_walk_cut_off_by_hand() -> None:
    # Tree ((0, 1), (2, 3)), v = 1 [0] + 2 [1] + 20 [2] + 30 [3] + 4. Six evaluations: none, all and those of the root
    # ({0, 1}: 7, {2, 3}: 54), then one node more: the right one, of which 50 / 2 is more than 3 / 2, without the left one
    # ({2}: 24, {3}: 34). So half of 2 and 3 is 20 and 30, the other half is shared equally: 25 each.
    weights = [1.0, 2.0, 20.0, 30.0]
    games = TableGames([lambda units: 4 + sum(weights[i] for i in units)], [balanced_hierarchy(4)])
    one = PartitionEstimator(max_evals=6, batch_size=2, hierarchy="given").estimate(games, np.random.default_rng(0))[0]
    assert one is not None
    np.testing.assert_allclose(one.values, [1.5, 1.5, 22.5, 27.5])
    assert (one.empty, one.queries, one.hierarchy) == (4.0, 5, "truncated")
    np.testing.assert_allclose(one.empty_share, [0.25] * 4)
    assert sum(masks.all() for masks in games.asked[0]) == 1


def test_a_tree_within_the_budget_is_one_evaluation_of_all_its_responses() -> None:
    rng = np.random.default_rng(0)
    tables = [random_game(n, rng) for n in (3, 1, 6)]
    trees = [balanced_hierarchy(n) for n in (3, 1, 6)]
    games = TableGames(tables, trees)
    found = PartitionEstimator(max_evals=28, batch_size=5, hierarchy="given").estimate(games, rng)
    assert games.calls == 1
    assert found[1] is None
    for number in (0, 2):
        one = found[number]
        assert one is not None
        np.testing.assert_allclose(one.values, closed_form_owen(trees[number], tables[number]), atol=1e-12)
        assert (one.queries, one.hierarchy) == (coalition_count(trees[number]) - 1, "given")


def test_responses_walk_in_step() -> None:
    rng = np.random.default_rng(0)
    tables, trees = [random_game(7, rng) for _ in range(5)], [random_hierarchy(7, rng) for _ in range(5)]
    estimator = PartitionEstimator(max_evals=20, batch_size=5, hierarchy="given")
    games = TableGames(tables, trees)
    together = estimator.estimate(games, rng)
    assert games.calls == 1 + 4  # none and all; the root's two, then six, six and what is left of twenty
    for game, tree, one in zip(tables, trees, together, strict=True):
        alone = estimator.estimate(TableGames([game], [tree]), rng)[0]
        assert one is not None
        assert alone is not None
        np.testing.assert_array_equal(one.values, alone.values)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_evals": 3}, r"estimator\.max_evals=3; allowed: a whole number, 4 or more"),
        ({"batch_size": True}, r"estimator\.batch_size=True; allowed: a whole number, 1 or more"),
        ({"hierarchy": "own"}, r"estimator\.hierarchy=own; allowed: shap or given"),
    ],
)
def test_settings_of_the_estimator(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartitionEstimator(**({"max_evals": 500, "batch_size": 5, "hierarchy": "shap"} | setting))
