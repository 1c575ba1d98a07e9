"""Sweeps whose runs are jobs of submitit (conf/hydra/launcher/submitit_*.yaml): what they need, what is said of them, their end."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from scar.packages import require_installed
from scar.printing import say

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
        said = f"Job not requeued because: `{' '.join(error.cmd)}` failed with status {error.returncode}."
    elif type(error).__module__.startswith("submitit."):
        said = " ".join(str(error).split("-----")[0].split())
    else:
        return None
    if said.startswith("Job ") and _unfinished:
        said += f" The other jobs go on (squeue --name={_unfinished[0]}); when they have ended, the same command does the rest."
    return said
