"""Credit records at scale=smoke, by the script: texts that are typed, samples of a run, samples of the SFT policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from scar.commands import credit as crediting
from scar.report.credit import load_credit
from scar.tracking.credit_records import CreditRecord
from scar.tracking.records import RunRecord
from tests.smoke_scale import CONF, SmokeScale
from tests.test_cli import Outcome, assert_one_line_error, files_below, run_in_process

pytestmark = pytest.mark.slow

LABELS = ["sparse", "uniform", "abc", "scar:token", "scar:span", "scar:sentence", "red"]


class Scripts:
    """Runs experiments/credit.py with the smoke models, into a folder of its own."""

    def __init__(self, smoke: SmokeScale, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        names = ("credit", "results", "runs")
        self._paths = [f"paths.cache={smoke.cache}", *(f"paths.{name}={folder / name}" for name in names)]

    def __call__(self, *overrides: str, scale: str | None = "smoke") -> Outcome:
        chosen = [] if scale is None else [f"scale={scale}"]
        return run_in_process("credit", *chosen, "device=cpu", *self._paths, *overrides, capsys=self._capsys)

    def record(self, *overrides: str, scale: str | None = "smoke") -> CreditRecord:
        outcome = self(*overrides, scale=scale)
        assert outcome.status in (0, None), outcome.err
        [line] = [line for line in outcome.out.splitlines() if line.startswith(f"wrote {self.folder / 'credit'}")]
        return load_credit(Path(line.removeprefix("wrote ")))


@pytest.fixture
def script(smoke: SmokeScale, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Scripts:
    return Scripts(smoke, tmp_path, capsys)


@pytest.fixture(scope="module")
def run(smoke: SmokeScale) -> RunRecord:
    """A SCAR run on token units, with settings that are not the scale's."""
    settings = ("shaping=scar", "estimator=sequential", "shaping.method.fill=delete", "ppo.updates=1")
    return smoke.run(*settings, "coalitions.memory_mib=64")


def sums(record: CreditRecord) -> list[dict[str, float]]:
    return [{name: sum(m["per_token"]) for name, m in row["methods"].items()} for row in record.rows]


def test_figure_1_is_the_default_and_is_computed_once(script: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    record = script.record()
    [row] = record.rows
    assert row["prompt"] == "While some scenes were"
    assert row["response"].startswith(" initially disturbing to sit through,")
    assert row["finished"]
    assert list(record.manifest["methods"]) == list(row["methods"]) == LABELS
    for value in sums(record)[0].values():
        assert value == pytest.approx(row["reward"], abs=1e-4)
    assert record.path.parent == script.folder / "credit" / "smoke" / "imdb"
    found = script.folder / "results" / "smoke" / "credit" / f"imdb-{record.path.name}"
    assert files_below(found) == ["credit.html", "figure1.pdf", "figure1.png"]
    monkeypatch.setattr(crediting, "load_parts", lambda *_: pytest.fail("models are loaded for a record that is there"))
    assert script.record().path == record.path


def test_settings_of_scar_are_its_own_and_those_of_train(script: Scripts) -> None:
    overrides = ("methods=[abc,scar]", "segmentations=[span]", "shaping.method.fill=delete", "parser=chunk")
    record = script.record(
        *overrides,
        "estimator=owen",
        "estimator.max_coalitions=512",
        "prompt=The",
        "response=' film is good, it is great'",
    )
    methods = record.manifest["methods"]
    assert list(methods) == ["abc", "scar:span"]
    assert methods["abc"] == {
        "method": {"name": "abc"},
        "units": None,
        "parser": None,
        "estimator": None,
        "coalitions": None,
    }
    scar = methods["scar:span"]
    assert scar["method"] == {"name": "scar", "fill": "delete", "empty": "uniform"}
    assert scar["estimator"] == {"name": "owen", "max_coalitions": 512}
    assert scar["parser"] == {"name": "chunk"}
    [row] = record.rows
    assert row["methods"]["scar:span"]["trees"][0][0] == "S"
    assert row["response"] == " film is good, it is great"


def test_a_runs_own_method_is_credited_though_the_list_has_it_not(run: RunRecord) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("credit")
        cfg.methods = ["sparse"]
        assert {"sparse", "scar:span"} <= set(crediting._configs(cfg, [], run))
        assert set(crediting._configs(cfg, ["methods=[sparse]"], run)) == {"sparse"}  # but where the list was typed


def test_samples_of_a_run_use_its_settings_and_tokens(script: Scripts, run: RunRecord) -> None:
    record = script.record("source=run", f"run={run.path}", "items=3", "methods=[scar,red]", scale=None)
    assert [row["number"] for row in record.rows] == [0, 1, 2]
    for row, sample in zip(record.rows, run.samples, strict=False):
        assert row["response"] == sample["response"]
        assert row["reward"] == pytest.approx(sample["reward"], abs=1e-4)
        assert len(row["tokens"]) == len(sample["response_ids"])
    methods = record.manifest["methods"]
    for units, estimator in (("token", "sequential"), ("span", "owen"), ("sentence", "owen")):
        settings = methods[f"scar:{units}"]
        assert settings["method"]["fill"] == "delete"  # the run's, whatever the units
        assert settings["estimator"]["name"] == estimator  # the run's, where units are the run's
    assert record.manifest["source"]["fingerprint"] == run.manifest["fingerprint"]
    assert record.path.name.startswith("scar-seed1-")
    alone = script.record("source=run", f"run={run.path}", "sample=2", "methods=[scar,red]", scale=None)
    assert alone.rows == record.rows[2:]  # a sample's credit does not depend on the others


def test_samples_of_the_sft_policy_are_those_that_runs_start_from(script: Scripts, smoke: SmokeScale) -> None:
    record = script.record("source=sft", "items=12", "methods=[sparse,uniform,scar]", "segmentations=[sentence]")
    assert len(record.rows) == 12
    again = script.record("source=sft", "items=10", "methods=[uniform]")
    assert [row["response"] for row in again.rows] == [row["response"] for row in record.rows[:10]]
    found = script.folder / "results" / "smoke" / "credit" / f"imdb-{record.path.name}"
    assert files_below(found) == ["credit.html", *(f"credit_stats.{kind}" for kind in ("csv", "md", "pdf", "png"))]


def test_an_interrupted_record_goes_on(script: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ("source=sft", "items=4", "methods=[scar]", "segmentations=[token]")
    whole = script.record(*overrides, "paths.credit=" + str(script.folder / "credit" / "whole"))
    real, asked = crediting.CreditRows.row, []

    def interrupted(rows: Any, number: int, sample: Any) -> Any:
        asked.append(number)
        if asked == [0, 1, 2]:
            raise KeyboardInterrupt
        return real(rows, number, sample)

    monkeypatch.setattr(crediting.CreditRows, "row", interrupted)
    assert script(*overrides).status == 130
    record = script.record(*overrides)
    assert asked == [0, 1, 2, 2, 3]
    assert record.rows == whole.rows


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("methods=[nope]", "shaping/nope"),
        ("sample=3", "sample=3 with source=text; allowed: source=run"),
        ("source=run", "run=None with source=run; allowed: run=<folder> with source=run"),
        ("run=somewhere", "run=somewhere with source=text; allowed: run=<folder> with source=run"),
        ("response='" + " word" * 200 + "'", "tokens of the reward model, which reads"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(script: Scripts, override: str, says: str) -> None:
    assert says in assert_one_line_error(script(override))
    assert files_below(script.folder) == []
