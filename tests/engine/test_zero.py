"""DeepSpeed on two processes (gloo, CPU) beside one process of plain torch: the same numbers, and runs that end as they should."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from scar.engine.zero import DeepSpeedEngine
from scar.ppo.trainer import Trainer
from scar.tracking.records import RunRecord, find_records, unfinished_runs
from tests.smoke_scale import REPOSITORY, SmokeScale
from tests.test_end_to_end import decided

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs the extra [deepspeed]: pip install 'scar[deepspeed]'"
)
TOLERANCE = 1e-5
"""Largest difference of a parameter after two updates; learning rate 1e-4, eight steps of Adam."""
TWO_UPDATES = ("ppo.updates=2",)
LORA = "+models.policy.load.lora={rank: 2, alpha: 4}"
CASES = {
    # Clipped, some steps left out.
    "settings-1": ("shaping=sparse", "engine.zero_stage=1", "ppo.max_grad_norm=0.5", "ppo.max_mean_ratio=1.0001"),
    "scar-2": ("shaping=scar", "engine.zero_stage=2", "ppo.microbatch_size=2"),
    "lora-2": ("shaping=sparse", "engine.zero_stage=2", "engine.offload_optimizer=true", LORA),
    "scar-3": ("shaping=scar", "engine.zero_stage=3", "engine.frozen_zero_stage=3"),
    # A value net of its own, activations computed twice.
    "settings-3": (
        "shaping=sparse",
        "engine.zero_stage=3",
        "ppo.max_grad_norm=0.5",
        "ppo.max_mean_ratio=1.0001",
        "ppo.value_net=separate",
        "memory.gradient_checkpointing=true",
    ),
    "offload-3": (
        "shaping=red",
        "engine.zero_stage=3",
        "engine.offload_optimizer=true",
        "engine.offload_parameters=true",
    ),
}


class Launch:
    """Runs of the smoke models in processes of their own."""

    def __init__(self, smoke: SmokeScale, folder: Path) -> None:
        self.runs, self.weights = folder / "runs", folder / "weights"
        paths = (f"paths.cache={smoke.cache}", f"paths.runs={self.runs}")
        self._overrides = ("scale=smoke", "device=cpu", "tracker=jsonl", *paths)

    def arguments(self, *overrides: str, fault: str = "none") -> list[str]:
        """Of tests/engine/worker.py, for one run."""
        return [str(self.weights), fault, *self._overrides, *overrides]

    def __call__(self, processes: int, *overrides: str, fault: str = "none") -> subprocess.CompletedProcess[str]:
        return start(processes, self.arguments(*overrides, fault=fault))

    def record(self, processes: int, *overrides: str) -> RunRecord:
        """The record of a run that ends well."""
        done = self(processes, *overrides)
        assert done.returncode == 0, done.stderr[-3000:]
        return self.found()

    def found(self) -> RunRecord:
        """The only record."""
        (record,) = find_records(self.runs)
        return record


def start(processes: int, *runs: list[str]) -> subprocess.CompletedProcess[str]:
    """Train these runs one after the other in new processes: importing DeepSpeed takes longer than a run."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "tests.engine.worker"]
    arguments = [word for run in runs for word in ("--", *run)][1:]
    return subprocess.run(
        [*command, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=500
    )


@pytest.fixture(scope="module")
def launches(smoke: SmokeScale, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Launch]:
    """Every case, trained by two processes."""
    found = {case: Launch(smoke, tmp_path_factory.mktemp(case)) for case in CASES}
    runs = [launch.arguments(*TWO_UPDATES, *CASES[case], "engine=deepspeed") for case, launch in found.items()]
    done = start(2, *runs)
    assert done.returncode == 0, done.stderr[-3000:]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_updates_on_two_processes_equal_those_of_one(
    smoke: SmokeScale, launches: dict[str, Launch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    overrides = (*TWO_UPDATES, *CASES[case])
    train, one = Trainer.train, tmp_path / "one"

    def saving(self: Trainer, *arguments: Any, **options: Any) -> None:
        train(self, *arguments, **options)
        one.mkdir()
        self.updater.learner.save(one)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", saving)
        alone = [override for override in overrides if not override.startswith("engine.")]
        expected = smoke.run(*alone, runs=tmp_path / "alone")
    two, found = launches[case], launches[case].found()
    for row, other in zip(decided(found), decided(expected), strict=True):
        assert row == pytest.approx(other, rel=2e-3, abs=1e-5)
        assert row["ppo/skipped"] == other["ppo/skipped"]
    weights, wanted = (load_file(folder / "weights.safetensors") for folder in (two.weights, one))
    assert sorted(weights) == sorted(wanted)
    assert max(float((weights[name] - wanted[name]).abs().max()) for name in wanted) <= TOLERANCE
    assert [sample["response"] for sample in found.samples] == [sample["response"] for sample in expected.samples]
    assert found.manifest["engine"]["processes"] == 2
    assert found.path.name == expected.path.name
    # What each process keeps of Adam's means: half, but for what fills the last piece.
    shards = [moments(path) for path in sorted(two.weights.glob("optimizer-*-of-00002.safetensors"))]
    whole = moments(one / "optimizer.safetensors")
    assert len(shards) == 2
    assert shards == pytest.approx([whole / 2, whole / 2], abs=64)


def moments(path: Path) -> int:
    """Bytes of Adam's means in a file."""
    return sum(t.nbytes for name, t in load_file(path).items() if name.endswith(("exp_avg", "exp_avg_sq")))


@pytest.mark.slow
def test_process_that_dies_ends_the_run_which_then_goes_on(smoke: SmokeScale, tmp_path: Path) -> None:
    usual = ("shaping=sparse", "ppo.updates=5", "checkpoint.updates=2", "ppo.learning_rate_schedule=linear")
    settings = ("engine=deepspeed", "engine.zero_stage=3", *usual)
    stopped = Launch(smoke, tmp_path / "stopped")
    died = stopped(2, *settings, fault="1")
    assert died.returncode != 0
    assert "process 1: error: an error of this process alone" in died.stderr
    (folder,) = unfinished_runs(stopped.runs)
    names = [path.name for path in sorted((folder / "checkpoints" / "update-000002").iterdir())]
    shards = ["optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors"]
    assert names == [*shards, "state.json", "weights.safetensors"]
    found, expected = stopped.record(2, *settings), smoke.run(*usual, runs=tmp_path / "whole")
    assert found.manifest["resumed_after"] == [2]
    for row, other in zip(decided(found), decided(expected), strict=True):
        assert row == pytest.approx(other, rel=2e-3, abs=1e-5)


@pytest.mark.slow
def test_parameter_without_a_gradient_ends_the_run(smoke: SmokeScale, tmp_path: Path) -> None:
    settings = ("engine=deepspeed", "engine.zero_stage=3", "shaping=sparse", *TWO_UPDATES)
    ended = Launch(smoke, tmp_path)(2, *settings, fault="unused")
    assert ended.returncode != 0
    assert "error: no gradient reaches 1 of the trained parameters (unused), so they would never change" in ended.stderr


@pytest.mark.slow
def test_one_process_needs_no_launcher_and_several_need_an_even_batch(smoke: SmokeScale, tmp_path: Path) -> None:
    launch = Launch(smoke, tmp_path)
    record = launch.record(1, *TWO_UPDATES, "shaping=sparse", "engine=deepspeed")
    assert record.manifest["engine"]["processes"] == 1
    uneven = launch(
        2, *TWO_UPDATES, "shaping=uniform", "engine=deepspeed", "ppo.minibatch_size=1", "ppo.microbatch_size=1"
    )
    assert uneven.returncode != 0
    assert "ppo.minibatch_size=1 with 2 processes" in uneven.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zero_stage": 0}, r"engine\.zero_stage=0; allowed: 1, 2 or 3"),
        ({"frozen_zero_stage": 2}, r"engine\.frozen_zero_stage=2; allowed: 0 or 3"),
        ({"offload_parameters": True}, r"engine\.offload_parameters=true with zero_stage=2; allowed: zero_stage=3"),
    ],
)
def test_wrong_settings_are_refused_before_anything_starts(settings: dict[str, int | bool], message: str) -> None:
    usual = {"zero_stage": 2, "frozen_zero_stage": 0, "offload_optimizer": False, "offload_parameters": False}
    with pytest.raises(ValueError, match=message):
        DeepSpeedEngine(**(usual | settings), device="cpu")  # type: ignore[arg-type]
