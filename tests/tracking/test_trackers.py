"""Trackers: the same rows everywhere, and a sweep's progress from small files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scar.tracking import trackers
from scar.tracking.trackers import (
    BarTracker,
    ProgressFile,
    SweepProgress,
    TrackerGroup,
)

ROWS: list[dict[str, Any]] = [
    {"update": update, "reward/raw_mean": 0.25 * update, "kl/seq_sum_mean": 1.5 * update, "memory/peak_bytes": 10**9}
    for update in (1, 2, 3)
]


class Recorder:
    """Keeps its status; `fails` makes `finish` raise."""

    def __init__(self, *, fails: bool = False) -> None:
        self.status: str | None = None
        self._fails = fails

    def log(self, row: dict[str, Any]) -> None: ...

    def finish(self, status: str) -> None:
        self.status = status
        if self._fails:
            raise RuntimeError("cannot close")


def test_group_finishes_all_and_then_raises_the_first_error() -> None:
    members = [Recorder(), Recorder(fails=True), Recorder()]
    with pytest.raises(RuntimeError, match="cannot close"):
        TrackerGroup(members).finish("finished")
    assert [member.status for member in members] == ["finished"] * 3


def test_group_does_not_hide_the_error_of_a_failed_run_behind_its_own() -> None:
    members = [Recorder(fails=True), Recorder()]
    TrackerGroup(members).finish("failed")
    assert [member.status for member in members] == ["failed"] * 2


def test_progress_file_tells_state_by_state(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    tracker = ProgressFile(path, name="imdb scar seed 1", updates=3)
    assert json.loads(path.read_text()) == {"name": "imdb scar seed 1", "update": 0, "updates": 3, "status": "running"}
    tracker.log(ROWS[1])
    assert json.loads(path.read_text()) == {
        "name": "imdb scar seed 1",
        "update": 2,
        "updates": 3,
        "status": "running",
        "note": "reward +0.50 KL 3.0",
    }
    tracker.finish("finished")
    assert json.loads(path.read_text())["status"] == "finished"
    assert [file.name for file in tmp_path.iterdir()] == ["progress.json"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that have passed, by hand."""
    now = [0.0]
    monkeypatch.setattr(trackers.time, "monotonic", lambda: now[0])
    return now


def sweep_of(folder: Path, states: dict[str, str]) -> None:
    """Jobs 0, 1, ... with these names and states; running ones are at update 2 of 4."""
    for number, (name, status) in enumerate(states.items()):
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
        tracker = ProgressFile(folder / str(number) / "progress.json", name=name, updates=4)
        if status != "skipped":
            tracker.log({"update": 4 if status == "finished" else 2, "reward/raw_mean": 1.0, "kl/seq_sum_mean": 5.0})
        if status != "running":
            tracker.finish(status)


def shown(display: SweepProgress) -> Any:
    return display._progress.tasks[0]


def test_sweep_counts_finished_skipped_and_the_share_of_running_ones(tmp_path: Path, clock: list[float]) -> None:
    display = SweepProgress(tmp_path, runs=6)
    sweep_of(tmp_path, {"a": "finished", "b": "skipped", "c": "running", "d": "failed"})
    clock[0] = 60.0
    display.refresh()
    task = shown(display)
    assert task.completed == 1 + 1 + 0.5  # nothing for the failed one
    assert task.total == 6
    assert task.fields["rate"] == "1.5/min"  # the skipped run says nothing about speed
    for part in ("1 failed", "c 2/4", "reward +1.00", "KL 5.0"):
        assert part in task.fields["note"]


def test_sweep_tells_the_runs_that_wait_from_those_that_are_computed(tmp_path: Path, clock: list[float]) -> None:
    display = SweepProgress(tmp_path, runs=6)
    sweep_of(tmp_path, {"a": "finished", "b": "running", "c": "stopped"})
    clock[0] = 60.0
    display.refresh()
    assert shown(display).fields["note"].startswith("1 running, 4 waiting | ")  # "c" is queued again, three never began
    assert shown(display).completed == 1 + 0.5 + 0.5  # what "c" has done is not lost
    sweep_of(tmp_path, {"a": "finished", "b": "running", "c": "running"})
    display.refresh()
    assert shown(display).fields["note"].startswith("2 running, 3 waiting | ")


def test_a_file_that_cannot_be_read_now_counts_as_it_was(tmp_path: Path, clock: list[float]) -> None:
    display = SweepProgress(tmp_path, runs=2)
    sweep_of(tmp_path, {"a": "finished", "b": "running"})
    clock[0] = 60.0
    display.refresh()
    (tmp_path / "0" / "progress.json").unlink()
    (tmp_path / "1" / "progress.json").write_text('{"name": "b", ', encoding="utf-8")
    display.refresh()
    assert shown(display).completed == 1.5


def test_sweep_off_a_terminal_prints_one_line_a_quarter(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    display = SweepProgress(tmp_path, runs=4)
    for done in range(1, 5):
        clock[0] = 10.0 * done
        sweep_of(tmp_path, {f"run{i}": "finished" for i in range(done)})
        display.refresh()
        display.refresh()
    lines = [line for line in capsys.readouterr().out.splitlines() if "runs done" in line]
    assert [line.split(" runs done")[0] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]


@pytest.mark.parametrize(("status", "says"), [("finished", "record: "), ("skipped", "force=true"), ("failed", None)])
def test_end_of_a_single_run_says_where_its_record_is(
    status: str, says: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    BarTracker(name="imdb scar seed 1", updates=3, folder=tmp_path / "seed1-f00d").finish(status)
    out = capsys.readouterr().out
    assert (str(tmp_path / "seed1-f00d") in out) == (says is not None)
    assert says is None or says in out
