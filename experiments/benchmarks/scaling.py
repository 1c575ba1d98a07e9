"""A PPO update of SCAR on one process and on two, by ZeRO stage: what each process keeps, and how long it takes.

CPU processes with gloo, one thread each; GPT-NeoX of 30M parameters (26M embeddings), 8 responses of 53 tokens behind 512.
`weights` and `optimizer` are exact bytes of the policy between updates on the first process; `peak` is its resident memory,
libraries included; `seconds` is the wall time of the second update. Processes on one machine share its cores.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.update import random_trainer
from scar.engine.single import TorchEngine
from scar.engine.zero import DeepSpeedEngine
from scar.interfaces import Engine

RESPONSES = 8
MIB = 2**20
Advance = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Row:
    """One engine: MiB of policy weights, of the optimizer and at the peak of the first process, wall seconds per update, and
    the largest difference of a metric of the second update from that of plain torch, relative to 1 + its size."""

    engine: str
    processes: int
    weights_mib: float
    optimizer_mib: float
    peak_mib: float
    seconds: float
    largest_difference: float


def run(*, quick: bool, cache: Path, advance: Advance) -> list[Row]:
    """All rows; OSError with the worker's last words when one fails. Needs no model of `cache`."""
    cases = [("torch", 1, 0, 0), ("deepspeed", 2, 2, 0)]
    if not quick:
        more = [(1, 2, 0), (2, 1, 0), (2, 3, 0), (2, 3, 3)]
        cases += [("deepspeed", processes, stage, frozen) for processes, stage, frozen in more]
    rows: list[Row] = []
    expected: dict[str, Any] = {}
    for case in cases:
        measured = _launch(*case)
        expected = expected or measured["row"]
        rows.append(_row(case, measured, expected))
        advance(len(rows), len(cases), {"s": rows[-1].seconds})
    return rows


def _row(case: tuple[str, int, int, int], measured: dict[str, Any], expected: dict[str, Any]) -> Row:
    engine, processes, stage, frozen = case
    label = engine if not stage else f"{engine}, ZeRO {stage}" + (", frozen models sharded" if frozen else "")
    differences = [abs(measured["row"][name] - value) / (1 + abs(value)) for name, value in expected.items()]
    weights, optimizer, peak = (measured[name] / MIB for name in ("weights", "optimizer", "peak"))
    return Row(label, processes, weights, optimizer, peak, measured["seconds"], max(differences))


def _launch(engine: str, processes: int, stage: int, frozen: int) -> dict[str, Any]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.json"
        command = [sys.executable, *(launcher if processes > 1 else []), "-m", "experiments.benchmarks.scaling"]
        done = subprocess.run(
            [*command, str(out), engine, str(stage), str(frozen)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(f"{engine} on {processes} processes failed: {done.stderr[-2000:]}")
        return json.loads(out.read_text(encoding="utf-8"))


def measure(engine: Engine) -> dict[str, Any]:
    """One process's part: what it holds, and the second of two updates."""
    trainer = random_trainer(RESPONSES, "larger", engine)
    trainer.run_update(1)
    started = time.perf_counter()
    row = trainer.run_update(2)
    seconds = time.perf_counter() - started
    numbers = {name: row[name] for name in row if name.split("/")[0] in ("reward", "kl", "ppo", "scar", "credit")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return trainer.updater.learner.held_bytes() | {"peak": peak, "seconds": seconds, "row": numbers}


def work(out: Path, engine: str, stage: int, frozen: int) -> None:
    """The process that `_launch` starts."""
    torch.set_num_threads(1)
    used: Engine = TorchEngine()
    if engine == "deepspeed":
        used = DeepSpeedEngine(
            zero_stage=stage, frozen_zero_stage=frozen, offload_optimizer=False, offload_parameters=False, device="cpu"
        )
    measured = measure(used)
    if used.is_main:
        out.write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    path, name, *numbers = sys.argv[1:]
    work(Path(path), name, *map(int, numbers))
