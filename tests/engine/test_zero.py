"""DeepSpeed on two processes (gloo, CPU) beside one process of plain torch: the same numbers, and runs that end as they should."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from scar.engine.zero import DeepSpeedEngine
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
    "scar-1": ("shaping=scar", "engine.zero_stage=1"),
    "scar-2": ("shaping=scar", "engine.zero_stage=2", "ppo.microbatch_size=2"),
    "scar-3": ("shaping=scar", "engine.zero_stage=3", "engine.frozen_zero_stage=3"),
    "abc-frozen": ("shaping=abc", "engine.zero_stage=2", "engine.frozen_zero_stage=3"),
    "lora-2": ("shaping=sparse", "engine.zero_stage=2", "engine.offload_optimizer=true", LORA),
    "lora-3": ("shaping=sparse", "engine.zero_stage=3", LORA),
    "offload-3": (
        "shaping=prefix",
        "engine.zero_stage=3",
        "engine.offload_optimizer=true",
        "engine.offload_parameters=true",
    ),
    # Clipped, some steps left out, a value net of its own, activations computed twice.
    "settings-2": ("shaping=sparse", "engine.zero_stage=2", "ppo.max_grad_norm=0.5", "ppo.max_mean_ratio=1.0001"),
    "settings-3": (
        "shaping=sparse",
        "engine.zero_stage=3",
        "ppo.max_grad_norm=0.5",
        "ppo.max_mean_ratio=1.0001",
        "ppo.value_net=separate",
        "memory.gradient_checkpointing=true",
    ),
}


class Launch:
    """Runs of the smoke models in processes of their own."""

    def __init__(self, smoke: SmokeScale, folder: Path) -> None:
        self.runs, self.weights = folder / "runs", folder / "weights"
        paths = (f"paths.cache={smoke.cache}", f"paths.runs={self.runs}")
        self._overrides = ("scale=smoke", "device=cpu", "tracker=jsonl", *paths)

    def __call__(self, processes: int, *overrides: str, fault: str = "none") -> subprocess.CompletedProcess[str]:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, *(launcher if processes > 1 else []), "-m", "tests.engine.worker"]
        return subprocess.run(
            [*command, str(self.weights), fault, *self._overrides, *overrides],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    def record(self, processes: int, *overrides: str) -> RunRecord:
        """The record of a run that ends well."""
        done = self(processes, *overrides)
        assert done.returncode == 0, done.stderr[-3000:]
        (record,) = find_records(self.runs)
        return record


class OneProcess:
    """Runs of one process, each once for all the cases that have the same settings but for the engine's."""

    def __init__(self, smoke: SmokeScale, folder: Path) -> None:
        self._smoke, self._folder = smoke, folder
        self._found: dict[tuple[str, ...], tuple[Launch, RunRecord]] = {}

    def __call__(self, *overrides: str) -> tuple[Launch, RunRecord]:
        if overrides not in self._found:
            launch = Launch(self._smoke, self._folder / str(len(self._found)))
            self._found[overrides] = launch, launch.record(1, *overrides)
        return self._found[overrides]


@pytest.fixture(scope="module")
def one_process(smoke: SmokeScale, tmp_path_factory: pytest.TempPathFactory) -> OneProcess:
    return OneProcess(smoke, tmp_path_factory.mktemp("one-process"))


def assert_equal_to_one_process(smoke: SmokeScale, one_process: OneProcess, folder: Path, case: str) -> None:
    overrides = (*TWO_UPDATES, *CASES[case])
    one, expected = one_process(*(one for one in overrides if not one.startswith("engine.")))
    two = Launch(smoke, folder)
    found = two.record(2, *overrides, "engine=deepspeed")
    for row, other in zip(decided(found), decided(expected), strict=True):
        assert row == pytest.approx(other, rel=2e-3, abs=1e-5)
        assert row["ppo/skipped"] == other["ppo/skipped"]
    weights, wanted = (load_file(launch.weights / "weights.safetensors") for launch in (two, one))
    assert sorted(weights) == sorted(wanted)
    assert max(float((weights[name] - wanted[name]).abs().max()) for name in wanted) <= TOLERANCE
    assert [sample["response"] for sample in found.samples] == [sample["response"] for sample in expected.samples]
    assert found.manifest["engine"]["processes"] == 2
    assert found.path.name == expected.path.name
    # What each process keeps of Adam's means: half, but for what fills the last piece.
    shards = [moments(path) for path in sorted(two.weights.glob("optimizer-*-of-00002.safetensors"))]
    whole = moments(one.weights / "optimizer.safetensors")
    assert len(shards) == 2
    assert shards == pytest.approx([whole / 2, whole / 2], abs=64)


def moments(path: Path) -> int:
    """Bytes of Adam's means in a file."""
    return sum(t.nbytes for name, t in load_file(path).items() if name.endswith(("exp_avg", "exp_avg_sq")))


def test_two_updates_on_two_processes_equal_those_of_one(
    smoke: SmokeScale, one_process: OneProcess, tmp_path: Path
) -> None:
    assert_equal_to_one_process(smoke, one_process, tmp_path, "scar-2")


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name in CASES if name != "scar-2"])
def test_every_stage_and_setting_equals_one_process(
    smoke: SmokeScale, one_process: OneProcess, tmp_path: Path, case: str
) -> None:
    assert_equal_to_one_process(smoke, one_process, tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_process_that_dies_ends_the_run_which_then_goes_on(smoke: SmokeScale, tmp_path: Path, stage: int) -> None:
    settings = ("engine=deepspeed", f"engine.zero_stage={stage}", "shaping=sparse")
    settings += ("ppo.updates=5", "checkpoint.updates=2", "ppo.learning_rate_schedule=linear")
    whole, stopped = Launch(smoke, tmp_path / "whole"), Launch(smoke, tmp_path / "stopped")
    expected = whole.record(2, *settings)
    died = stopped(2, *settings, fault="1")
    assert died.returncode != 0
    assert "process 1: error: an error of this process alone" in died.stderr
    (folder,) = unfinished_runs(stopped.runs)
    names = [path.name for path in sorted((folder / "checkpoints" / "update-000002").iterdir())]
    shards = ["optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors"]
    assert names == [*shards, "state.json", "weights.safetensors"]
    refused = stopped(1, *settings[2:])
    assert refused.returncode == 1
    assert "'processes': 2" in refused.stderr
    found = stopped.record(2, *settings)
    assert decided(found) == decided(expected)
    assert found.samples == expected.samples
    assert found.manifest["resumed_after"] == [2]


@pytest.mark.slow
def test_parameter_without_a_gradient_ends_the_run(smoke: SmokeScale, tmp_path: Path) -> None:
    settings = ("engine=deepspeed", "engine.zero_stage=3", "shaping=sparse", *TWO_UPDATES)
    ended = Launch(smoke, tmp_path)(2, *settings, fault="unused")
    assert ended.returncode != 0
    assert "error: no gradient reaches 1 of the trained parameters (unused), so they would never change" in ended.stderr


@pytest.mark.slow
def test_one_process_needs_no_launcher_and_several_need_an_engine(smoke: SmokeScale, tmp_path: Path) -> None:
    launch = Launch(smoke, tmp_path)
    record = launch.record(1, *TWO_UPDATES, "shaping=sparse", "engine=deepspeed")
    assert record.manifest["engine"]["processes"] == 1
    wrong = launch(2, *TWO_UPDATES, "shaping=uniform")
    assert wrong.returncode != 0
    assert (
        "2 processes with engine=torch, each of which would train the same run; allowed: engine=deepspeed"
        in wrong.stderr
    )
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
