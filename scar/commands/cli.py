"""What the scripts share: overrides checked before Hydra reads them, errors in one line, the one progress display of a sweep,
bars for trainings, jobs of a cluster."""

from __future__ import annotations

import atexit
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scar.commands.targets import keys, unknown
from scar.packages import require_installed
from scar.printing import ended, say, stop_printing
from scar.tracking.trackers import SweepProgress, progress_bar

if TYPE_CHECKING:  # a sweep's parent process draws only: without torch it starts in a second
    from scar.supervised.training import ProgressCallback

SHOW_TRACEBACK = "SCAR_TRACEBACK"
CONF = Path(__file__).resolve().parents[2] / "conf"
CONFIGS = {"credit": "credit", "judge": "judging", "models": "models", "report": "report", "bench": "bench"}
"""The file of conf/ that a script starts from; the others start from config.yaml."""
USER_ERRORS = (HydraException, OmegaConfBaseException, ValueError, OSError, ArithmeticError)


def one_line(error: BaseException) -> str:
    """The message of `error` on one line; Hydra's wrapper around an error in a constructor is taken off."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.errno is not None:  # from the operating system, not one of our own
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}; free or unlock that folder, or choose others: paths.runs=... paths.cache=..."
    if isinstance(error, ConfigCompositionException) and (
        match := re.match(r"Could not override '([^']+)'", str(error))
    ):
        if "defaults list" in str(error) and (CONF / match[1]).is_dir():
            return f"{match[1]}: nothing to choose at this scale; conf/scale/<scale>/<task>.yaml sets {match[1]}"
        if not match[1].startswith("hydra"):  # Hydra's own settings are not ours to list
            return unknown(match[1], _known_settings())
    text = str(error).split("Config search path:")[0]  # Hydra lists its folders there
    return " ".join(text.split()) or type(error).__name__


def _known_settings() -> list[str]:
    """The settings of the script that was started, with the groups that its command line chose."""
    script = CONFIGS.get(Path(sys.argv[0]).stem, "config")
    try:
        overrides = OverridesParser.create().parse_overrides(
            [text for text in sys.argv[1:] if not text.startswith("-")]
        )
        groups = [o.input_line for o in overrides if (CONF / o.key_or_group).is_dir() and not o.is_sweep_override()]
        GlobalHydra.instance().clear()
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            return list(keys(OmegaConf.to_container(compose(script, groups))))
    except USER_ERRORS:  # more than this setting is wrong
        return []


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


def check_flags(arguments: Sequence[str], instead: Mapping[str, str]) -> None:
    """ValueError for a flag that earlier versions had, with what to write `instead` of it."""
    for argument in arguments:
        if argument in instead:
            raise ValueError(f"{argument}: write {instead[argument]}")


VALUE_FOLLOWS = ("--cfg", "-c", "--package", "-p", "--info", "-i", "--config-path", "--config-name", "--config-dir")
"""Flags of Hydra whose value is the next argument."""


def check_overrides(arguments: Sequence[str], config: Path) -> None:
    """For a script whose primary `config` has no groups. ValueError for what is no override of one of its settings, with the
    nearest one, and for a list without brackets, which to Hydra is a sweep."""
    known = [str(key) for key in OmegaConf.load(config) if key not in ("defaults", "hydra")]
    sweeps = {"-m", "--multirun"} & set(arguments)
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.removeprefix("--").partition("=")
        key = name.lstrip("+~")
        if argument.startswith("--") and name in known:
            raise ValueError(f"{argument}: write {name}={value or '...'}")
        if argument.startswith("-") or before in VALUE_FOLLOWS or key.startswith(("hydra.", "hydra/")):
            continue
        if not equals:
            raise ValueError(f"{argument}: write target={argument} (settings are NAME=VALUE)")
        if key.split(".")[0] not in known:
            raise ValueError(unknown(key, known))
        override = OverridesParser.create().parse_override(argument)
        if override.is_sweep_override() and not sweeps:
            raise ValueError(f'{argument}: write "{name}=[{",".join(override.sweep_string_iterator())}]"')


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

    def advance(done: int, total: int, losses: dict[str, float]) -> None:
        progress.start()  # at the first step, so that an error before it is the only line
        rate = f"{done / max(time.monotonic() - started, 1e-9):.1f}/s"
        progress.update(task, completed=done, total=total, rate=rate, note=_losses(losses))
        if done == total:
            progress.stop()

    atexit.register(progress.stop)
    return advance


def _losses(losses: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in losses.items())


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


# Sweeps whose runs are jobs of submitit (conf/hydra/launcher/submitit_*.yaml): what they need, what is said of them, their end.


PLUGIN = "hydra_plugins.hydra_submitit_launcher"
SLURM_COMMANDS = ("sbatch", "srun", "sacct", "scontrol", "scancel")

# conf/hydra/launcher has files of the plugins' names, so that no name gives other values than ours. Hydra checks them against
# the plugins' own keys and types, and would say with each command that another way to ask for that is recommended.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")

_unfinished: list[str] = []
"""Names of the SLURM jobs that this process waits for."""


class SubmittedJobs(Callback):
    """Hydra callback of every sweep, without effect unless `launcher`, the path of the launcher's class, is submitit's."""

    def __init__(self, *, launcher: str, mode: RunMode | None) -> None:
        """FileNotFoundError with what to do if the package or SLURM is not there, ValueError if no sweep is asked for: Hydra
        would run a single run here and now, whatever its launcher."""
        if not launcher.startswith(PLUGIN):
            return
        option = f"hydra/launcher=submitit_{'slurm' if self._is_slurm(launcher) else 'local'}"
        if mode == RunMode.RUN:
            raise ValueError(f"{option} is for sweeps: add --multirun or an experiment, also for a single run")
        require_installed(PLUGIN, extra="slurm", why=option)
        absent = [name for name in SLURM_COMMANDS if shutil.which(name) is None]
        if self._is_slurm(launcher) and absent:
            raise FileNotFoundError(
                f"{option} needs SLURM, and there is no {', '.join(absent)} here; start it where jobs are submitted, "
                "or use hydra/launcher=joblib"
            )

    @staticmethod
    def _is_slurm(launcher: str) -> bool:
        return launcher.endswith(".SlurmLauncher")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Say where the jobs' logs are."""
        launcher = config.hydra.launcher
        if launcher._target_.startswith(PLUGIN):
            say(f"jobs {launcher.name}, their logs: {launcher.submitit_folder}\n")
        if self._is_slurm(launcher._target_):
            _unfinished.append(launcher.name)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """In a job of several processes: tell torch which one this is, as torchrun would (scar/engine/spread.py)."""
        launcher = config.hydra.launcher
        if self._is_slurm(launcher._target_) and launcher.nodes * launcher.tasks_per_node > 1:
            from submitit.helpers import TorchDistributedEnvironment

            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """All jobs have ended."""
        _unfinished.clear()


def cancel_jobs() -> None:
    """Cancel the SLURM jobs that this process waits for: who ends a command wants its runs to end."""
    for name in _unfinished:
        subprocess.run(["scancel", f"--name={name}"], check=False)
    _unfinished.clear()


JOB_ERRORS = (RuntimeError, subprocess.CalledProcessError)
"""What submitit raises, among others."""


def job_error(error: BaseException) -> str | None:
    """One line for an error of submitit, None for others: what happened, without the job's log, and what to do."""
    if isinstance(error, subprocess.CalledProcessError) and error.cmd[0] == "scontrol":
        message = f"Job not requeued because: `{' '.join(error.cmd)}` failed with status {error.returncode}."
    elif type(error).__module__.startswith("submitit."):
        message = " ".join(str(error).split("-----")[0].split())
    else:
        return None
    if message.startswith("Job ") and _unfinished:
        message += f" The other jobs go on (squeue --name={_unfinished[0]}); when they have ended, the same command does the rest."
    return message
