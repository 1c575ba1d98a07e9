"""Credit where the reward model has other tokens than the policy: units, attention and prefixes meet over characters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scar.config import ScoringConfig
from scar.credit.estimators import ExactEstimator
from scar.credit.methods import AttentionMethod, RedMethod, ScarMethod, needs
from scar.interfaces import CreditMethod, Segmenter
from scar.models.loading import space_token
from scar.models.reading import RewardReader
from scar.ppo.rollout import ResponseScoring
from scar.segmentation.segmenters import SentenceSegmenter, TokenSegmenter
from scar.types import RewardInputs, Rollout, Scores, Units
from tests.builders import FakeRewardModel, uneven
from tests.models.vocabularies import (
    REWARD_TOKENIZERS,
    TEXTS,
    encode,
    long_tokenizer,
    policy_bytes,
    policy_tokenizer,
    sampled,
)

PROMPT = "The prompt:"
SEGMENTERS: dict[str, Callable[[], Segmenter]] = {
    "token": lambda: TokenSegmenter(tokenizer=policy_tokenizer()),
    "word": lambda: TokenSegmenter(tokenizer=policy_tokenizer(), merge_subwords=True),
    "sentence": lambda: SentenceSegmenter(tokenizer=policy_tokenizer()),
}


def weight(token: int) -> float:
    """A weight for each reward token, of either sign and none the double of another."""
    return ((token * 37) % 101 - 50) / 8


def additive(kind: str) -> FakeRewardModel:
    """The sum of the weights of the response's tokens; the prompt and the token of absent units weigh nothing."""
    tokenizer = REWARD_TOKENIZERS[kind]()
    prompt = len(tokenizer.encode(PROMPT, add_special_tokens=False)) + (kind == "metaspace")  # its BOS
    blank = space_token(tokenizer) if kind != "word pieces" else tokenizer.pad_token_id  # which has no space
    model = FakeRewardModel(lambda ids: sum(weight(token) for token in ids[prompt:] if token != blank))
    model.scorer.space_id = blank
    return model


def scores_of(model: FakeRewardModel, rollout: Rollout, kind: str, *, reads_eos: bool = False) -> Scores:
    reader = RewardReader(policy_tokenizer(), REWARD_TOKENIZERS[kind](), reads_eos=reads_eos, max_tokens=10_000)
    return ResponseScoring(model, reader, ScoringConfig(reads_eos, None)).score(rollout)


def scar(model: FakeRewardModel, *, estimator: Any = None, fill: str = "space", empty: str = "uniform") -> ScarMethod:
    estimator = ExactEstimator(max_units=12) if estimator is None else estimator
    return ScarMethod(scorer=model.scorer, estimator=estimator, fill=fill, empty=empty)


def credit_of(method: CreditMethod, rollout: Rollout, scores: Scores, units: Units | None = None) -> torch.Tensor:
    given = {"units": units} if "units" in needs(type(method)) else {}
    return method.assign(rollout, scores, **given, generator=np.random.default_rng(0)).per_token


def expected_credit(rollout: Rollout, scores: Scores, units: Units, kind: str) -> torch.Tensor:
    """Sums of weights, unit by unit: a unit without a token of the reward model is part of the one before it (of the one
    behind it at the start), and credit is on the last policy token of what that makes. EOS weighs for every unit alike,
    since it is there in every coalition: v(empty) is shared out equally."""
    out = torch.zeros(rollout.logprobs.shape)
    blank = additive(kind).scorer.space_id
    eos = REWARD_TOKENIZERS[kind]().eos_token_id
    for row in range(len(out)):
        index = units.unit_index[row].tolist()
        totals: dict[int, float] = {}
        read = scores.inputs.mask[row]
        for token, step in zip(
            scores.inputs.ids[row, read].tolist(), scores.inputs.step[row, read].tolist(), strict=True
        ):
            if step >= 0:
                totals[index[step]] = totals.get(index[step], 0.0) + weight(token) * (token != blank)
        closing = weight(eos) if bool((scores.inputs.step[row, read] < 0).any()) else 0.0
        content = [step for step, unit in enumerate(index) if unit >= 0]
        if not content:
            out[row, int(rollout.last_step[row])] = closing
            continue
        if not totals:
            out[row, content[-1]] = closing
        for place, unit in enumerate(sorted(totals)):
            later = sorted(totals)[place + 1 :]
            ends = [step for step in content if not later or index[step] < later[0]]
            out[row, ends[-1]] = totals[unit] + closing / len(totals)
    return out


@pytest.mark.parametrize("segmentation", SEGMENTERS)
@pytest.mark.parametrize("kind", REWARD_TOKENIZERS)
@given(
    batch=st.lists(TEXTS, min_size=1, max_size=2), fill=st.sampled_from(["space", "delete"]), reads_eos=st.booleans()
)
def test_scar_credit_of_an_additive_reward_is_the_weight_of_each_units_reward_tokens(
    kind: str, segmentation: str, batch: list[str], fill: str, reads_eos: bool
) -> None:
    model = additive(kind)
    rollout = sampled([encode(text)[:9] for text in batch])
    scores = scores_of(model, rollout, kind, reads_eos=reads_eos)
    units = SEGMENTERS[segmentation]().segment(rollout)
    credit = credit_of(scar(model, fill=fill), rollout, scores, units)
    torch.testing.assert_close(credit, expected_credit(rollout, scores, units, kind), atol=1e-4, rtol=0)


def test_a_reward_token_over_three_policy_tokens_makes_them_one_player() -> None:
    kind, text = "bytes", " unbelievable film"
    whole = long_tokenizer().encode(text)
    assert [long_tokenizer().decode([token]) for token in whole] == [" unbelievable", " film"]
    pieces = [policy_tokenizer().decode([token]) for token in encode(text)]
    assert "".join(pieces) == text
    word = next(n for n in range(len(pieces)) if "".join(pieces[:n]) == " unbelievable")
    assert word >= 2
    assert len(pieces) - word >= 2
    model = additive(kind)
    rollout = sampled([encode(text)], [False])
    scores = scores_of(model, rollout, kind)
    units = TokenSegmenter(tokenizer=policy_tokenizer()).segment(rollout)
    got = scar(model).assign(rollout, scores, units, generator=np.random.default_rng(0))
    expected = torch.zeros(1, len(pieces))
    expected[0, word - 1], expected[0, -1] = weight(whole[0]), weight(whole[1])
    torch.testing.assert_close(got.per_token, expected)
    assert got.diagnostics["scar/n_units_mean"] == 2
    assert got.reward_queries.tolist() == [3]  # coalitions of two players beside the score itself
    blank = model.scorer.space_id
    assert {tuple(ids[-2:]) for ids in model.scorer.rows} == {(blank, blank), (whole[0], blank), (blank, whole[1])}


def test_one_reward_token_for_the_whole_response_takes_the_score() -> None:
    model = additive("bytes")
    rollout = sampled([encode(" unbelievable")], [True])
    assert int(rollout.content_mask.sum()) >= 2
    scores = scores_of(model, rollout, "bytes")
    credit = credit_of(scar(model), rollout, scores, SEGMENTERS["token"]().segment(rollout))
    expected = torch.zeros_like(credit)
    expected[0, -2] = scores.raw[0]  # the last token before EOS
    torch.testing.assert_close(credit, expected)
    assert model.scorer.rows == []


# Attention and prefixes by hand. Policy tokens "ab", "c", "d", EOS; reward tokens "a", "bcd", EOS.

A, BCD, CLOSE = 11, 12, 3
OVERLAP = torch.tensor([[[1.0, 0, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 0], [0, 0, 0, 0]]])


def by_hand(*, reads_eos: bool) -> tuple[Rollout, RewardInputs]:
    """Two columns of prompt, of which one is padding; four columns of response, of which one or two are."""
    rollout = sampled([[10, 11, 12]], [True])
    inputs = RewardInputs(
        prompt_ids=torch.tensor([[1, 7]]),
        prompt_mask=torch.tensor([[False, True]]),
        ids=torch.tensor([[A, BCD, CLOSE if reads_eos else 1, 1]]),
        mask=torch.tensor([[True, True, reads_eos, False]]),
        step=torch.tensor([[0, 0, -1, -1]]),
        end_step=torch.tensor([[0, 2, 3 if reads_eos else 0, 0]]),
        overlap=OVERLAP,
    )
    return rollout, inputs


def hand_scores(inputs: RewardInputs, raw: float) -> Scores:
    score = torch.tensor([raw])
    return Scores(score, score, torch.tensor([False]), inputs)


@pytest.mark.parametrize("reads_eos", [False, True])
def test_abc_spreads_attention_over_shared_characters_by_hand(reads_eos: bool) -> None:
    # Attention .3 to "a", .3 to "bcd", .2 to EOS (if read), the rest to the prompt. "ab" gets .3 + .1, "c" and "d" .1:
    # shares 4/6, 1/6, 1/6 of 12, and EOS nothing.
    rollout, inputs = by_hand(reads_eos=reads_eos)
    attention = torch.tensor([[0.0, 0.2, 0.3, 0.3, 0.2 if reads_eos else 0.0, 0.0]])
    model = FakeRewardModel(uneven, attention=attention)
    credit = credit_of(AttentionMethod(reward_model=model), rollout, hand_scores(inputs, 12.0))
    torch.testing.assert_close(credit, torch.tensor([[8.0, 2.0, 2.0, 0.0]]))


def test_abc_without_attention_to_the_response_becomes_uniform_over_the_policys_content() -> None:
    rollout, inputs = by_hand(reads_eos=True)
    model = FakeRewardModel(uneven, attention=torch.tensor([[0.0, 0.7, 0.0, 0.0, 0.3, 0.0]]))
    credit = credit_of(AttentionMethod(reward_model=model), rollout, hand_scores(inputs, 12.0))
    torch.testing.assert_close(credit, torch.tensor([[4.0, 4.0, 4.0, 0.0]]))


@pytest.mark.parametrize("reads_eos", [False, True])
def test_prefix_differences_land_where_the_text_read_is_complete_by_hand(reads_eos: bool) -> None:
    # r("") = 2, "a" adds 1, "bcd" adds -4, EOS adds .25. "a" is complete with "ab" (also carries r("")), "bcd" with "d".
    rollout, inputs = by_hand(reads_eos=reads_eos)
    worth = {7: 2.0, A: 1.0, BCD: -4.0, CLOSE: 0.25}
    model = FakeRewardModel(lambda ids: sum(worth[token] for token in ids))
    last = 0.25 if reads_eos else 0.0
    credit = credit_of(RedMethod(reward_model=model), rollout, hand_scores(inputs, -1.0 + last))
    torch.testing.assert_close(credit, torch.tensor([[3.0, 0.0, -4.0, last]]))


def holders_of(text: str) -> list[int]:
    """The policy token with the last byte of each character of a whole text."""
    owner = [number for number, token in enumerate(encode(text)) for _ in policy_bytes()[token]]
    ends = np.cumsum([len(character.encode()) for character in text])
    return [owner[end - 1] for end in ends]


@pytest.mark.parametrize("kind", REWARD_TOKENIZERS)
@given(text=TEXTS, seed=st.integers(0, 999), reads_eos=st.booleans())
def test_abc_weights_are_the_attention_of_each_token_shared_out_by_characters(
    kind: str, text: str, seed: int, reads_eos: bool
) -> None:
    rollout = sampled([encode(text)])
    model = FakeRewardModel(uneven)
    scores = scores_of(model, rollout, kind, reads_eos=reads_eos)
    width = scores.inputs.prompt_ids.shape[1]
    attention = torch.rand(1, width + scores.inputs.ids.shape[1], generator=torch.Generator().manual_seed(seed))
    model.attention = attention * scores.inputs.sequence_mask()
    spans = REWARD_TOKENIZERS[kind]()(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    holder = holders_of(text)
    weights = torch.zeros(rollout.response_ids.shape[1])
    for number, (start, end) in enumerate(spans):
        characters = range(start, end) if start < end else range(start, start + 1)  # a mark of the tokenizer's own
        for c in characters:
            weights[holder[c]] += attention[0, width + number] / len(characters)
    content = rollout.content_mask[0]
    if not spans:
        weights = (content if bool(content.any()) else rollout.response_mask[0]).float()
    expected = scores.raw[0] * weights / weights.sum()
    credit = credit_of(AttentionMethod(reward_model=model), rollout, scores)[0]
    torch.testing.assert_close(credit, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", REWARD_TOKENIZERS)
@given(text=TEXTS, reads_eos=st.booleans())
def test_prefix_differences_are_summed_where_each_tokens_last_solid_character_is(
    kind: str, text: str, reads_eos: bool
) -> None:
    rollout = sampled([encode(text)])
    model = FakeRewardModel(uneven)
    scores = scores_of(model, rollout, kind, reads_eos=reads_eos)
    inputs, tokenizer = scores.inputs, REWARD_TOKENIZERS[kind]()
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    holder = holders_of(text)
    expected = torch.zeros(rollout.response_ids.shape[1])
    prompt, ids = inputs.prompt_ids[0].tolist(), inputs.ids[0, inputs.mask[0]].tolist()
    before = 0.0
    for number in range(len(ids)):
        worth = uneven(prompt + ids[: number + 1])
        place = int(rollout.last_step[0])  # EOS
        if number < len(spans):
            start, end = spans[number]
            characters = range(start, max(end, start + 1))
            place = holder[max([c for c in characters if not text[c].isspace()] or characters)]
        expected[place] += worth - before
        before = worth
    if not ids:
        expected[rollout.last_step[0]] = uneven(prompt)
    credit = credit_of(RedMethod(reward_model=model), rollout, scores)[0]
    torch.testing.assert_close(credit, expected, atol=1e-5, rtol=1e-5)
