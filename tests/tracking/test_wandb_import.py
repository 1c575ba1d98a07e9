"""Import of a W&B project, against an object with the face and the manners of `wandb.Api`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scar.tracking import wandb_runs as wandb_import
from scar.tracking.records import RunRecord, find_records
from scar.tracking.wandb_runs import RECORD_FILE, record_contents, records_from_project
from tests.tracking.wandb_record import ROWS, assert_equal_records, folder_of_record, written

PROJECT = "me/scar"


class FakeFile:
    """A file of a run; W&B speaks of one that is not there as of an empty one."""

    def __init__(self, run: FakeRun, name: str) -> None:
        self._run, self.name = run, name
        self.size = len(run.stored.get(name, ""))
        self.md5 = str(hash(run.stored[name])) if name in run.stored else "0"

    def download(self, *, root: str, replace: bool) -> io.TextIOWrapper:
        self._run.asked.append("download")
        path = Path(root) / self.name
        assert replace or not path.exists()
        path.write_text(self._run.stored[self.name], encoding="utf-8")
        return open(path, encoding="utf-8")


class FakeRun:
    """A run as a W&B server gives it: 2.0 became 2, keys are in another order, empty cells are null."""

    def __init__(self, name: str, *, state: str = "finished", contents: dict[str, Any] | None = None) -> None:
        self.path = ["me", "scar", name]
        self.state = state
        self.asked: list[str] = []
        self.stored = {} if contents is None else {RECORD_FILE: json.dumps(contents)}
        self.rows = ROWS
        self.error: Exception | None = None

    def files(self, names: list[str]) -> list[FakeFile]:
        return [FakeFile(self, name) for name in names]

    def scan_history(self, *, use_cache: bool) -> Iterator[dict[str, Any]]:
        self.asked.append("history")
        if self.error is not None:
            raise self.error
        keys = sorted({key for row in self.rows for key in row}, reverse=True)
        for row in self.rows:
            values = {key: row.get(key) for key in keys}
            whole = {k: int(v) for k, v in values.items() if isinstance(v, float) and v.is_integer() and abs(v) < 1e20}
            yield values | whole | {"_step": row["update"], "_runtime": 1.5, "_timestamp": 1.8e9}


class FakeApi:
    """`runs` gives pages of two, and asks for the next one when it is needed."""

    def __init__(self, *runs: FakeRun) -> None:
        self._runs = runs
        self.pages = 0

    def runs(self, path: str, *, order: str) -> Iterator[FakeRun]:
        if path != PROJECT:
            raise ValueError(f"Could not find project {path}")
        assert order == "+created_at"
        for start in range(0, len(self._runs), 2):
            self.pages += 1
            yield from self._runs[start : start + 2]


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    """What was logged."""
    return written(folder_of_record(tmp_path / "runs")).commit()


def run_of(record: RunRecord, name: str, *, state: str = "finished", **manifest: Any) -> FakeRun:
    contents = record_contents(record)
    return FakeRun(name, state=state, contents=contents | {"manifest": contents["manifest"] | manifest})


def old_run_of(record: RunRecord, name: str, **manifest: Any) -> FakeRun:
    """A run as earlier versions sent it: the rows in W&B's history alone."""
    run = run_of(record, name, **manifest)
    contents = json.loads(run.stored[RECORD_FILE])
    rows = contents.pop("metrics")
    integers = {key for row in rows for key, value in row.items() if isinstance(value, int)}
    run.stored[RECORD_FILE] = json.dumps(contents | {"rows": len(rows), "integers": sorted(integers)})
    return run


@pytest.mark.parametrize("sent", [run_of, old_run_of])
def test_what_comes_back_from_a_project_equals_what_was_logged(record: RunRecord, tmp_path: Path, sent: Any) -> None:
    (folder,) = records_from_project(PROJECT, tmp_path / "into", api=FakeApi(sent(record, "a1")))
    assert folder == folder_of_record(tmp_path / "into")
    assert_equal_records(RunRecord(folder), record)
    assert [found.path for found in find_records(tmp_path / "into", seed=3)] == [folder]


def test_what_is_there_is_not_read_again_and_what_changed_is(record: RunRecord, tmp_path: Path) -> None:
    same, changed = run_of(record, "a1", seed=1), run_of(record, "a2", seed=2)
    first = records_from_project(PROJECT, tmp_path, api=FakeApi(same, changed))
    again = run_of(record, "a2", seed=2, alpha=0.5, finished="2026-11-27T10:00:00+00:00")
    same.asked.clear()
    assert records_from_project(PROJECT, tmp_path, api=FakeApi(same, again)) == first
    assert same.asked == []
    assert again.asked == ["download"]
    assert [RunRecord(folder).manifest["alpha"] for folder in first] == [1.0, 0.5]


def test_interrupted_import_goes_on_where_it_stopped(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run_of(record, "a1", seed=1), run_of(record, "a2", seed=2)]

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        write = wandb_import.RunWriter.write
        patch.setattr(
            wandb_import.RunWriter,
            "write",
            lambda writer, name, value: interrupted() if "seed2" in str(writer.folder) else write(writer, name, value),
        )
        with pytest.raises(KeyboardInterrupt):
            records_from_project(PROJECT, tmp_path, api=FakeApi(*runs))
    assert sorted(path.name for path in (folder_of_record(tmp_path)).parent.iterdir()) == ["seed1-f00d"]
    runs[0].asked.clear()
    assert len(records_from_project(PROJECT, tmp_path, api=FakeApi(*runs))) == 2
    assert runs[0].asked == []


def test_runs_that_are_unfinished_or_not_ours_are_left_out_and_counted(
    record: RunRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        run_of(record, "a1", seed=1),
        run_of(record, "a2", seed=2, state="running"),  # has sent its record and is about to end
        *(FakeRun(state, state=state) for state in ("running", "failed", "crashed")),
        FakeRun("theirs"),
        run_of(record, "old", seed=9, schema_version=0),
    ]
    folders = records_from_project(PROJECT, tmp_path, api=FakeApi(*runs))
    assert [folder.name for folder in folders] == ["seed1-f00d"]
    out = capsys.readouterr().out
    assert "left out of 7 runs: 4 not finished, 2 without a record that this version of the code reads" in out


def test_of_two_runs_of_the_same_settings_the_later_one_stays(record: RunRecord, tmp_path: Path) -> None:
    later = run_of(record, "a2", alpha=0.5, finished="2026-11-27T10:00:00+00:00")
    for order in ((run_of(record, "a1"), later), (later, run_of(record, "a1"))):
        (folder,) = records_from_project(PROJECT, tmp_path / order[0].path[-1], api=FakeApi(*order))
        assert RunRecord(folder).manifest["alpha"] == 0.5


def test_history_that_lacks_rows_is_an_error(record: RunRecord, tmp_path: Path) -> None:
    run = old_run_of(record, "a1")
    run.rows = ROWS[1:]
    with pytest.raises(ValueError, match=r"me/scar/a1: 1 of 2 rows came back; W&B may still be working on it"):
        records_from_project(PROJECT, tmp_path / "into", api=FakeApi(run))
    assert not (tmp_path / "into").exists()


def test_record_that_is_cut_is_an_error(record: RunRecord, tmp_path: Path) -> None:
    run = run_of(record, "a1")
    run.stored[RECORD_FILE] = run.stored[RECORD_FILE][:-9]
    with pytest.raises(ValueError, match=r"me/scar/a1: its record is not JSON \(.*\); W&B may still be working on it"):
        records_from_project(PROJECT, tmp_path / "into", api=FakeApi(run))
    assert not (tmp_path / "into").exists()


def test_record_that_points_elsewhere_is_refused(record: RunRecord, tmp_path: Path) -> None:
    run = run_of(record, "a1", scale="../../..")
    with pytest.raises(ValueError, match=r"me/scar/a1 names a folder outside of"):
        records_from_project(PROJECT, tmp_path / "into", api=FakeApi(run))


def test_unknown_project_is_one_clear_line(tmp_path: Path) -> None:
    message = r"W&B does not give me/other \(Could not find project me/other\); look at the name and the network"
    with pytest.raises(ConnectionError, match=message):
        records_from_project("me/other", tmp_path, api=FakeApi())
