"""What Table 1 says beside its numbers: constructed preferences, and the rule for responses without EOS."""

from __future__ import annotations

from collections.abc import Callable

from scar.report.selection import select_cells
from scar.report.tables import table1_markdown
from scar.tracking.records import RunRecord

REPORT = {
    "preferences": "constructed",
    "accuracy": 0.731,
    "accuracy_interval": [0.718, 0.743],
    "accuracy_half_blanked": 0.666,
    "accuracy_by_length": {"longer": 0.42, "shorter": 0.37},
}


def models(**report: object) -> dict[str, object]:
    return {"policy": {"name": "p"}, "reward": {"fingerprint": "f00d", "report": REPORT | report}}


def test_constructed_preferences_are_named_with_their_accuracy(make_run: Callable[..., RunRecord]) -> None:
    text = table1_markdown(select_cells([make_run("sparse", task="tldr", models=models())]))
    assert "a model trained on constructed preferences, not on people's: it is right on 0.73 of held-out pairs" in text
    assert "(95 % interval 0.72 to 0.74; with half of both texts blanked 0.67)" in text
    assert "the longer text is the better one in 0.42, the shorter in 0.37 of them." in text


def test_stated_preferences_are_named_by_whose_they_are(make_run: Callable[..., RunRecord]) -> None:
    found = {key: value for key, value in REPORT.items() if key != "accuracy_half_blanked"}
    for whose in ("people's", "a machine's"):
        reward = {"fingerprint": "f00d", "report": found | {"preferences": whose}}
        run = make_run("sparse", task="tldr", folder=whose, models={"policy": {"name": "p"}, "reward": reward})
        text = table1_markdown(select_cells([run]))
        assert f"a model trained on {whose} preferences: it is right on 0.73 of held-out pairs" in text
        assert "(95 % interval 0.72 to 0.74); the longer text is" in text


def test_ranked_pairs_are_reported_beside_the_constructed_ones(make_run: Callable[..., RunRecord]) -> None:
    ranked = {"ranked_pairs": 41, "ranked_accuracy": 0.6, "ranked_accuracy_interval": [0.45, 0.74]}
    text = table1_markdown(select_cells([make_run("sparse", task="hh", models=models(**ranked))]))
    assert "on 41 held-out machine-ranked pairs it is right on 0.60 (0.45 to 0.74)." in text


def test_scores_after_the_missing_eos_rule_are_shown_for_tasks_that_have_it(make_run: Callable[..., RunRecord]) -> None:
    runs = [
        make_run("sparse", task="tldr", final=2.0, config={"scoring.missing_eos_score": -1.0}),
        make_run("scar", task="tldr", final=3.0, config={"scoring.missing_eos_score": -1.0}),
    ]
    text = table1_markdown(select_cells(runs))
    assert "a response without EOS scores -1; test scores after that rule" in text
    assert "Sparse RLHF 1.00 (75%), SCAR 2.00 (75%)" in text


def test_tasks_without_rule_and_constructed_preferences_have_no_notes(make_run: Callable[..., RunRecord]) -> None:
    text = table1_markdown(select_cells([make_run("sparse", config={"scoring.missing_eos_score": None})]))
    assert "preferences" not in text
    assert "EOS" not in text
