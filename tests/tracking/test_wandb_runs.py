"""W&B's own files: what a run sends, and what W&B's reader finds in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scar.tracking.records import RunRecord, RunWriter, find_records
from scar.tracking.wandb_runs import RECORD_FILE, WandbTracker, project_runs, record_contents
from tests.tracking.wandb_record import EVALUATION, ROWS, Log, folder_of_record, read_log, typed, written


def logged(writer: RunWriter) -> WandbTracker:
    tracker = WandbTracker(
        mode="offline", project="scar-tests", folder=writer.partial, name="seed3-f00d", config={"seed": 3}
    )
    for row in ROWS:
        tracker.log(row)
    return tracker


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A run that was logged into W&B's offline files and committed, as scar/commands/train.py does it."""
    writer = written(folder_of_record(tmp_path_factory.mktemp("runs")))
    logged(writer).finish("finished")
    return writer.commit()


@pytest.fixture(scope="module")
def log(record: RunRecord) -> Log:
    """W&B's files of that run, read once for all tests (it takes seconds)."""
    return read_log(record.path)


@pytest.fixture
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs this may be logged in to W&B: hide every place where a key can lie."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


@pytest.mark.slow
def test_offline_run_lies_under_the_run_folder_and_is_no_record_itself(record: RunRecord) -> None:
    assert len(list(record.path.glob("wandb/offline-run-*/*.wandb"))) == 1
    assert [found.path for found in find_records(record.path.parent)] == [record.path]


@pytest.mark.slow
def test_sent_record_is_whole_and_a_file_and_no_link(record: RunRecord) -> None:
    """W&B keeps absolute links to files elsewhere; `wandb sync` leaves broken ones out without a word."""
    (file,) = record.path.glob(f"wandb/offline-run-*/files/{RECORD_FILE}")
    assert file.is_file()
    assert not file.is_symlink()
    assert typed(json.loads(file.read_text())) == typed(record_contents(record))


@pytest.mark.slow
def test_history_has_the_same_keys_and_values_as_the_rows(log: Log) -> None:
    history = [entry["history"]["item"] for entry in log if entry["type"] == "history"]
    assert [{key: value for key, value in item.items() if not key.startswith("_")} for item in history] == ROWS
    assert [item["_step"] for item in history] == [1, 2]


@pytest.mark.slow
def test_log_knows_name_project_config_end_and_the_file_to_upload(log: Log) -> None:
    run = next(entry["run"] for entry in log if entry["type"] == "run")
    assert (run["display_name"], run["project"], run["config"]["update"]["seed"]) == ("seed3-f00d", "scar-tests", 3)
    files = [file["path"] for entry in log if entry["type"] == "files" for file in entry["files"]["files"]]
    assert RECORD_FILE in files
    assert [entry["exit"].get("exit_code", 0) for entry in log if entry["type"] == "exit"] == [0]


@pytest.mark.slow
def test_summary_has_the_numbers_of_the_evaluation(log: Log) -> None:
    summary: dict[str, Any] = {}
    for entry in log:
        if entry["type"] == "summary":
            summary |= entry["summary"]["update"]
    for when in ("initial", "final"):
        assert {key: summary[f"{when}/{key}"] for key in EVALUATION[when]} == EVALUATION[when]


@pytest.mark.slow
def test_failed_run_sends_no_record(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "seed1")
    logged(writer).finish("failed")
    assert list(writer.partial.glob(f"wandb/offline-run-*/files/{RECORD_FILE}")) == []
    assert [entry["exit"]["exit_code"] for entry in read_log(writer.partial) if entry["type"] == "exit"] == [1]


def test_wandb_is_closed_when_the_record_cannot_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []

    class Run:
        def finish(self, *, exit_code: int) -> None:
            ends.append(exit_code)

    monkeypatch.setattr("wandb.init", lambda **settings: Run())
    tracker = WandbTracker(mode="offline", project="scar-tests", folder=tmp_path, name="seed1", config={})
    with pytest.raises(ConnectionError, match=r"W&B did not get the end of the run \(.*manifest\.json cannot be read"):
        tracker.finish("finished")
    assert ends == [1]


def test_errors_of_wandbs_own_become_one_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Run:
        def finish(self, *, exit_code: int) -> None:
            raise RuntimeError("no room\nand a second line")

    monkeypatch.setattr("wandb.init", lambda **settings: Run())
    tracker = WandbTracker(mode="offline", project="scar-tests", folder=tmp_path, name="seed1", config={})
    with pytest.raises(ConnectionError, match=r"^W&B did not get the end of the run \(no room\)$"):
        tracker.finish("failed")


@pytest.mark.usefixtures("no_account")
def test_online_without_an_account_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"mode online \(.*\); run `wandb login`, or use tracker\.mode=offline"):
        WandbTracker(mode="online", project="scar-tests", folder=tmp_path / "run", name="seed1", config={})


@pytest.mark.usefixtures("no_account")
def test_project_without_an_account_says_how_to_go_on() -> None:
    with pytest.raises(ConnectionError, match=r"W&B does not give me/project \(.*API key.*run `wandb login`"):
        project_runs("me/project")
