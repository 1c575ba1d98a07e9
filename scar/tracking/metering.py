"""Device time by stage. On a GPU: wall seconds (after synchronising) times devices. On a CPU: the process's CPU seconds
over all its threads, which neighbours on the machine do not inflate; it is reported as CPU-hours, never GPU-hours.
Evaluation and saving are not metered (docs/decisions.md#gpu-hours).
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Meter:
    """Adds up device seconds of named stages, since the last update and over the run."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stages: dict[str, float] = defaultdict(float)
        self.total_seconds = 0.0

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Meter the enclosed work under `name`."""
        start = self._now()
        yield
        spent = self._now() - start
        self._stages[name] += spent
        self.total_seconds += spent

    def take_stages(self) -> dict[str, float]:
        """Seconds of each stage since the last call."""
        taken, self._stages = dict(self._stages), defaultdict(float)
        return taken

    def peak_memory_bytes(self) -> int:
        """CUDA: most bytes allocated on the device. CPU: most resident bytes of the process so far."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
