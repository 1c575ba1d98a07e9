"""Launchers: each composes with each experiment, the Makefile asks for them, and what is missing or went wrong is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from submitit.core.utils import FailedJobError, UncompletedJobError

from scar import packages
from scar.commands import cli as launchers
from scar.commands.cli import PLUGIN, SubmittedJobs, job_error
from tests.launchers.fake_slurm import Cluster

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"
EXPERIMENTS = sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))
SLURM, LOCAL = (f"{PLUGIN}.submitit_launcher.{name}" for name in ("SlurmLauncher", "LocalLauncher"))
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"


def composed(*overrides: str) -> DictConfig:
    """The `hydra` node of the config."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("config", overrides=list(overrides), return_hydra_config=True).hydra


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_with_a_launcher_of_jobs(experiment: str) -> None:
    node = composed(f"experiment={experiment}", "hydra/launcher=submitit_slurm")
    assert (node.launcher._target_, node.mode) == (SLURM, RunMode.MULTIRUN)


@pytest.mark.parametrize(
    ("overrides", "launcher", "key", "value"),
    [
        (["hydra.launcher.n_jobs=3"], JOBLIB, "n_jobs", 3),
        (["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"], SLURM, "partition", "gpu"),
        (["hydra/launcher=submitit_local"], LOCAL, "gpus_per_node", 0),
    ],
    ids=["joblib", "slurm", "local"],
)
def test_every_launcher_composes_with_an_experiment(overrides: list[str], launcher: str, key: str, value: Any) -> None:
    node = composed("experiment=table1", *overrides)
    assert (node.launcher._target_, node.launcher[key]) == (launcher, value)
    assert node.mode == RunMode.MULTIRUN


@pytest.mark.parametrize("name", ["submitit_slurm", "submitit_local"])
def test_logs_are_not_in_the_folder_that_goes_with_the_sweep(name: str) -> None:
    node = composed(f"hydra/launcher={name}", "paths.runs=somewhere")
    assert node.launcher.submitit_folder.startswith("somewhere/.jobs/")
    assert "%j" not in node.launcher.submitit_folder  # SLURM opens a log before submitit has made a job's folder


def made(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What make would run."""
    command = ["make", "-n", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


TARGETS = ("models", "reproduce-table1", "reproduce-fig3", "reproduce-fig4", "reproduce-table2", "ablation", "study")


@pytest.mark.parametrize("target", TARGETS)
def test_make_gives_every_sweep_the_launcher_that_was_asked_for(target: str) -> None:
    out = made(
        target, "ABLATION=fill", "LAUNCHER=slurm", "ARRAY=3", "SLURM=hydra.launcher.qos=low", "SCALE=paper"
    ).stdout
    sweeps = [line for line in out.splitlines() if "experiment=" in line]
    assert sweeps
    for line in sweeps:
        typed = [word.strip('"') for word in line.split("experiments/")[-1].split()[1:] if "=" in word]
        keys = {override.key_or_group: override.value() for override in OverridesParser.create().parse_overrides(typed)}
        assert keys["hydra/launcher"] == "submitit_slurm"
        assert (keys["hydra.launcher.array_parallelism"], keys["hydra.launcher.qos"]) == (3, "low")
        assert "hydra.launcher.n_jobs" not in keys
        assert "hydra.launcher.gpus_per_node" not in keys


def test_make_trains_one_kind_of_model_at_a_time_on_a_cluster() -> None:
    assert "hydra.sweeper.max_batch_size=2" in made("models", "LAUNCHER=slurm", "TASKS=imdb,hh").stdout
    assert "max_batch_size" not in made("models", "TASKS=imdb,hh").stdout


def test_make_asks_for_no_gpu_at_the_scales_of_cpus_unless_told() -> None:
    typed = made("ablation", "ABLATION=fill", "LAUNCHER=slurm", "SLURM=hydra.launcher.gpus_per_node=1").stdout
    assert typed.index("gpus_per_node=null") < typed.index("gpus_per_node=1")  # the last one counts


def test_make_takes_no_other_launcher_and_keeps_to_one_run_a_gpu() -> None:
    for wrong in ("pbs", "", "joblib slurm"):
        assert f"LAUNCHER={wrong}; allowed: joblib slurm" in made("models", f"LAUNCHER={wrong}").stderr
    assert "hydra.launcher.n_jobs=1 " in made("models", "SCALE=paper").stdout
    assert "hydra.launcher.n_jobs=5 " in made("models", "JOBS=5").stdout
    assert "hydra.launcher.n_jobs=1 " in made("models", "OMP_NUM_THREADS=9999").stdout


@pytest.mark.parametrize(("launcher", "option"), [(SLURM, "submitit_slurm"), (LOCAL, "submitit_local")])
def test_a_missing_package_names_the_extra(launcher: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=rf"hydra/launcher={option} needs .* install 'scar\[slurm\]'"):
        SubmittedJobs(launcher=launcher, mode=RunMode.MULTIRUN)


def test_missing_commands_of_slurm_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(tmp_path)
    (tmp_path / "bin" / "sacct").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(FileNotFoundError, match=r"needs SLURM, and there is no sacct here; .*hydra/launcher=joblib"):
        SubmittedJobs(launcher=SLURM, mode=RunMode.MULTIRUN)
    SubmittedJobs(launcher=LOCAL, mode=RunMode.MULTIRUN)  # needs no cluster
    assert cluster.calls("sbatch") == []


@pytest.mark.parametrize(("tasks", "named"), [(1, {}), (2, {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"})])
def test_processes_of_one_run_are_named_to_torch(
    tasks: int, named: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"JOB_ID": "9", "NTASKS": "4", "JOB_NUM_NODES": "2", "NODEID": "1", "PROCID": "3", "LOCALID": "1"}
    nodes = {"JOB_NODELIST": "gpu[07-08]", "ARRAY_JOB_ID": "8", "ARRAY_TASK_ID": "1"}
    environment = {f"SLURM_{key}": value for key, value in (job | nodes).items()} | {"SUBMITIT_EXECUTOR": "slurm"}
    with mock.patch.dict("os.environ", environment, clear=True):
        node = composed("hydra/launcher=submitit_slurm", f"hydra.launcher.tasks_per_node={tasks}")
        callback = SubmittedJobs(launcher=JOBLIB, mode=RunMode.MULTIRUN)
        callback.on_job_start(OmegaConf.create({"hydra": {"launcher": node.launcher}}))
        assert {key: os.environ[key] for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if key in os.environ} == named
        assert os.environ.get("MASTER_ADDR") == ("gpu07" if named else None)
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_single_run_is_not_run_here_when_a_job_was_asked_for() -> None:
    with pytest.raises(ValueError, match="add --multirun or an experiment"):
        SubmittedJobs(launcher=SLURM, mode=RunMode.RUN)


@pytest.mark.slow
def test_the_script_says_it_in_one_line() -> None:
    command = [sys.executable, "tests/launchers/app.py", "hydra/launcher=submitit_slurm"]
    done = subprocess.run(command, cwd=REPOSITORY, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: hydra/launcher=submitit_slurm is for sweeps: add --multirun or an experiment, also for a single run\n"
    )


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process waits for a sweep of the name "scar-1"."""
    monkeypatch.setattr(launchers, "_unfinished", ["scar-1"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            UncompletedJobError(
                "Job 7_0 (task: 0) with path a.pkl\nhas not produced any output (state: OUT_OF_MEMORY)\nError stream "
                "produced:\n----------\nTraceback"
            ),
            "Job 7_0 (task: 0) with path a.pkl has not produced any output (state: OUT_OF_MEMORY) Error stream produced:",
        ),
        (
            UncompletedJobError("Job not requeued because: timed-out too many times."),
            "Job not requeued because: timed-out too many times.",
        ),
        (
            subprocess.CalledProcessError(1, ["scontrol", "requeue", "7_0"]),
            "Job not requeued because: `scontrol requeue 7_0` failed with status 1.",
        ),
    ],
)
@pytest.mark.usefixtures("waiting")
def test_a_lost_job_is_one_line_without_its_log(error: Exception, line: str) -> None:
    advice = " The other jobs go on (squeue --name=scar-1); when they have ended, the same command does the rest."
    assert job_error(error) == line + advice


@pytest.mark.usefixtures("waiting")
def test_jobs_that_were_not_taken_do_not_go_on_and_bugs_are_no_jobs() -> None:
    assert job_error(FailedJobError("sbatch: error: invalid qos")) == "sbatch: error: invalid qos"
    assert job_error(RuntimeError("a bug")) is None
    assert job_error(subprocess.CalledProcessError(1, ["git", "log"])) is None
