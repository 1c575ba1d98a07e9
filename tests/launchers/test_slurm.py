"""What SLURM is told, what becomes of a job at its time limit, what Ctrl-C and a refused job end in. SLURM is a stand-in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.launchers.fake_slurm import JOB, Cluster

pytestmark = pytest.mark.slow

APP = Path(__file__).with_name("app.py")
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Sweep:
    """A sweep of two seeds of `app.py` in `folder` on `cluster`."""

    cluster: Cluster
    folder: Path

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(APP), "--multirun", "hydra/launcher=submitit_slurm", "seed=1,2"]
        environment = os.environ | {"PATH": self.cluster.path, "PYTHONPATH": str(REPOSITORY)}
        self.folder.mkdir()
        return subprocess.Popen(
            [*command, f"paths.runs={self.folder}", *overrides],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )

    def notes(self, seed: int) -> list[str]:
        return (self.folder / f"seed{seed}.txt").read_text(encoding="utf-8").split()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A whole sweep, one job of which gets the signal of the time limit once."""
    folder = tmp_path_factory.mktemp("slurm")
    sweep = Sweep(Cluster(folder / "cluster"), folder / "runs")
    options = ("partition=gpu", "timeout_min=90", "gpus_per_node=2", "array_parallelism=1")
    process = sweep.start(*(f"hydra.launcher.{option}" for option in options))
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, ""), err
    (folder / "out.txt").write_text(out, encoding="utf-8")
    return sweep


def test_sbatch_is_told_what_the_config_says(sweep: Sweep) -> None:
    asked = sweep.cluster.asked()
    assert asked["array"] == "0-1%1"
    assert (asked["partition"], asked["time"], asked["gpus-per-node"]) == ("gpu", "90", "2")
    assert (asked["nodes"], asked["ntasks-per-node"], asked["cpus-per-task"], asked["mem"]) == ("1", "1", "4", "64GB")
    assert asked["signal"] == "USR2@300"
    assert asked["requeue"] == ""
    assert asked["job-name"].startswith("scar-2")
    assert set(asked).isdisjoint({"account", "qos", "constraint", "gres", "error"})  # null leaves it to the cluster
    assert len(sweep.cluster.calls("sbatch")) == 1


def test_srun_asks_for_the_cpus_of_the_job(sweep: Sweep) -> None:
    assert sweep.cluster.cpus_of_srun() == "4"


def test_a_job_that_gets_the_signal_is_queued_again_and_ends(sweep: Sweep) -> None:
    assert sweep.cluster.calls("scontrol") == [f"requeue {JOB}_0"]
    assert sweep.notes(seed=1) == ["start", "start", "end"]
    assert sweep.notes(seed=2) == ["start", "end"]
    assert sweep.cluster.calls("scancel") == []


def test_logs_stay_where_the_sweep_says_and_nothing_else_does(sweep: Sweep) -> None:
    (logs,) = (sweep.folder / ".jobs").iterdir()
    out = (sweep.folder.parent / "out.txt").read_text(encoding="utf-8")
    assert f"jobs {sweep.cluster.asked()['job-name']}, their logs: {logs}" in out.replace("\n/", " /")
    log = (logs / f"{JOB}_0_0_log.out").read_text(encoding="utf-8")
    assert "Requeued job 4711_0 (10 remaining timeouts)" in log  # preempted: no time limit was used up
    assert log.count("Starting with") == 2  # both lives of the job in one log
    assert (logs / f"{JOB}_1_0_log.out").exists()
    assert list((sweep.folder / ".sweeps").iterdir()) == []


def test_a_single_run_is_a_job_of_its_own(tmp_path: Path) -> None:
    sweep = Sweep(Cluster(tmp_path / "cluster"), tmp_path / "runs")
    process = sweep.start("seed=1")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "array" not in sweep.cluster.asked()
    assert sweep.cluster.calls("scontrol") == [f"requeue {JOB}"]
    assert sweep.notes(seed=1) == ["start", "start", "end"]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_cancels_the_jobs_of_the_sweep(tmp_path: Path) -> None:
    sweep = Sweep(Cluster(tmp_path / "cluster", holds=True), tmp_path / "runs")
    process = sweep.start()
    while not sweep.cluster.calls("sacct") and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert sweep.cluster.calls("scancel") == [f"--name={sweep.cluster.asked()['job-name']}"]
    assert process.returncode == 130
    assert err == "interrupted; finished runs are kept, and the same command goes on from there\n"


def test_a_refused_sweep_says_why_in_one_line(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster", refusal="invalid partition specified: nowhere")
    process = Sweep(cluster, tmp_path / "runs").start("hydra.launcher.partition=nowhere")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "error: sbatch: error: invalid partition specified: nowhere"
    assert "Traceback" not in err
