"""Rows of credit records: by hand for an additive reward, and for any text that the tokens join and credit sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given

from scar.commands.credit import Assigner, CreditRows, nested
from scar.credit.estimators import ExactEstimator, OwenEstimator, PermutationEstimator
from scar.credit.methods import AttentionMethod, ScarMethod, SparseMethod, UniformMethod
from scar.segmentation.chunks import ChunkParser
from scar.segmentation.segmenters import SentenceSegmenter, SpanSegmenter, TokenSegmenter
from scar.types import Rollout, Scores
from tests.builders import EOS, PAD, FakeRewardModel, lexicon, uneven
from tests.segmentation.samples import TEXTS, byte_tokenizer, encode

GOOD, BAD = encode(" good")[-1], encode(" left")[-1]


class Scoring:
    def __init__(self, model: FakeRewardModel) -> None:
        self._model = model

    def score(self, rollout: Rollout) -> Scores:
        return self._model.score_rollout(rollout)


def rows_of(model: FakeRewardModel, *, empty: str = "uniform") -> CreditRows:
    tokenizer = byte_tokenizer()
    span = SpanSegmenter(tokenizer=tokenizer, parser=ChunkParser())

    def scar(estimator: Any) -> ScarMethod:
        return ScarMethod(scorer=model.scorer, estimator=estimator, fill="space", empty=empty)

    assigners = {
        "sparse": Assigner(SparseMethod()),
        "uniform": Assigner(UniformMethod()),
        "abc": Assigner(AttentionMethod(reward_model=model)),
        "scar:token": Assigner(scar(PermutationEstimator(permutations=2)), TokenSegmenter(tokenizer=tokenizer)),
        "scar:span": Assigner(scar(OwenEstimator(max_coalitions=4096)), span, span.trees),
        "scar:sentence": Assigner(scar(ExactEstimator(max_units=12)), SentenceSegmenter(tokenizer=tokenizer)),
    }
    return CreditRows(assigners, Scoring(model), tokenizer, PAD, EOS, 1, torch.device("cpu"))


def sample(text: str, *, finished: bool = True, reward: float | None = None) -> dict[str, Any]:
    ids = encode(text) + [EOS] * finished
    row = {"prompt": "The", "reward_prompt": None, "response": text, "reward": reward}
    return row | {"prompt_ids": encode("The"), "response_ids": ids}


def test_a_row_by_hand() -> None:
    model = FakeRewardModel(lexicon({GOOD: 2.0, BAD: -0.5}))
    row = rows_of(model).row(7, sample(" good. She left"))
    pieces = [token["text"] for token in row["tokens"]]
    assert pieces[-1] == ""
    assert "".join(pieces) == row["response"] == " good. She left"
    assert (row["number"], row["reward"], row["credited"], row["finished"]) == (7, 1.5, 1.5, True)
    assert [token["start"] for token in row["tokens"]][1:] == [token["end"] for token in row["tokens"]][:-1]
    methods = row["methods"]
    assert methods["sparse"]["per_token"] == [0.0] * (len(pieces) - 1) + [1.5]
    assert methods["uniform"]["per_token"] == pytest.approx([1.5 / len(pieces)] * len(pieces))
    by_piece = dict(zip(pieces, methods["scar:token"]["per_token"], strict=True))
    assert by_piece[" good"] == pytest.approx(2.0)  # additive, so each token is worth its weight
    assert by_piece[""] == 0.0
    assert [(unit["text"], unit["value"]) for unit in methods["scar:sentence"]["units"]] == [
        (" good.", pytest.approx(2.0)),
        (" She left", pytest.approx(-0.5)),
    ]
    assert methods["scar:sentence"]["units"][1]["end"] == len(pieces) - 1  # EOS is in no unit
    assert methods["scar:sentence"]["hierarchy"] == [[0, 1]]
    assert methods["scar:sentence"]["trees"] is None
    assert methods["scar:span"]["trees"] == [
        ["S", ["CL", ["CH", ["W", "good"], ["W", "."]]]],
        ["S", ["CL", ["CH", ["W", "She"], ["W", "left"]]]],
    ]
    assert "units" not in methods["abc"]
    assert (methods["sparse"]["queries"], methods["abc"]["queries"], methods["scar:sentence"]["queries"]) == (0, 1, 3)


@given(TEXTS)
def test_tokens_join_to_the_response_and_every_method_sums_to_the_reward(text: str) -> None:
    row = rows_of(FakeRewardModel(uneven)).row(0, sample(text))
    assert "".join(token["text"] for token in row["tokens"]) == row["response"] == text
    for name, method in row["methods"].items():
        assert len(method["per_token"]) == len(row["tokens"])
        assert sum(method["per_token"]) == pytest.approx(row["reward"], abs=1e-4), name
        assert method["sum"] == pytest.approx(row["reward"], abs=1e-4), name
        if "units" in method:
            assert [unit["start"] for unit in method["units"]] == [0, *[u["end"] for u in method["units"]]][
                : len(method["units"])
            ]
            assert "".join(unit["text"] for unit in method["units"]) == text
            credit = [sum(method["per_token"][unit["start"] : unit["end"]]) for unit in method["units"]]
            assert credit == pytest.approx([unit["value"] for unit in method["units"]], abs=1e-5)


def test_a_reward_of_another_model_is_refused() -> None:
    rows = rows_of(FakeRewardModel(lexicon({GOOD: 2.0})))
    assert rows.row(0, sample(" good", reward=2.001))["reward"] == 2.0
    with pytest.raises(ValueError, match=r"sample 5 was stored with reward 2\.5, but the reward model here gives 2"):
        rows.row(5, sample(" good", reward=2.5))


def test_trees_without_labels_are_nested_with_empty_ones() -> None:
    assert nested([["a", "b"], "c"]) == ["", ["", "a", "b"], "c"]
