"""What scoring the coalitions of 53 tokens behind a 512-token prompt holds in memory, by backend and bound.

Each row is a process of its own; its resident memory is sampled while it works. `peak_mib` is the growth over the
moment before the measured call (the loaded model and what a first, smaller call leaves behind are not in it).
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from experiments.benchmarks.update import NO_LIMIT, timed
from scar.coalitions.backends import make_scorer
from scar.credit.estimators import OwenEstimator, PermutationEstimator, PlanEstimator
from scar.credit.game import TextGame
from scar.planning.workloads import Workload, random_reward_model, random_rollout, random_units, score

STATM = Path("/proc/self/statm")
Advance = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Row:
    """One measurement: the bound, the most it held, CPU seconds, coalitions scored."""

    name: str
    memory_mib: int
    peak_mib: float
    seconds: float
    queries: int


def run(*, quick: bool, cache: Path, advance: Advance) -> list[Row]:
    """All rows; OSError where the system has no /proc (Linux has). Needs no model of `cache`."""
    if not STATM.exists():
        raise OSError(f"this benchmark reads {STATM}, which this system does not have")
    sizes = ("smaller",) if quick else ("smaller", "larger")
    settings = [("fused", 512), ("fused", 64), ("fused", 16), ("generic", 512), ("generic", 64)]
    cases = [(size, backend, bound) for size in sizes for backend, bound in settings]
    rows: list[Row] = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for case in cases:
            rows.append(pool.apply(measure, case))
            advance(len(rows), len(cases), {"MiB": rows[-1].peak_mib})
    return rows


def measure(size: str, backend: str, memory_mib: int) -> Row:
    """One row, in the calling process."""
    torch.set_num_threads(1)
    reward_model = random_reward_model(size)
    rollout = random_rollout(Workload("", size, 512, 53, 53, 1))
    units, scores = random_units(rollout, 53), score(reward_model, rollout)
    scorer, _ = make_scorer(
        reward_model, backend=backend, dtype="float32", memory_mib=memory_mib, device=torch.device("cpu")
    )
    game = TextGame(scorer, fill="space").batch(scores, units)
    # The generic backend takes minutes for all Owen coalitions; its chunks are full with a tenth of them.
    estimator: PlanEstimator = OwenEstimator(NO_LIMIT) if backend == "fused" else PermutationEstimator(4)
    PermutationEstimator(2).estimate(game, np.random.default_rng(0))  # what PyTorch allocates once and keeps
    before = resident_mib()
    with Peak() as peak:
        seconds, estimates = timed(lambda: estimator.estimate(game, np.random.default_rng(0)))
    return Row(
        f"tldr token N=53, {size} model, {backend}", memory_mib, peak.mib - before, seconds, estimates[0].queries
    )


def resident_mib() -> float:
    """Resident memory of this process."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Peak:
    """Samples resident memory every two milliseconds; `mib` is the most it saw."""

    def __enter__(self) -> Peak:
        self.mib = resident_mib()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self.mib = max(self.mib, resident_mib())

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
