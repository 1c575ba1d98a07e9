"""How a config comes to its engine, and to its task."""

from __future__ import annotations

import pytest

from scar.commands import build
from scar.engine.single import TorchEngine
from scar.engine.zero import DeepSpeedEngine
from tests.engine.threads import on_ranks
from tests.smoke_scale import composed


def test_several_processes_without_an_engine_for_them_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(build.build_engine(composed()), TorchEngine)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes with engine=torch.*allowed: engine=deepspeed, or one process"):
        build.build_engine(composed())


def test_models_are_placed_by_one_of_engine_and_memory() -> None:
    settings = ("memory.offload=true", "engine=deepspeed", "engine.zero_stage=3")
    build.check_settings(composed(*settings))
    with pytest.raises(ValueError, match=r"memory\.offload=true with engine\.frozen_zero_stage=3"):
        build.check_settings(composed(*settings, "engine.frozen_zero_stage=3"))


def engine_of(ranks: object) -> DeepSpeedEngine:
    engine = DeepSpeedEngine.__new__(DeepSpeedEngine)
    engine._ranks = ranks  # type: ignore[assignment]
    return engine


def test_processes_that_drift_apart_end_the_run() -> None:
    def work(ranks: object) -> None:
        row = {"reward/raw_mean": 1.0, "kl/coef": 0.2 + ranks.rank}  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError, match=r"disagree on kl/coef: \[\{'kl/coef': 0\.2\}, \{'kl/coef': 1\.2\}\]"):
            engine_of(ranks).merge(row, {})

    on_ranks(2, work)


def test_any_and_agreed() -> None:
    assert on_ranks(3, lambda ranks: engine_of(ranks).any(ranks.rank == 2)) == [True] * 3
    assert on_ranks(3, lambda ranks: engine_of(ranks).any(False)) == [False] * 3
    assert on_ranks(3, lambda ranks: engine_of(ranks).agreed(ranks.rank)) == [0] * 3


def test_jobs_that_follow_each_other_read_a_tasks_data_once() -> None:
    first = build.build_task(composed("task=imdb", "seed=1"))
    assert build.build_task(composed("task=imdb", "seed=2", "shaping=sparse")) is first
    assert build.build_task(composed("task=imdb", "task.min_characters=50")) is not first
    assert build.build_task(composed("task=imdb", "seed=1")) is not first  # the last one alone is kept
