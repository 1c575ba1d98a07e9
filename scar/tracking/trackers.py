"""Where a run's rows go: its own record (always) and whoever watches (progress bars); W&B is in wandb_runs.py."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from scar.printing import printing
from scar.tracking.records import RunWriter, write_json

if TYPE_CHECKING:  # the interfaces import torch, which a process that only draws progress does not need
    from scar.interfaces import Tracker


class JsonlTracker:
    """Appends every row to the run's metrics.jsonl."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer

    def log(self, row: dict[str, Any]) -> None:
        """Append the row."""
        self._writer.append(row)

    def resume(self, rows: Sequence[dict[str, Any]]) -> None:
        """The writer has kept them."""

    def finish(self, status: str) -> None:
        """Nothing to close: the writer is committed or discarded by the run."""


class ProgressFile:
    """Tells a watcher in another process how far this run is (see SweepProgress), by one small file replaced as a whole."""

    def __init__(self, path: Path, *, name: str, updates: int) -> None:
        self._path = path
        self._state: dict[str, Any] = {"name": name, "update": 0, "updates": updates, "status": "running"}
        self._write()

    def _write(self) -> None:
        with suppress(OSError):  # its folder goes with the watcher: no reason for a job of a cluster to fail
            write_json(self._path, self._state)

    def log(self, row: dict[str, Any]) -> None:
        """Report the update just finished."""
        self.advance(row["update"], _describe(row["reward/raw_mean"], row["kl/seq_sum_mean"]))

    def resume(self, rows: Sequence[dict[str, Any]]) -> None:
        """Report the update from which the run goes on."""
        self.log(rows[-1])

    def advance(self, done: int, note: str, *, updates: int | None = None) -> None:
        """Report `done` updates and the last numbers; `updates` if how many there are is known only now."""
        self._state |= {"update": done, "note": note} | ({} if updates is None else {"updates": updates})
        self._write()

    def finish(self, status: str, *, result: str | None = None) -> None:
        """Report the end, with a line that the watcher prints when all is done."""
        self._state |= {"status": status} | ({} if result is None else {"result": result})
        self._write()


def _describe(reward: float, kl: float) -> str:
    return f"reward {reward:+.2f} KL {kl:.1f}"


class BarTracker:
    """A progress bar for a single run in this process, and a line that says where its record is."""

    def __init__(self, *, name: str, updates: int, folder: Path) -> None:
        self._folder = folder
        self._progress = progress_bar()
        self._task = self._progress.add_task(name, total=updates, rate="", note="")
        self._started, self._before = time.monotonic(), 0
        self._progress.start()

    def resume(self, rows: Sequence[dict[str, Any]]) -> None:
        """Begin the bar where the run goes on."""
        self._before = rows[-1]["update"]
        self._progress.reset(self._task, completed=self._before)

    def log(self, row: dict[str, Any]) -> None:
        """Advance the bar."""
        rate = (row["update"] - self._before) / max(time.monotonic() - self._started, 1e-9)
        note = _describe(row["reward/raw_mean"], row["kl/seq_sum_mean"])
        self._progress.update(self._task, completed=row["update"], rate=f"{rate:.1f}/s", note=note)

    def finish(self, status: str) -> None:
        """Stop drawing; "skipped" shows no bar."""
        self._progress.update(self._task, visible=status != "skipped")
        lines = {
            "finished": f"record: {self._folder}",
            "stopped": f"stopped; the same command goes on from there: {self._folder}",
            "skipped": f"finished already: {self._folder} (force=true runs it again)",
        }
        self._progress.stop()
        if status in lines:
            self._progress.say(lines[status])


class SweepProgress:
    """One display for a whole sweep: runs done, rate, time left, and the last reward and KL; reads ProgressFiles."""

    def __init__(self, folder: Path, *, runs: int) -> None:
        self._folder = folder
        self._runs = runs
        self._progress = progress_bar()
        self._task = self._progress.add_task("runs", total=runs, rate="", note="")
        self._started = time.monotonic()
        self._reported = 0
        self._read: dict[Path, dict[str, Any]] = {}

    def start(self) -> None:
        """Begin to draw."""
        self._progress.start()

    def refresh(self) -> None:
        """Read all files and redraw; without a terminal, print a line for each quarter of the runs instead."""
        states = self._states()
        skipped = sum(s["status"] == "skipped" for s in states)
        done = skipped + sum(s["status"] == "finished" for s in states)
        # Runs that were finished before this sweep say nothing about its speed.
        fraction = sum(self._share(s) for s in states)
        elapsed = time.monotonic() - self._started
        rate = f"{60 * fraction / elapsed:.1f}/min" if fraction > 0 else ""
        note = self._note(states)
        self._progress.update(self._task, completed=round(skipped + fraction, 2), rate=rate, note=note)
        if not self._progress.console.is_terminal and done * 4 // self._runs > self._reported:
            self._reported = done * 4 // self._runs
            self._progress.say(f"{done}/{self._runs} runs done after {elapsed:.0f} s, {rate}, {note}")

    def _note(self, states: list[dict[str, Any]]) -> str:
        """Failures, how many have not begun or wait to go on, where the running runs are, or the last numbers."""
        shown = [s for s in states if "note" in s]
        running = [s for s in shown if s["status"] == "running"]
        failed, busy = (sum(s["status"] == status for s in states) for status in ("failed", "running"))
        waiting = self._runs - sum(s["status"] != "stopped" for s in states)
        notes = [f"{failed} failed"] if failed else []
        notes += [f"{busy} running, {waiting} waiting"] if states and waiting > 0 else []
        notes += [f"{s['note']} {s['name']} {s['update']}/{s['updates']}" for s in running]
        if not running and shown:
            notes.append(f"{shown[-1]['note']} last: {shown[-1]['name']}")
        return " | ".join(notes)

    def stop(self) -> None:
        """Draw the last state and stop; then print the results that were reported."""
        self.refresh()
        self._progress.stop()
        for state in self._states():
            if "result" in state:
                self._progress.say(state["result"])

    @staticmethod
    def _share(state: dict[str, Any]) -> float:
        """How much of a run this sweep has done; what failed or was there before counts nothing."""
        so_far = state["update"] / state["updates"]
        return {"finished": 1.0, "running": so_far, "stopped": so_far}.get(state["status"], 0.0)

    def _states(self) -> list[dict[str, Any]]:
        """The states of all runs, the latest last. On a network's file system a file that another machine replaces may be
        gone for a moment; then what it said before holds."""
        for path in self._folder.glob("*/progress.json"):
            with suppress(OSError, ValueError):
                self._read[path] = {"at": path.stat().st_mtime} | json.loads(path.read_text(encoding="utf-8"))
        return sorted(self._read.values(), key=lambda state: state["at"])


class TrackerGroup:
    """Passes rows on to several trackers; `finish` reaches all of them even if one fails."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    def add(self, tracker: Tracker) -> None:
        """Add one more."""
        self._trackers.append(tracker)

    def log(self, row: dict[str, Any]) -> None:
        """Log everywhere."""
        for tracker in self._trackers:
            tracker.log(row)

    def resume(self, rows: Sequence[dict[str, Any]]) -> None:
        """Tell all."""
        for tracker in self._trackers:
            tracker.resume(rows)

    def finish(self, status: str) -> None:
        """Finish everywhere; the first error is raised after all were reached, unless the run has none to be lost."""
        errors = []
        for tracker in self._trackers:
            try:
                tracker.finish(status)
            except Exception as error:
                errors.append(error)
        if errors and status == "finished":
            raise errors[0]


# How progress looks on a terminal.


class QuietProgress(Progress):
    """A display that ends no work where it cannot be drawn."""

    def stop(self) -> None:
        """Draw the last state and stop."""
        with printing():
            super().stop()

    def say(self, line: str) -> None:
        """Print a line above the display, or below it when it has stopped."""
        with printing():
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)


def progress_bar() -> QuietProgress:
    """The one look of all progress displays: what, bar, done/all, rate, elapsed, time left, last numbers.

    The last numbers get what width remains and are cut there, so that the rest stays readable on 80 columns.
    """

    def fixed(width: int) -> Column:
        return Column(no_wrap=True, min_width=width)

    return QuietProgress(
        TextColumn("{task.description}", table_column=fixed(4)),
        BarColumn(bar_width=10, table_column=fixed(10)),
        MofNCompleteColumn(table_column=fixed(5)),
        TextColumn("{task.fields[rate]}", table_column=fixed(8)),
        TextColumn("[dim]after[/]", table_column=fixed(5)),
        TimeElapsedColumn(table_column=fixed(7)),
        TextColumn("[dim]left[/]", table_column=fixed(4)),
        TimeRemainingColumn(table_column=fixed(7)),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        expand=True,
    )
