"""What a run takes in all: parts, stages, hours; what offloading and a narrower copy change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scar.config import GenerationConfig, MemoryConfig
from scar.planning.devices import DEVICES
from scar.planning.estimate import Estimate, Planner
from scar.planning.runs import Run
from tests.planning.tiny import coalitions, tiny_run

A100 = DEVICES["a100-80gb"]
POLICY = 2048 * 32 + 128 * 32 + 2 * (12 * 32 * 32 + 13 * 32) + 2 * 32
"""Parameters of the tiny GPT-2: embeddings, layers, last norm."""
SCAR = {"method": "scar", "needs": ("scorer", "estimator"), "units": "token"}


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(A100)


def stage(estimate: Estimate, name: str) -> dict[str, float]:
    return next(one for one in (*estimate.stages, estimate.evaluation) if one.name == name).held


def test_parts_by_hand(planner: Planner) -> None:
    found = planner.estimate(tiny_run())
    assert found.parameters == {"policy": POLICY, "reward": POLICY + 32}
    assert found.trained == POLICY + 33
    update = stage(found, "update")
    assert update["policy"] == update["reference"] == 4 * POLICY
    assert update["value"] == 4 * 33
    assert update["reward"] == 4 * (POLICY + 32)
    assert update["optimizer"] == 8 * (POLICY + 33)
    assert update["gradients"] == 4 * (POLICY + 33)
    for name in ("generate", "logprobs", "score", "credit", "evaluation"):
        assert stage(found, name)["gradients"] == 0
        assert stage(found, name)["optimizer"] == update["optimizer"]
    assert stage(found, "optimizer")["activations"] == pytest.approx(4 * (POLICY + 33), rel=0.01)


def test_hours_are_those_of_all_updates(planner: Planner) -> None:
    run = tiny_run()
    found = planner.estimate(run)
    assert found.update_seconds == sum(one.seconds for one in found.stages)
    assert found.hours == found.update_seconds * 2 / 3600
    more = planner.estimate(replace(run, ppo=replace(run.ppo, updates=20)))
    assert more.hours == pytest.approx(10 * found.hours)
    assert found.tflop("update") == found.stages[4].cost.flops / 1e12
    assert found.tflop() == pytest.approx(sum(one.cost.flops for one in found.stages) / 1e12)


def test_shap_reads_every_coalition_as_a_whole_text(planner: Planner) -> None:
    generation = GenerationConfig(temperature=1.0, min_new_tokens=0, max_new_tokens=32, sample_length=False)
    run = tiny_run(task="hh", generation=generation, coalitions=coalitions(), **SCAR)  # usual: prompt 16, response 32
    ours = planner.estimate(run)
    found = planner.as_shap(ours)
    counts = {label: estimate.coalitions for label, estimate in found.items()}
    assert counts == {"shap, 500 at most": 500, "shap, all of 32 tokens": 684}  # (2 * 32^2 + 4) / 3
    for count, estimate in ((500, found["shap, 500 at most"]), (684, found["shap, all of 32 tokens"])):
        assert estimate.tflop("credit") == pytest.approx(count * one_reading(planner, run), rel=1e-6)
        rest = ours.update_seconds - ours.stages[3].seconds
        assert estimate.update_seconds == pytest.approx(rest + estimate.stages[3].seconds)
        assert estimate.stages[3].seconds == planner.device.seconds(estimate.stages[3].cost)
        assert estimate.stages[4] == ours.stages[4]
    assert found["shap, all of 32 tokens"].tflop("credit") > ours.tflop("credit")
    short = planner.as_shap(planner.estimate(tiny_run(coalitions=coalitions(), **SCAR)))
    assert {label: estimate.coalitions for label, estimate in short.items()} == {
        "shap, 44 at most": 44,
        "shap, all of 8 tokens": 44,
    }


def one_reading(planner: Planner, run: Run) -> float:
    """TFLOP of the scores of a batch of the longest texts, which `run`'s usual ones are as long as."""
    return planner.estimate(run).tflop("score")


def test_evaluation_counts_for_memory_only(planner: Planner) -> None:
    few, many = (planner.estimate(tiny_run(evaluation_rows=rows)) for rows in (4, 400))
    assert many.hours == few.hours
    assert many.largest.name == "evaluation"
    # 100 times the rows: keys and values are held of all of them, log-probabilities are computed of two at a time.
    assert 20 < stage(many, "evaluation")["activations"] / stage(few, "evaluation")["activations"] < 100


@pytest.mark.parametrize(
    ("changes", "flops"),
    [
        ({}, 0),
        ({"method": "abc", "needs": ("reward_model",)}, 1),
        ({"method": "red", "needs": ("reward_model",)}, 1),
    ],
)
def test_credit_of_other_methods_is_at_most_one_reading(
    planner: Planner, changes: dict[str, object], flops: int
) -> None:
    found = planner.estimate(tiny_run(**changes))
    assert found.coalitions == 0
    assert found.tflop("credit") == pytest.approx(flops * found.tflop("score"), rel=0.01)


def test_scars_credit(planner: Planner) -> None:
    token, span = (
        planner.estimate(tiny_run(**SCAR | {"units": units}, coalitions=coalitions())) for units in ("token", "span")
    )
    assert token.run.unit_count == 8
    assert token.coalitions == 2 + 4 + 8 + 16 + 16 - 3
    assert span.run.unit_count == 3
    assert span.coalitions == 2**3 - 1  # exact
    assert token.tflop("credit") > span.tflop("credit") > token.tflop("score")
    assert stage(token, "credit")["activations"] == 64 * 2**20  # the bound
    sentence = planner.estimate(tiny_run(**SCAR | {"units": "sentence"}, coalitions=coalitions()))
    assert (sentence.coalitions, sentence.tflop("credit"), stage(sentence, "credit")["activations"]) == (0, 0, 0)


def test_offloading_frees_what_a_stage_does_not_need(planner: Planner) -> None:
    here, away = (planner.estimate(tiny_run(memory=MemoryConfig(False, offload))) for offload in (False, True))
    assert away.hours > here.hours
    for name, kept in {
        "generate": {"reference"},
        "logprobs": {"reference"},
        "score": {"reward"},
        "credit": {"reward"},
        "update": set(),
        "optimizer": set(),
        "evaluation": {"reference", "reward"},
    }.items():
        assert {model for model in ("reference", "reward") if stage(away, name)[model]} == kept
        assert {model for model in ("reference", "reward") if stage(here, name)[model]} == {"reference", "reward"}


@pytest.mark.parametrize(
    ("task", "prompts", "low", "high", "sampled", "usual"),
    [
        ("imdb", (4, 8), 16, 24, True, (6, 20)),
        ("tldr", (512, 512), 0, 53, False, (360, 40)),
        ("tldr", (112, 112), 32, 48, False, (112, 40)),
        ("hh", (96, 96), 48, 64, False, (70, 64)),
        ("other", (100, 100), 1, 50, False, (100, 50)),
    ],
)
def test_usual_lengths(
    task: str, prompts: tuple[int, int], low: int, high: int, sampled: bool, usual: tuple[int, int]
) -> None:
    run: Run = tiny_run(task=task, prompt_tokens=prompts, generation=GenerationConfig(1.0, low, high, sampled))
    assert run.usual == usual
    assert run.longest == (prompts[1], high)
    assert replace(run, units="span", coalitions=coalitions(max_units=5)).unit_count == 5
