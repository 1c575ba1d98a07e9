"""W&B's own files: what a run sends, what W&B's reader finds, and the way back to a record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from scar.tracking.records import RunRecord, RunWriter, find_records
from scar.tracking.wandb_runs import (
    RECORD_FILE,
    OfflineRun,
    WandbTracker,
    offline_runs,
    project_runs,
    records_from_offline,
    rows_of_history,
)
from tests.tracking.wandb_record import EVALUATION, ROWS, assert_equal_records, folder_of_record, written


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
def log(record: RunRecord) -> OfflineRun:
    """W&B's files of that run, read once for all tests (it takes seconds)."""
    (run,) = offline_runs(record.path)
    assert run.finished
    return run


@pytest.fixture
def copied(record: RunRecord, tmp_path: Path) -> Path:
    """A copy of W&B's folder of that run."""
    (source,) = record.path.glob("wandb/offline-run-*")
    return shutil.copytree(source, tmp_path / "copied" / source.name, symlinks=True)


def log_file(folder: Path) -> Path:
    (file,) = folder.glob("run-*.wandb")
    return file


@pytest.fixture
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs this may be logged in to W&B: hide every place where a key can lie."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


def test_offline_run_lies_under_the_run_folder_and_is_no_record_itself(record: RunRecord) -> None:
    assert len(list(record.path.glob("wandb/offline-run-*/*.wandb"))) == 1
    assert [found.path for found in find_records(record.path.parent)] == [record.path]


def test_sent_record_is_a_file_and_no_link(record: RunRecord) -> None:
    """W&B keeps absolute links to files elsewhere; `wandb sync` leaves broken ones out without a word."""
    (file,) = record.path.glob(f"wandb/offline-run-*/files/{RECORD_FILE}")
    assert file.is_file()
    assert not file.is_symlink()


def test_history_has_the_same_keys_and_values_as_the_rows(log: OfflineRun) -> None:
    history = log.history()
    assert [{key: value for key, value in item.items() if not key.startswith("_")} for item in history] == ROWS
    assert [item["_step"] for item in history] == [1, 2]


def test_log_knows_name_project_config_and_the_file_to_upload(log: OfflineRun) -> None:
    run = next(entry["run"] for entry in log._log if entry["type"] == "run")
    assert (run["display_name"], run["project"], run["config"]["update"]["seed"]) == ("seed3-f00d", "scar-tests", 3)
    files = [file["path"] for entry in log._log if entry["type"] == "files" for file in entry["files"]["files"]]
    assert RECORD_FILE in files


def test_summary_has_the_numbers_of_the_evaluation(log: OfflineRun) -> None:
    summary: dict[str, Any] = {}
    for entry in log._log:
        if entry["type"] == "summary":
            summary |= entry["summary"]["update"]
    for when in ("initial", "final"):
        assert {key: summary[f"{when}/{key}"] for key in EVALUATION[when]} == EVALUATION[when]


def test_what_comes_back_from_offline_files_equals_what_was_logged(
    record: RunRecord, tmp_path: Path, log: OfflineRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OfflineRun, "_log", log._log)
    (folder,) = records_from_offline(record.path / "wandb", tmp_path / "into")
    assert folder == folder_of_record(tmp_path / "into")
    assert_equal_records(RunRecord(folder), record)


@pytest.mark.parametrize("given", ["runs", "offline-run", "file"])
def test_offline_runs_are_found_at_any_depth(record: RunRecord, given: str) -> None:
    (file,) = record.path.glob("wandb/offline-run-*/*.wandb")
    path = {"runs": record.path.parents[2], "offline-run": file.parent, "file": file}[given]
    assert [run.name for run in offline_runs(path)] == [file.parent.name]


def test_run_that_is_being_written_is_not_read(record: RunRecord, tmp_path: Path) -> None:
    shutil.copytree(record.path, tmp_path / "seed1.partial", symlinks=True)
    with pytest.raises(ValueError, match=r"no W&B run in .*; give a folder that holds run-\*\.wandb files"):
        offline_runs(tmp_path)


def test_folder_that_is_not_there_has_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no W&B run in"):
        offline_runs(tmp_path / "nothing")


def test_cut_file_is_named(copied: Path, tmp_path: Path) -> None:
    file = log_file(copied)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{copied.name}.* has no end: the file is cut or damaged"):
        records_from_offline(copied.parent, tmp_path / "into")
    assert find_records(tmp_path / "into") == []


def test_row_that_is_lost_is_missed(
    copied: Path, tmp_path: Path, log: OfflineRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's reader skips what is damaged and goes on behind it."""
    first = next(entry for entry in log._log if entry["type"] == "history")
    monkeypatch.setattr(OfflineRun, "_log", [entry for entry in log._log if entry is not first])
    with pytest.raises(ValueError, match=rf"{copied.name}: 1 of 2 rows came back; the file is cut or damaged"):
        records_from_offline(copied, tmp_path / "into")


def test_record_file_that_is_cut_is_named(copied: Path, tmp_path: Path) -> None:
    (copied / "files" / RECORD_FILE).write_text('{"manifest": ')
    with pytest.raises(ValueError, match=rf"{copied.name}: its record is not JSON .*copy the folder again"):
        records_from_offline(copied, tmp_path / "into")


def test_failed_run_sends_no_record(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "seed1")
    logged(writer).finish("failed")
    (run,) = offline_runs(writer.partial)
    assert run.version() is None
    assert not run.finished


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


def test_rows_get_their_types_back_and_lose_what_wandb_adds() -> None:
    history = [{"_step": 1, "_runtime": 0.5, "_timestamp": 1.5, "update": 1.0, "lr": 0, "other": None}]
    (row,) = rows_of_history(history, ["update"])
    assert json.dumps(row) == '{"update": 1, "lr": 0.0}'


def test_mode_is_checked_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tracker\.mode=cloud; allowed: offline or online \(tracker=jsonl"):
        WandbTracker(mode="cloud", project="scar-tests", folder=tmp_path, name="seed1", config={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_account")
def test_online_without_an_account_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"mode online \(.*\); run `wandb login`, or use tracker\.mode=offline"):
        WandbTracker(mode="online", project="scar-tests", folder=tmp_path / "run", name="seed1", config={})


@pytest.mark.usefixtures("no_account")
def test_project_without_an_account_says_how_to_go_on() -> None:
    with pytest.raises(ConnectionError, match=r"W&B does not give me/project \(.*API key.*run `wandb login`"):
        project_runs("me/project")
