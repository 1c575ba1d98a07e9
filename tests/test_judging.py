"""From finished runs to judgement records, against a local service; the gold reward model's way is in test_gold.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from scar.commands.judge import JudgingConfig, judge_runs, make_match, verdict_rows
from scar.judging.pairs import Answer
from scar.report.selection import select_cells
from scar.tracking.judgements import find_judgements
from scar.tracking.records import SCHEMA_VERSION, RunRecord, RunWriter
from tests.judging.chat_server import completion, failure, serve
from tests.smoke_scale import CONF

KEY = "sk-secret-0987"


def write_run(root: Path, method: str, seed: int, *, items: int = 40, prompts: str = "post") -> RunRecord:
    """A finished tldr run whose responses name their method."""
    writer = RunWriter(root / f"{method}-{seed}")
    rows = [{"prompt": f"{prompts} {i}", "response": f"{method} says {i}"} for i in range(items)]
    writer.write("samples.jsonl", rows)
    settings = {key: {} for key in ("ppo", "models", "task", "data", "prompt", "generation", "scoring", "estimator")}
    settings |= {"model_seed": 1, "evaluation": {"prompts": items}}
    manifest = {"schema_version": SCHEMA_VERSION, "scale": "local", "task": "tldr", "method": method, "seed": seed}
    manifest |= {
        "model_seed": 1,
        "alpha": 1.0,
        "segmentation": None,
        "estimator": None,
        "fingerprint": f"{method}{seed}",
    }
    manifest |= {"device": {"kind": "cpu", "name": "a laptop"}, "commit": "c0ffee", "settings": settings, "timing": {}}
    writer.write("manifest.json", manifest)
    return writer.commit()


def config_of(root: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        folders = [f"paths.runs={root}/runs", f"paths.judgements={root}/judgements"]
        fast = ["judge.requests_per_minute=60000", "judge.max_retries=1"]
        return compose("judging", ["task=tldr", "judge=gemini", "judging.seeds=[1]", *folders, *fast, *overrides])


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)


def no_bar(title: str) -> Any:
    return lambda done, total, losses: None


def prefers_scar(request: dict[str, Any]) -> Any:
    text = request["messages"][0]["content"]
    return completion("A" if text.index("scar says") < text.index("sparse says") else "B")


SETTINGS: dict[str, Any] = {
    "method": "scar",
    "baselines": ["sparse"],
    "seeds": [1],
    "items": 1000,
    "order_seed": 0,
    "both_orders": False,
    "pay": True,
}


def test_the_order_is_drawn_item_by_item_and_wins_are_the_methods_in_both_places(tmp_path: Path) -> None:
    for method in ("scar", "sparse"):
        write_run(tmp_path / "runs", method, 1)
    with serve(prefers_scar) as server:
        cfg = config_of(tmp_path, f"judge.base_url={server.url}", "judging.baselines=[sparse]", "judging.pay=true")
        (folder,) = judge_runs(cfg, select_cells, no_bar)
        assert judge_runs(cfg, select_cells, no_bar) == [folder]  # nothing is judged twice
        assert len(server.requests) == 40
    (record,) = find_judgements(tmp_path / "judgements", task="tldr")
    assert record.path == folder
    assert [row["verdict"] for row in record.verdicts] == ["win"] * 40
    first = [row["answers"][0]["method_first"] for row in record.verdicts]
    assert 10 < sum(first) < 30
    assert [row["answers"][0]["choice"] for row in record.verdicts] == ["A" if one else "B" for one in first]
    manifest = record.manifest
    assert (manifest["label"], manifest["seed"], manifest["items"]) == ("gemini-2.5-pro", 1, 40)
    assert manifest["runs"]["baseline"]["fingerprint"] == "sparse1"
    assert manifest["settings"]["key_variable"] == "GEMINI_API_KEY"
    assert KEY not in "".join(file.read_text() for file in tmp_path.rglob("*.json*"))


def test_a_judging_of_red_under_its_former_name_is_not_paid_for_again(tmp_path: Path) -> None:
    for method in ("scar", "prefix"):
        write_run(tmp_path / "runs", method, 1, items=2)
    with serve(completion("A")) as server:
        url = f"judge.base_url={server.url}"
        (folder,) = judge_runs(
            config_of(tmp_path, url, "judging.baselines=[prefix]", "judging.pay=true"), select_cells, no_bar
        )
        assert folder.parent.name == "scar-vs-prefix"  # as it was called then
        assert judge_runs(config_of(tmp_path, url, "judging.baselines=[red]"), select_cells, no_bar) == [folder]
    (record,) = find_judgements(tmp_path / "judgements")
    assert record.manifest["baseline"] == "red"


def test_an_interrupted_judging_goes_on_and_pays_for_the_rest_only(tmp_path: Path) -> None:
    for method in ("scar", "sparse"):
        write_run(tmp_path / "runs", method, 1, items=6)
    overrides = ("judging.baselines=[sparse]", "judging.pay=true", "judge.concurrency=1")
    with serve(*[completion("A")] * 4, failure(401)) as server:
        with pytest.raises(ConnectionError, match="check the key"):
            judge_runs(config_of(tmp_path, f"judge.base_url={server.url}", *overrides), select_cells, no_bar)
        assert find_judgements(tmp_path / "judgements") == []
    with serve(completion("B")) as server:
        judge_runs(config_of(tmp_path, f"judge.base_url={server.url}", *overrides), select_cells, no_bar)
        assert len(server.requests) == 2
    (record,) = find_judgements(tmp_path / "judgements")
    assert [row["answers"][0]["choice"] for row in record.verdicts] == ["A"] * 4 + ["B"] * 2


def test_nothing_is_spent_before_the_cost_was_agreed_to(tmp_path: Path) -> None:
    for method in ("scar", "sparse"):
        write_run(tmp_path / "runs", method, 1)
    with serve(prefers_scar) as server:
        cfg = config_of(tmp_path, f"judge.base_url={server.url}", "judging.baselines=[sparse]")
        with pytest.raises(
            ValueError, match=r"would be asked 40 times .* \$0\.\d\d .* nothing was spent; add judging.pay=true"
        ):
            judge_runs(cfg, select_cells, no_bar)
        assert server.requests == []
    assert not (tmp_path / "judgements").exists()


def test_without_a_key_one_line_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("scar", "sparse"):
        write_run(tmp_path / "runs", method, 1)
    monkeypatch.delenv("GEMINI_API_KEY")
    with pytest.raises(ValueError, match="set the environment variable GEMINI_API_KEY, or use judge=reward_model"):
        judge_runs(config_of(tmp_path), select_cells, no_bar)


def test_without_runs_one_line_says_what_is_needed(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "scar", 1)
    with pytest.raises(ValueError, match="needs scar and one of sparse, abc with a common seed; make reproduce-table1"):
        judge_runs(config_of(tmp_path), select_cells, no_bar)


def test_runs_on_other_prompts_are_not_compared(tmp_path: Path) -> None:
    runs = write_run(tmp_path, "scar", 1), write_run(tmp_path, "sparse", 1, prompts="another post")
    with pytest.raises(ValueError, match="do not answer the same prompts") as caught:
        make_match(*runs, JudgingConfig(**SETTINGS))
    assert str(runs[0].path) in str(caught.value)
    assert str(runs[1].path) in str(caught.value)


def test_both_orders_count_what_both_say(tmp_path: Path) -> None:
    runs = write_run(tmp_path, "scar", 1, items=4), write_run(tmp_path, "sparse", 1, items=4)
    match = make_match(*runs, JudgingConfig(**SETTINGS))
    pairs = match.pairs(both_orders=True)
    assert len(pairs) == 8
    assert all(one.first == other.second for one, other in zip(pairs[::2], pairs[1::2], strict=True))
    letter = {True: "A", False: "B"}
    win = [Answer(letter["scar" in pair.first["response"]], preference=0.9) for pair in pairs[:2]]
    always_first = [Answer("A")] * 2
    unread = [Answer(None), Answer("A")]
    ties = [Answer("C")] * 2
    rows = verdict_rows(match, [*win, *always_first, *unread, *ties], both_orders=True)
    assert [row["verdict"] for row in rows] == ["win", "tie", "unparsed", "tie"]
    assert sorted(rows[1]["by_order"]) == ["loss", "win"]
    assert rows[0]["preference"] == pytest.approx(0.5)  # .9 for the first in one order, .1 in the other
    assert rows[1]["preference"] is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"baselines": []}, "judging.baselines"),
        ({"baselines": ["scar"]}, "others than judging.method"),
        ({"items": 0}, "judging.items=0; allowed: 1 or more"),
        ({"seeds": []}, "judging.seeds"),
    ],
)
def test_settings_are_checked(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JudgingConfig(**(SETTINGS | changed))
