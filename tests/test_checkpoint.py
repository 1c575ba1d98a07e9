"""Checkpoints: a run that was stopped and goes on leaves the record of one that was not; nothing half-written is read."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from scar.commands import train as run_module
from scar.engine import single
from scar.engine.single import TorchEngine, TorchLearner
from scar.models.precision import add_lora
from scar.ppo.trainer import Trainer
from scar.tracking.checkpoint import CheckpointKeeper, Postponed, find_checkpoint
from scar.tracking.records import unfinished_runs
from tests.builders import ppo_config
from tests.models.tiny import PROMPTS, RESPONSES, language_model, left_padded, right_padded, tiny_policy
from tests.smoke_scale import Runs, SmokeScale
from tests.test_end_to_end import decided, fail_at, files_below

FIVE = ("ppo.updates=5", "checkpoint.updates=2", "ppo.learning_rate_schedule=linear")
METHODS = {"sparse": ("shaping=sparse",), "scar": ("shaping=scar", "estimator=permutation")}


@pytest.fixture(scope="module")
def whole(smoke: SmokeScale) -> Runs:
    """Runs of five updates that nothing stopped."""
    return Runs(lambda name: smoke.run(*FIVE, *METHODS[name]))


def when(monkeypatch: pytest.MonkeyPatch, update: int, act: Callable[[], None]) -> None:
    """Do something in the middle of `update`."""
    run_update = Trainer.run_update

    def acting(self: Trainer, number: int) -> dict[str, Any]:
        row = run_update(self, number)
        if number == update:
            act()
        return row

    monkeypatch.setattr(Trainer, "run_update", acting)


def stopped_run(smoke: SmokeScale, runs: Path, *overrides: str, update: int = 4) -> Path:
    """The folder of a run that fails in `update`."""
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, update, RuntimeError("out of memory"))
        with pytest.raises(RuntimeError, match="out of memory"):
            smoke.run(*FIVE, *overrides, runs=runs)
    (folder,) = unfinished_runs(runs)
    return folder


@pytest.mark.parametrize("method", ["sparse", pytest.param("scar", marks=pytest.mark.slow)])
def test_run_that_goes_on_leaves_the_record_of_one_that_was_not_stopped(
    smoke: SmokeScale, whole: Runs, tmp_path: Path, method: str
) -> None:
    folder = stopped_run(smoke, tmp_path, *METHODS[method])
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3  # one more than the checkpoint knows
    found = find_checkpoint(folder)
    assert found is not None
    assert found.update == 2
    record = smoke.run(*FIVE, *METHODS[method], runs=tmp_path)
    assert decided(record) == decided(whole[method])
    assert record.evaluation == whole[method].evaluation
    assert record.samples == whole[method].samples
    assert record.manifest["resumed_after"] == [2]
    assert whole[method].manifest["resumed_after"] == []
    assert record.path.name == whole[method].path.name
    assert unfinished_runs(tmp_path) == []
    assert sorted(path.name for path in record.path.iterdir()) == sorted(p.name for p in whole[method].path.iterdir())


@pytest.mark.slow
def test_device_time_counts_all_parts_of_the_run(smoke: SmokeScale, tmp_path: Path) -> None:
    folder = stopped_run(smoke, tmp_path, *METHODS["sparse"])
    state = json.loads((folder / "checkpoints" / "update-000002" / "state.json").read_text())
    assert state["trainer"]["device_seconds"] > 0
    state["trainer"]["device_seconds"] += 1000
    (folder / "checkpoints" / "update-000002" / "state.json").write_text(json.dumps(state))
    record = smoke.run(*FIVE, *METHODS["sparse"], runs=tmp_path)
    assert record.metrics[1]["device_seconds"] < 1000 < record.metrics[2]["device_seconds"]
    assert record.manifest["timing"]["device_seconds"] == record.metrics[-1]["device_seconds"]


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, KeyboardInterrupt)])
def test_signal_stops_the_run_behind_a_checkpoint_of_its_update(
    smoke: SmokeScale, whole: Runs, tmp_path: Path, number: int, ends: type[BaseException]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        when(patch, 3, lambda: os.kill(os.getpid(), number))
        with pytest.raises(ends):
            smoke.run(*FIVE, *METHODS["sparse"], runs=tmp_path)
    (folder,) = unfinished_runs(tmp_path)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["update-000003"]
    assert decided(smoke.run(*FIVE, *METHODS["sparse"], runs=tmp_path)) == decided(whole["sparse"])


def test_every_signal_reaches_its_listener() -> None:
    """A scheduler that sends SIGTERM, which nobody minds, beside the SIGUSR2 that queues the job again."""
    heard: list[int] = []
    before = {n: signal.signal(n, lambda number, frame: heard.append(number)) for n in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        with Postponed() as postponed:
            os.kill(os.getpid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == []
            postponed.deliver()
    finally:
        for number, listener in before.items():
            signal.signal(number, listener)
    assert heard == [signal.SIGUSR2, signal.SIGTERM]


@pytest.mark.slow
def test_other_code_does_not_go_on_and_deletes_nothing(
    smoke: SmokeScale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped_run(smoke, tmp_path, *METHODS["sparse"])
    before = files_below(folder)
    monkeypatch.setattr(run_module, "code_digest", lambda: "other")
    with pytest.raises(ValueError, match="was made by other code"):
        smoke.run(*FIVE, *METHODS["sparse"], runs=tmp_path)
    assert files_below(folder) == before


@pytest.mark.slow
def test_damaged_weights_and_state_are_named(smoke: SmokeScale, tmp_path: Path) -> None:
    folder = stopped_run(smoke, tmp_path, *METHODS["sparse"])
    place = folder / "checkpoints" / "update-000002"
    whole_file = (place / "weights.safetensors").read_bytes()
    (place / "weights.safetensors").write_bytes(whole_file[:-1000])
    with pytest.raises(ValueError, match=r"update-000002 is damaged .* delete .*partial and run again"):
        smoke.run(*FIVE, *METHODS["sparse"], runs=tmp_path)
    (place / "weights.safetensors").write_bytes(whole_file)
    (place / "state.json").write_text("{")
    with pytest.raises(ValueError, match=r"update-000002 is damaged"):
        smoke.run(*FIVE, *METHODS["sparse"], runs=tmp_path)
    assert place.is_dir()


@pytest.mark.slow
def test_full_disk_leaves_the_checkpoint_before(
    smoke: SmokeScale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = single.save_file, []

    def full(tensors: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) > 2:
            raise SafetensorError("I/O error: No space left on device")
        save(tensors, path)

    monkeypatch.setattr(single, "save_file", full)
    with pytest.raises(OSError, match=r"cannot write the checkpoint .*update-000004: .*No space left"):
        smoke.run(*FIVE, *METHODS["sparse"], runs=tmp_path)
    (folder,) = unfinished_runs(tmp_path)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["update-000002"]


def step(learner: TorchLearner, *, skip: bool = False) -> None:
    ids, mask = right_padded(RESPONSES)
    out = learner.policy.evaluate(left_padded(PROMPTS), ids, mask)
    learner.backward(-(out.logprobs.sum() + out.values.sum()))
    learner.step(skip=skip)


def lora_policy() -> Any:
    policy = tiny_policy("llama")
    add_lora(policy.model, lora_settings(), seed=1)
    return policy


def lora_settings() -> Any:
    from scar.config import LoraSettings

    return LoraSettings(rank=2, alpha=4)


@pytest.mark.parametrize("make", [tiny_policy, lora_policy], ids=["all", "lora"])
def test_learner_goes_on_bit_for_bit(tmp_path: Path, make: Callable[[], Any]) -> None:
    config = ppo_config(learning_rate=1e-2, adam_eps=1e-8)
    whole, stopped, fresh = (TorchLearner(make(), config) for _ in range(3))
    for learner in (whole, stopped):
        step(learner)
        step(learner)
    stopped.save(tmp_path)
    fresh.load(tmp_path)
    for learner in (whole, fresh):
        step(learner)
    weights = {name: p for name, p in whole.policy.named_parameters() if p.requires_grad}
    for name, parameter in fresh.policy.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter, weights[name]), name
    assert sorted(load_file(tmp_path / "weights.safetensors")) == sorted(weights)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    config = ppo_config()
    TorchLearner(tiny_policy("gpt2"), config).save(tmp_path)
    with pytest.raises(ValueError, match="those of another model"):
        TorchLearner(tiny_policy("llama"), config).load(tmp_path)


def keeper_of(folder: Path, engine: Any, *, every: int | None) -> CheckpointKeeper:
    learner = TorchLearner(language_model("gpt2"), ppo_config())
    return CheckpointKeeper(folder, every=every, last=5, engine=engine, learner=learner, state=dict, facts=lambda: {})


@pytest.mark.parametrize(("every", "kept"), [(2, [2, 4, 5]), (10, [5]), (None, [])])
def test_cadence(tmp_path: Path, every: int | None, kept: list[int]) -> None:
    keeper, found = keeper_of(tmp_path, TorchEngine(), every=every), []
    for update in range(1, 6):
        keeper.after_update(update)
        checkpoint = find_checkpoint(tmp_path)
        found += [checkpoint.update] if checkpoint and checkpoint.update not in found else []
    assert found == kept
    assert len(list((tmp_path / "checkpoints").glob("*"))) == min(len(kept), 1)


def test_checkpoint_of_another_engine_is_refused(tmp_path: Path) -> None:
    class Two(TorchEngine):
        def describe(self) -> dict[str, Any]:
            return {"name": "torch", "processes": 2}

    keeper_of(tmp_path, TorchEngine(), every=1).after_update(1)
    found = find_checkpoint(tmp_path)
    assert found is not None
    with pytest.raises(ValueError, match=r"'processes': 1.*this is .*'processes': 2"):
        keeper_of(tmp_path, Two(), every=1).restore(found)


@pytest.mark.usefixtures("ctrl_c")
def test_second_ctrl_c_does_not_wait() -> None:
    with Postponed() as postponed:
        os.kill(os.getpid(), signal.SIGINT)
        assert postponed.came == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_signals_stay_ignored_and_unheard_ones_untouched() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Postponed() as postponed:
            os.kill(os.getpid(), signal.SIGINT)
            assert postponed.came == []
            assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
