"""Real sweeps of two runs at scale=smoke: as jobs, stopped and queued again, they leave the records of runs started by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scar.tracking.records import RunRecord, find_records, unfinished_runs
from tests.launchers.fake_slurm import Cluster
from tests.smoke_scale import REPOSITORY, SmokeScale
from tests.test_end_to_end import decided


def started(launcher: str, smoke: SmokeScale, runs: Path, *overrides: str, path: str) -> subprocess.Popen[str]:
    """Seeds 1 and 2 of the sparse reward."""
    options = (
        "scale=smoke",
        "task=imdb",
        "device=cpu",
        "tracker=jsonl",
        f"paths.cache={smoke.cache}",
        f"paths.runs={runs}",
    )
    return subprocess.Popen(
        [sys.executable, "experiments/train.py", "-m", f"hydra/launcher={launcher}", "seed=1,2", *options, *overrides],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def records_of(process: subprocess.Popen[str], runs: Path) -> list[RunRecord]:
    """The records of seeds 1 and 2 when the sweep has ended well."""
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert unfinished_runs(runs) == []
    return sorted(find_records(runs), key=lambda record: record.manifest["seed"])


@pytest.mark.slow
def test_a_job_at_its_time_limit_goes_on_from_a_checkpoint_when_it_is_queued_again(
    smoke: SmokeScale, tmp_path: Path
) -> None:
    options = ("shaping=sparse", "ppo.updates=40", "checkpoint.updates=null")
    cluster = Cluster(tmp_path / "cluster")
    process = started("submitit_slurm", smoke, tmp_path / "runs", *options, path=cluster.path)
    while not any(path.stat().st_size for path in tmp_path.glob("runs/smoke/imdb/sparse/seed1-*/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.02)
    cluster.send(signal.SIGUSR2, task=0)
    stopped, other = records_of(process, tmp_path / "runs")
    assert len(cluster.calls("scontrol")) == 1
    (update,) = stopped.manifest["resumed_after"]
    assert 1 <= update < 40
    assert other.manifest["resumed_after"] == []
    expected = smoke.run(*options, "seed=1")
    assert decided(stopped) == decided(expected)
    assert (stopped.evaluation, stopped.samples) == (expected.evaluation, expected.samples)
