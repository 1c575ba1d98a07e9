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


def test_scores_after_the_missing_eos_rule_are_shown_for_tasks_that_have_it(make_run: Callable[..., RunRecord]) -> None:
    runs = [
        make_run("sparse", task="tldr", final=2.0, config={"scoring.missing_eos_score": -1.0}),
        make_run("scar", task="tldr", final=3.0, config={"scoring.missing_eos_score": -1.0}),
    ]
    text = table1_markdown(select_cells(runs))
    assert "a response without EOS scores -1; test scores after that rule" in text
    assert "Sparse RLHF 1.00 (75%), SCAR 2.00 (75%)" in text
