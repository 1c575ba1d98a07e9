"""The command line: sizes of sweeps, errors in one line, and nothing left behind by bad input."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException

from scar.commands import cli, models
from scar.commands.cli import one_line, sweep_size
from scar.commands.models import report_lines
from tests.smoke_scale import REPOSITORY, SmokeScale, composed


@dataclass(frozen=True)
class Outcome:
    """How a script ended."""

    status: int
    out: str
    err: str


def sweep_of_hydra(overrides: list[str]) -> int:
    """How many jobs Hydra's own sweeper makes of these overrides."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    return sum(len(batch) for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None))


@pytest.mark.parametrize(
    ("overrides", "runs"),
    [
        ([], 1),
        (["seed=3"], 1),
        (["seed=1,2,3"], 3),
        (["seed=range(1,6)"], 5),
        (["seed=range(0,10,4)"], 3),
        (["shaping=choice(sparse,scar)"], 2),
        (["shaping=sparse,uniform,abc,scar,red", "seed=range(1,6)", "task=imdb"], 25),
        (["shaping=sparse,uniform,abc,scar,red", "seed=range(1,6)", "seed=1,2"], 10),
        (["shaping=sparse,uniform,abc,scar,red", "seed=range(1,6)", "shaping=scar", "seed=7"], 1),
        (["seed=1", "seed=1,2"], 2),
        (["shaping.alpha=0,0.5,1", "seed=1,2"], 6),
        (["+note='a,b'", "seed=1,2"], 2),
    ],
)
def test_sweep_size_is_what_hydra_makes_of_it(overrides: list[str], runs: int) -> None:
    assert sweep_size(overrides) == runs
    assert sweep_of_hydra(overrides) == runs


def wrapped(cause: Exception) -> InstantiationException:
    error = InstantiationException("Error in call to target 'scar.config.PPOConfig':\n" + repr(cause))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("ppo.updates=0; allowed: 1 or more"), "ppo.updates=0; allowed: 1 or more"),
        (ValueError("several\n   lines\n\tof text"), "several lines of text"),
        (ValueError(), "ValueError"),
        (wrapped(ValueError("ppo.updates=0")), "ppo.updates=0"),
        (FileNotFoundError("the model is not in cache"), "the model is not in cache"),
    ],
)
def test_one_line_is_the_message_alone(error: Exception, message: str) -> None:
    assert one_line(error) == message


def test_errors_of_the_operating_system_name_the_file_and_what_to_do() -> None:
    message = one_line(PermissionError(13, "Permission denied", "/data/runs"))
    assert message.startswith("Permission denied (/data/runs); ")
    assert "paths.runs=" in message
    assert one_line(OSError(28, "No space left on device")).startswith("No space left on device; ")


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (ValueError("bad\nvalue"), 1, "error: bad value"),
        (FileNotFoundError("no model"), 1, "error: no model"),
        (FloatingPointError("diverged"), 1, "error: diverged"),
        (KeyboardInterrupt(), 130, "interrupted; finished runs are kept, and the same command goes on from there"),
    ],
)
def test_user_errors_become_one_line_and_a_status(
    raised: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def main() -> None:
        raise raised

    with pytest.raises(SystemExit) as caught:
        cli.run_script(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == line + "\n"


def test_bugs_keep_their_traceback_and_so_do_user_errors_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def fails(error: Exception) -> Any:
        def main() -> None:
            raise error

        return main

    with pytest.raises(RuntimeError):
        cli.run_script(fails(RuntimeError("a bug")))
    monkeypatch.setenv(cli.SHOW_TRACEBACK, "1")
    with pytest.raises(ValueError):
        cli.run_script(fails(ValueError("bad value")))


@pytest.mark.parametrize("cached", [True, False])
def test_report_shows_numbers_and_samples_of_a_model_just_trained(
    cached: bool,
) -> None:
    report = {"accuracy": 0.75, "test_texts": {"a": 1}, "samples": ["The film | was."], "folder": "f", "cached": cached}
    first, *samples = report_lines("reward", report)
    assert first.startswith("reward model")
    assert "accuracy 0.75" in first
    assert samples == ([] if cached else ["  'The film | was.'"])


def run_in_process(script: str, *overrides: str, capsys: pytest.CaptureFixture[str]) -> Outcome:
    """Run an experiment script as `python experiments/<script>.py <overrides>` would, without a new process."""
    file = REPOSITORY / "experiments" / f"{script}.py"
    at_exit: list[Callable[[], None]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYDRA_FULL_ERROR", "0")
        patch.setattr(sys, "argv", [str(file), *overrides])
        patch.setattr(cli, "atexit", SimpleNamespace(register=at_exit.append))
        status: Any = 0
        try:
            runpy.run_path(str(file), run_name="__main__")
        except SystemExit as ended:
            status = ended.code
        finally:
            for function in reversed(at_exit):
                function()
    captured = capsys.readouterr()
    return Outcome(status, captured.out, captured.err)


def run_process(*overrides: str) -> Outcome:
    command = [sys.executable, str(REPOSITORY / "experiments" / "train.py"), *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=REPOSITORY, env=environment)
    return Outcome(done.returncode, done.stdout, done.stderr)


def assert_one_line_error(outcome: Outcome) -> str:
    """Exactly one line starts with "error:", and there is no traceback; that line."""
    errors = [line for line in (outcome.out + outcome.err).splitlines() if line.startswith("error:")]
    assert outcome.status not in (0, None)
    assert len(errors) == 1
    assert "Traceback" not in outcome.out + outcome.err
    return errors[0]


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


BAD_INPUT = {
    "ppo.betta=1": "ppo.betta: no such setting",
    "task=nope": "task/nope",
    "ppo.minibatch_size=7": "ppo.batch_size=8 is not divisible by ppo.minibatch_size=7; set minibatch_size to one of 1, 2, 4, 8",
    "task.source=nowhere": "task.source=nowhere; allowed for task=imdb: hub, package, folder",
    "model_seed=99": "model_seed=99 is not in",
    "seed=1.5": "seed=1.5; allowed: a whole number",
    "+bogus=1": "bogus: no such setting; allowed: seed, ",
}
"""What is typed, and what the one line must say."""


@pytest.mark.parametrize(
    ("override", "says"),
    BAD_INPUT.items(),
)
def test_bad_input_is_one_line_and_leaves_nothing(
    override: str, says: str, smoke: SmokeScale, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = (f"paths.runs={tmp_path / 'runs'}", f"paths.cache={smoke.cache}")
    options = ("scale=smoke", "device=cpu", "tracker=jsonl", "ppo.updates=1")
    outcome = run_in_process("train", *options, *paths, override, capsys=capsys)
    assert says in assert_one_line_error(outcome)
    assert files_below(tmp_path / "runs") == []


def test_missing_models_name_the_cache_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    paths = (f"paths.runs={tmp_path / 'runs'}", f"paths.cache={cache}")
    line = assert_one_line_error(run_in_process("train", "scale=smoke", *paths, capsys=capsys))
    assert f"is not in {cache}; make it with `python experiments/models.py model=policy`" in line
    assert not (tmp_path / "runs").exists()
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("model", [[], ["model=policy"], ["model=reward"]])
def test_models_by_name_are_not_trained_here(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run_in_process("models", "scale=paper", *model, f"paths.cache={tmp_path / 'cache'}", capsys=capsys)
    assert outcome.status in (0, None)
    assert "task=imdb at scale=paper (models.source=hub)" in outcome.out
    assert outcome.out.endswith("there is nothing to train here\n")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("override", "estimator"),
    [
        ("estimator.permutations=3", "permutation"),
        ("estimator.max_coalitions=3", "owen"),
        ("estimator.max_evals=0", "shap"),
    ],
)
def test_error_names_the_key_that_was_typed(
    override: str, estimator: str, smoke: SmokeScale, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = (f"paths.runs={tmp_path / 'runs'}", f"paths.cache={smoke.cache}")
    options = ("scale=smoke", "device=cpu", "shaping=scar", f"estimator={estimator}", "tracker=jsonl")
    line = assert_one_line_error(run_in_process("train", *options, *paths, override, capsys=capsys))
    assert f"{override}; allowed: " in line
    assert files_below(tmp_path / "runs") == []


@pytest.mark.slow
def test_a_response_over_the_budget_of_shap_is_one_line_and_leaves_nothing(
    smoke: SmokeScale, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = (f"paths.runs={tmp_path / 'runs'}", f"paths.cache={smoke.cache}")
    options = ("scale=smoke", "device=cpu", "shaping=scar", "tracker=jsonl", "ppo.updates=1")
    budget = ("estimator=shap", "estimator.max_evals=20")
    line = assert_one_line_error(run_in_process("train", *options, *paths, *budget, capsys=capsys))
    assert "estimator.max_evals=20 would cut it off; raise it or use estimator=owen" in line
    assert files_below(tmp_path / "runs") == []


@pytest.mark.slow
def test_a_failed_sweep_says_which_job_failed_and_runs_the_others(
    smoke: SmokeScale, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = (f"paths.runs={tmp_path / 'runs'}", f"paths.cache={smoke.cache}")
    options = ("scale=smoke", "device=cpu", "shaping=sparse", "tracker=jsonl", "ppo.updates=1")
    outcome = run_in_process("train", "--multirun", *options, *paths, "ppo.minibatch_size=7,8", capsys=capsys)
    assert "ppo.minibatch_size=7; set minibatch_size to one of" in assert_one_line_error(outcome)
    assert "Error executing job with overrides" in outcome.err
    kept = files_below(tmp_path / "runs")  # nothing of the sweep's own either
    assert [Path(name).name for name in kept] == ["evaluation.json", "manifest.json", "metrics.jsonl", "samples.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize("override", ["ppo.betta=1", "task=nope"])
def test_real_process_ends_with_status_1_and_one_line(override: str, tmp_path: Path) -> None:
    outcome = run_process("scale=smoke", f"paths.runs={tmp_path / 'runs'}", override)
    assert outcome.status == 1
    assert assert_one_line_error(outcome) == outcome.err.strip()
    assert outcome.out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_real_sweep_ends_with_status_1_and_tidies_up(smoke: SmokeScale, tmp_path: Path) -> None:
    paths = (f"paths.runs={tmp_path / 'runs'}", f"paths.cache={smoke.cache}")
    options = ("scale=smoke", "device=cpu", "shaping=sparse", "tracker=jsonl", "ppo.updates=1")
    outcome = run_process("--multirun", *options, *paths, "ppo.minibatch_size=7,8")
    assert outcome.status == 1
    assert_one_line_error(outcome)
    kept = files_below(tmp_path / "runs")
    assert [Path(name).name for name in kept] == ["evaluation.json", "manifest.json", "metrics.jsonl", "samples.jsonl"]


def test_models_script_makes_all_that_runs_start_from_or_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"policy": {"folder": "p", "cached": False, "loss": 0.5}, "reward": {"folder": "r", "cached": True}}
    monkeypatch.setattr(models, "prepare_model", lambda cfg, kind, *, start_progress: made.get(kind))
    for module in (models, cli):
        monkeypatch.setattr(module, "HydraConfig", SimpleNamespace(get=lambda: SimpleNamespace(mode=None)))
    cfg = composed("task=tldr")
    models.make_model(cfg, None)
    assert capsys.readouterr().out == "policy model (trained, p): loss 0.5\nreward model (cached, r): \n"
    models.make_model(cfg, "reward")
    assert capsys.readouterr().out == "reward model (cached, r): \n"
    models.make_model(cfg, "base")
    assert capsys.readouterr().out.endswith("has no base model of its own: there is nothing to train here\n")
