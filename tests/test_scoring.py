"""Scores of responses: the raw score as it is, and the one rule for responses without EOS."""

from __future__ import annotations

import pytest
import torch

from scar.config import ScoringConfig
from scar.models.reading import as_sampled
from scar.ppo.rollout import ResponseScoring
from scar.types import RewardInputs, Rollout, Scores
from tests.builders import EOS, FakeRewardModel, lexicon, make_rollout

WEIGHTS = {10: 4.0, 11: -2.0, 12: 0.5, 13: 8.0, EOS: 100.0}


class Reader:
    """Reads the sampled tokens and counts how often it was asked."""

    def __init__(self, *, reads_eos: bool) -> None:
        self.reads_eos = reads_eos
        self.read_inputs: list[RewardInputs] = []

    def read(self, rollout: Rollout) -> RewardInputs:
        self.read_inputs.append(as_sampled(rollout, reads_eos=self.reads_eos))
        return self.read_inputs[-1]


def mixed_rollout() -> Rollout:
    """10 11 EOS, then 12 13 without EOS, then EOS alone."""
    return make_rollout([3, 2, 1], finished=[True, False, True], prompt_lengths=[2, 1, 2], response_padding=1)


def scored(rule: float | None, *, reads_eos: bool = True, weights: dict[int, float] = WEIGHTS) -> Scores:
    scoring = ResponseScoring(
        FakeRewardModel(lexicon(weights)), Reader(reads_eos=reads_eos), ScoringConfig(reads_eos, rule)
    )
    return scoring.score(mixed_rollout())


def test_raw_is_the_reward_models_score_of_what_the_reader_reads() -> None:
    assert scored(None, reads_eos=True).raw.tolist() == [102.0, 8.5, 100.0]
    assert scored(None, reads_eos=False).raw.tolist() == [2.0, 8.5, 0.0]


@pytest.mark.parametrize("rule", [-1.0, 0.0, 3.5])
def test_the_score_of_a_response_without_eos_is_replaced_and_not_added_to(rule: float) -> None:
    scores = scored(rule)
    assert scores.raw.tolist() == [102.0, 8.5, 100.0]
    assert scores.final.tolist() == [102.0, rule, 100.0]
    assert scores.replaced.tolist() == [False, True, False]
    assert scores.credited.tolist() == [102.0, 0.0, 100.0]


def test_without_the_rule_nothing_is_replaced() -> None:
    scores = scored(None)
    assert torch.equal(scores.final, scores.raw)
    assert torch.equal(scores.credited, scores.raw)
    assert not scores.replaced.any()


def test_everything_is_read_once_in_one_batch() -> None:
    reader, model = Reader(reads_eos=True), FakeRewardModel(lexicon(WEIGHTS))
    scores = ResponseScoring(model, reader, ScoringConfig(True, -1.0)).score(mixed_rollout())
    assert scores.inputs is reader.read_inputs[0]
    assert len(reader.read_inputs) == model.calls == 1
    assert [ids for ids, _ in model.rows] == scores.inputs.sequence_ids().tolist()
    assert [mask for _, mask in model.rows] == scores.inputs.sequence_mask().tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_replaced_score_that_is_no_number_stays_out_of_what_is_credited(bad: float) -> None:
    scores = scored(-1.0, weights=WEIGHTS | {13: bad})
    assert scores.final.tolist() == [102.0, -1.0, 100.0]
    assert scores.credited.tolist() == [102.0, 0.0, 100.0]
    assert not torch.isfinite(scores.raw[1])
