"""What the scripts share: errors in one line, the one progress display of a sweep, bars for trainings."""

from __future__ import annotations

import atexit
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from scar.launchers import JOB_ERRORS, cancel_jobs, job_error
from scar.printing import ended, say, stop_printing
from scar.tracking.trackers import ProgressFile, SweepProgress, progress_bar

if TYPE_CHECKING:  # a sweep's parent process draws only: without torch it starts in a second
    from scar.supervised.training import ProgressCallback

SHOW_TRACEBACK = "SCAR_TRACEBACK"
USER_ERRORS = (HydraException, OmegaConfBaseException, ValueError, OSError, ArithmeticError)


def one_line(error: BaseException) -> str:
    """The message of `error` on one line; Hydra's wrapper around an error in a constructor is taken off."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.errno is not None:  # from the operating system, not one of our own
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}; free or unlock that folder, or choose others: paths.runs=... paths.cache=..."
    text = str(error).split("Config search path:")[0]  # Hydra lists its folders there
    return " ".join(text.split()) or type(error).__name__


def run_script(main: Callable[[], Any]) -> None:
    """Run a script's main, which may give its exit status; user errors become one line and 1, Ctrl-C becomes 130.

    With SCAR_TRACEBACK=1 in the environment the traceback is shown instead.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, so that every error takes the way below
    try:
        status = main()
    except KeyboardInterrupt:
        cancel_jobs()
        sys.exit(_complain("interrupted; finished runs are kept, and the same command goes on from there", status=130))
    except BrokenPipeError as error:  # Hydra prints too: --cfg job | head
        stop_printing(error)
        status = 1
    except USER_ERRORS as error:
        if os.environ.get(SHOW_TRACEBACK):
            raise
        sys.exit(_complain(f"error: {one_line(error)}", status=1))
    except JOB_ERRORS as error:
        line = job_error(error)
        if line is None or os.environ.get(SHOW_TRACEBACK):
            raise
        sys.exit(_complain(f"error: {line}", status=1))
    if end := ended(status if isinstance(status, int) else 0):
        sys.exit(end)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Inside a single Hydra job: user errors end the script in one line, without Hydra's own report of them.

    In a sweep they pass on to Hydra, which names the job that failed and goes on with the others.
    """
    try:
        yield
    except USER_ERRORS as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN or os.environ.get(SHOW_TRACEBACK):
            raise
        sys.exit(_complain(f"error: {one_line(error)}", status=1))


def _complain(message: str, *, status: int) -> int:
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    sys.stderr.write((f"process {os.environ['RANK']}: " if several else "") + message + "\n")
    return status


def training_bar(title: str) -> ProgressCallback:
    """A progress bar for one supervised training."""
    progress = progress_bar()
    task = progress.add_task(title, total=None, rate="", note="")
    started = time.monotonic()
    progress.start()

    def advance(done: int, total: int, losses: dict[str, float]) -> None:
        rate = f"{done / max(time.monotonic() - started, 1e-9):.1f}/s"
        progress.update(task, completed=done, total=total, rate=rate, note=_losses(losses))
        if done == total:
            progress.stop()

    atexit.register(progress.stop)
    return advance


def _losses(losses: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in losses.items())


def make_model(cfg: DictConfig, kind: str) -> None:
    """Make one local model, with a bar and a line on its quality; in a sweep the sweep's display shows both."""
    from scar.run import prepare_model  # here, so that a sweep's parent process does not load torch and transformers

    with one_line_errors():
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            report = prepare_model(cfg, kind, start_progress=training_bar)
            where = f"task={cfg.task.name} at scale={cfg.scale} (models.source={cfg.models.source})"
            nothing = [f"{where} has no {kind} model of its own: there is nothing to train here"]
            say("".join(line + "\n" for line in (report_lines(kind, report) if report else nothing)))
            return
        name = f"{cfg.task.name}/{kind}"
        file = ProgressFile(Path(HydraConfig.get().runtime.output_dir) / "progress.json", name=name, updates=1)
        status, lines = "failed", None
        try:
            report = prepare_model(cfg, kind, start_progress=lambda title: _into(file))
            status = "skipped" if report is None or report["cached"] else "finished"
            lines = None if report is None else "\n".join(report_lines(name, report))
        finally:
            file.finish(status, result=lines)


def _into(file: ProgressFile) -> ProgressCallback:
    """A training's progress, at most twice a second, into the file that the sweep's display reads."""
    last = [0.0]

    def advance(done: int, total: int, losses: dict[str, float]) -> None:
        if done == total or time.monotonic() - last[0] > 0.5:
            last[0] = time.monotonic()
            file.advance(done, _losses(losses), updates=total)

    return advance


def report_lines(title: str, report: dict[str, Any]) -> list[str]:
    """A model's quality report: one line of numbers, and the text samples of a model just trained."""
    numbers = [
        f"{key} {value:.5g}" for key, value in report.items() if isinstance(value, (int, float)) and key != "cached"
    ]
    state = "cached" if report["cached"] else "trained"
    samples = [] if report["cached"] else report.get("samples", [])
    return [f"{title} model ({state}, {report['folder']}): {', '.join(numbers)}", *(f"  {text!r}" for text in samples)]


def sweep_size(overrides: list[str]) -> int:
    """How many runs a list of Hydra overrides stands for: the product over the last override of each key."""
    parsed = {override.key_or_group: override for override in OverridesParser.create().parse_overrides(overrides)}
    sizes = [len(list(o.sweep_string_iterator())) for o in parsed.values() if o.is_sweep_override()]
    return math.prod(sizes)


class SweepWatcher(Callback):
    """Hydra callback: draws the sweep's progress while the launcher's processes work, and tidies up afterwards."""

    def __init__(self) -> None:
        self._ended: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Hydra sends its callbacks to the launcher's processes; those have nothing to draw."""
        return {"_ended": None, "_thread": None}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Start to draw."""
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        runs = sweep_size(params + list(config.hydra.overrides.task))
        self._folder = Path(config.hydra.sweep.dir)
        self._display = SweepProgress(self._folder, runs=runs)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, args=(self._ended,), daemon=True)
        self._thread.start()
        atexit.register(self._stop)  # Ctrl-C does not come by on_multirun_end

    def _draw(self, ended: threading.Event) -> None:
        self._display.start()
        while not ended.wait(0.5):
            self._display.refresh()
        self._display.stop()

    def _stop(self) -> None:
        if self._thread is not None and self._ended is not None:
            self._ended.set()
            self._thread.join(timeout=5)
            self._thread = None
            shutil.rmtree(self._folder, ignore_errors=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Stop drawing."""
        self._stop()
