"""Device time by stage: what is counted, what is not, and in which clock."""

from __future__ import annotations

import pytest
import torch

from scar.tracking import metering
from scar.tracking.metering import Meter

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The process's CPU seconds, by hand."""
    now = [100.0]
    monkeypatch.setattr(metering.time, "process_time", lambda: now[0])
    return now


def spend(meter: Meter, clock: list[float], stage: str, seconds: float) -> None:
    with meter.stage(stage):
        clock[0] += seconds


def test_stages_add_up_and_time_between_them_is_not_counted(clock: list[float]) -> None:
    meter = Meter(CPU)
    spend(meter, clock, "rollout", 2.0)
    clock[0] += 50.0  # evaluation, say
    spend(meter, clock, "update", 3.0)
    spend(meter, clock, "rollout", 0.5)
    assert meter.total_seconds == 5.5
    assert meter.take_stages() == {"rollout": 2.5, "update": 3.0}


def test_stages_start_anew_after_they_are_taken_but_the_total_goes_on(clock: list[float]) -> None:
    meter = Meter(CPU)
    spend(meter, clock, "rollout", 2.0)
    meter.take_stages()
    assert meter.take_stages() == {}
    spend(meter, clock, "credit", 1.0)
    assert meter.take_stages() == {"credit": 1.0}
    assert meter.total_seconds == 3.0


def test_cpu_time_is_the_process_own_and_not_wall_time() -> None:
    meter = Meter(CPU)
    with meter.stage("wait"):
        metering.time.sleep(0.2)
    assert meter.total_seconds < 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_time_includes_work_that_is_still_queued() -> None:
    device = torch.device("cuda")
    meter, matrix = Meter(device), torch.randn(8192, 8192, device=device)
    with meter.stage("rollout"):
        for _ in range(20):
            matrix = (matrix @ matrix).clamp(-1, 1)
    assert meter.total_seconds > 0.02
    assert meter.peak_memory_bytes() >= matrix.numel() * 4
