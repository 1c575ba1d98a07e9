"""Checkpoints: all that a run needs to go on as if it had never stopped, written so that a half-written one is never read.

A checkpoint is a folder `update-000050` of `state.json` (counters, KL coefficient, device time, first evaluation, code) and
the learner's safetensors (weights, optimizer; one file per process where they are sharded). It is written beside its place
and renamed when it is whole; then the one before is removed.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from scar.files import finish_folder
from scar.interfaces import Engine, Learner
from scar.tracking.records import write_json

STATE = "state.json"
FOLDER = "checkpoints"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Ctrl-C; a machine that shuts down; submitit, when the scheduler's time limit comes near."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder, the updates that were done, and the content of `state.json`."""

    folder: Path
    update: int
    state: dict[str, Any]


def find_checkpoint(run_folder: Path) -> Checkpoint | None:
    """The newest checkpoint in a run's folder, None without one; ValueError when it cannot be read."""
    whole = sorted(path for path in (run_folder / FOLDER).glob("update-*") if not path.name.endswith(".tmp"))
    if not whole:
        return None
    try:
        state = json.loads((whole[-1] / STATE).read_text(encoding="utf-8"))
        return Checkpoint(whole[-1], int(state["update"]), state)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(whole[-1], error) from error


def damaged(folder: Path, error: Exception) -> ValueError:
    """The error for a checkpoint that cannot be read."""
    return ValueError(f"the checkpoint {folder} is damaged ({error}); delete {folder.parents[1]} and run again")


class CheckpointKeeper:
    """Saves a run every `every` updates (None: never of itself), at its `last` one, and when a signal asks it to stop.
    `state()` is what the trainer keeps, asked of every process; `facts()` what else `state.json` says of the run."""

    def __init__(
        self,
        run_folder: Path,
        *,
        every: int | None,
        last: int,
        engine: Engine,
        learner: Learner,
        state: Callable[[], dict[str, float]],
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        self._folder = run_folder / FOLDER
        self._every, self._last = every, last
        self._engine, self._learner, self._state = engine, learner, state
        self._facts = facts
        self._signals = Postponed()

    def after_update(self, update: int) -> None:
        """`update` is done and logged. A signal that came meanwhile takes its effect here, behind the checkpoint."""
        stop = self._engine.any(bool(self._signals.came))
        if stop or (self._every is not None and (update % self._every == 0 or update == self._last)):
            self._save(update)
        if stop:
            self._signals.deliver()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Context of the training: signals wait for the end of the update."""
        with self._signals:
            yield

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the learner of a checkpoint. ValueError when it is damaged, or of other processes or settings of the engine."""
        current, made = self._engine.describe(), checkpoint.state["engine"]
        if current != made:
            raise ValueError(
                f"{checkpoint.folder} was made with engine {made}, this is {current}; go on with the same, or delete "
                f"{checkpoint.folder.parents[1]} to start again"
            )
        try:
            self._learner.load(checkpoint.folder)
        except (OSError, KeyError, SafetensorError) as error:
            raise damaged(checkpoint.folder, error) from error

    def _save(self, update: int) -> None:
        folder = self._folder / f"update-{update:06d}"
        partial = folder.with_name(folder.name + ".tmp")
        if self._engine.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self._engine.agreed(None)  # the folder is there for all
        try:
            self._learner.save(partial)
            state = {"update": update, "engine": self._engine.describe(), "trainer": self._state()}
            self._engine.agreed(None)  # all have written
            if self._engine.is_main:
                self._finish(partial, folder, self._facts() | state)
        except (OSError, SafetensorError) as error:  # safetensors hides the OSError of a full disk
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f"cannot write the checkpoint {folder}: {error}") from error

    def _finish(self, partial: Path, folder: Path, state: dict[str, Any]) -> None:
        write_json(partial / STATE, state)
        finish_folder(partial, folder)
        for other in self._folder.glob("update-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)


class Postponed:
    """Context in which signals only take a note, until `deliver`. A second Ctrl-C does not wait.

    Signals that are ignored stay so, and SIGUSR2 is left alone where nobody listens to it.
    """

    def __init__(self) -> None:
        self.came: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Postponed:
        if threading.current_thread() is threading.main_thread():  # others get no signals
            for number in SIGNALS:
                before = signal.getsignal(number)
                listening = callable(before) or (before == signal.SIG_DFL and number != signal.SIGUSR2)
                if listening:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and number in self.came:
            raise KeyboardInterrupt
        self.came.append(number)

    def deliver(self) -> None:
        """Do what each signal would have done, in their order: call who listened before, who may end the process, or end it
        here. Returns if the listeners let the run go on."""
        came, self.came = self.came or [signal.SIGTERM], []  # none: another process was asked
        for number in came:
            before = self._before.get(number, signal.SIG_DFL)
            if not callable(before):
                raise SystemExit(128 + number)
            before(number, None)
