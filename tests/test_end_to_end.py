"""Whole runs at scale=smoke: complete records, exact repetition, and no trace of what did not finish."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from scar.commands import build
from scar.ppo.rollout import Sampler
from scar.ppo.trainer import Trainer
from scar.ppo.updater import PPOUpdater
from scar.report.selection import select_cells
from scar.report.tables import table1_markdown
from scar.seeding import stream_seed
from scar.tracking.checkpoint import find_checkpoint
from scar.tracking.records import RunRecord, find_records, unfinished_runs
from scar.tracking.trackers import JsonlTracker
from scar.tracking.wandb_runs import RECORD_FILE, record_contents
from tests.smoke_scale import REPOSITORY, Runs, SmokeScale
from tests.tracking.wandb_record import typed

TWO_UPDATES = "ppo.updates=2"
METHODS = {
    "sparse": ("shaping=sparse",),
    "uniform": ("shaping=uniform",),
    "abc": ("shaping=abc",),
    "red": ("shaping=red",),
    "scar-permutation": ("shaping=scar", "estimator=permutation"),
    "scar-owen": ("shaping=scar", "estimator=owen"),
}
QUICK = ("sparse", "scar-permutation")
each_method = pytest.mark.parametrize(
    "method", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
CLOCK = re.compile(r"time/.*|.*hours|device_seconds|memory/.*")
"""Keys that no seed decides."""
COSTS = re.compile(r"scar/.*|credit/.*")


@pytest.fixture(scope="module")
def records(smoke: SmokeScale) -> Runs:
    """A finished run of two updates of each method that is asked for."""
    return Runs(lambda name: smoke.run(TWO_UPDATES, *METHODS[name]))


def decided(record: RunRecord, *, without: re.Pattern[str] = CLOCK) -> list[dict[str, Any]]:
    """The rows without the keys that time decides."""
    return [
        {key: value for key, value in row.items() if not CLOCK.fullmatch(key) and not without.fullmatch(key)}
        for row in record.metrics
    ]


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_method_of_ones_own_takes_a_class_and_a_yaml(smoke: SmokeScale, records: Runs, tmp_path: Path) -> None:
    """It runs, and stands beside the others in Table 1; a line in scar/report/style.py would give it a name and a colour."""
    yaml = tmp_path / "shaping" / "first.yaml"
    yaml.parent.mkdir()
    yaml.write_text("name: first\nalpha: 0.5\nmethod:\n  _target_: tests.own_method.FirstMethod\n")
    record = smoke.run(TWO_UPDATES, "shaping=first", f"hydra.searchpath=[file://{tmp_path}]")
    assert (record.manifest["method"], record.manifest["alpha"]) == ("first", 0.5)
    table = table1_markdown(select_cells([record, records["sparse"]], methods=["sparse", "first"]))
    assert "First (not in the paper)" in table


def test_variants_pay_and_price_as_they_say(smoke: SmokeScale, records: Runs) -> None:
    """Of docs/released.md: sparse rewards paid twice, and at half the price of KL."""
    twice = smoke.run(TWO_UPDATES, "variant=sparse_twice")
    first = twice.metrics[0]
    paid = 2 * first["reward/score_mean"] + first["objective/non_score"]
    assert first["reward/shaped_sum_mean"] == pytest.approx(paid, abs=1e-5)
    half = smoke.run(TWO_UPDATES, "variant=sparse_half_kl")
    assert half.metrics[0]["kl/coef"] == records["sparse"].metrics[0]["kl/coef"] / 2
    assert half.manifest["config"]["ppo"]["kl_target"] == records["sparse"].manifest["config"]["ppo"]["kl_target"]
    names = {record.manifest["fingerprint"] for record in (twice, half, records["sparse"])}
    assert len(names) == 3
    assert [record.manifest["method"] for record in (twice, half)] == ["sparse", "sparse"]


@each_method
class TestEveryMethod:
    def test_record_is_complete(self, records: Runs, method: str) -> None:
        record, name = records[method], method.split("-")[0]
        assert sorted(path.name for path in record.path.iterdir()) == [
            "evaluation.json",
            "manifest.json",
            "metrics.jsonl",
            "samples.jsonl",
        ]
        manifest = record.manifest
        assert (manifest["status"], manifest["scale"], manifest["task"]) == ("finished", "smoke", "imdb")
        assert (manifest["method"], manifest["seed"], manifest["model_seed"]) == (name, 1, 1)
        assert manifest["device"]["kind"] == "cpu"
        assert manifest["settings"]["ppo"]["updates"] == 2
        assert manifest["fingerprint"] in record.path.name
        for key in ("segmentation", "estimator", "coalitions"):
            assert (manifest[key] is not None) == (name == "scar")
        assert set(manifest["models"]) == {"policy", "reward"}
        assert manifest["started"] <= manifest["finished"]
        assert manifest["timing"]["device_seconds"] > 0
        assert not {"paths", "tracker", "force"} & set(manifest["config"])

    def test_rows_count_updates_episodes_and_optimizer_steps(self, records: Runs, method: str) -> None:
        rows = records[method].metrics
        assert [row["update"] for row in rows] == [1, 2]
        assert [row["episodes"] for row in rows] == [8, 16]
        assert [row["optimizer_steps"] for row in rows] == [4, 8]  # four PPO epochs of one minibatch
        assert rows[0]["device_seconds"] < rows[1]["device_seconds"]

    def test_every_metric_is_a_finite_number(self, records: Runs, method: str) -> None:
        for row in records[method].metrics:
            assert [key for key, value in row.items() if not math.isfinite(value)] == []

    def test_shaped_rewards_sum_to_score_and_kl(self, records: Runs, method: str) -> None:
        """Eq. 7: whatever the method and alpha, total = score - beta KL."""
        for row in records[method].metrics:
            expected = row["reward/score_mean"] + row["objective/non_score"]
            assert row["reward/shaped_sum_mean"] == pytest.approx(expected, abs=1e-5)
            assert row["objective/non_score"] == pytest.approx(-row["kl/coef"] * row["kl/seq_sum_mean"], abs=1e-6)

    def test_evaluation_describes_the_policy_before_and_after(self, records: Runs, method: str) -> None:
        record = records[method]
        initial, final = record.evaluation["initial"], record.evaluation["final"]
        assert initial["kl_mean"] == pytest.approx(0, abs=1e-5)
        assert final["kl_mean"] != 0
        assert initial["prompts"] == final["prompts"] == len(record.samples) == 32
        rewards = [sample["reward"] for sample in record.samples]
        assert final["reward_mean"] == pytest.approx(sum(rewards) / 32, abs=1e-6)
        assert record.evaluation["protocol"]["split"] == "test"
        assert all(sample["prompt"] and sample["response"] for sample in record.samples)


@pytest.mark.parametrize("method", ["scar-permutation"])
def test_record_says_how_coalitions_were_scored(records: Runs, method: str) -> None:
    report = records[method].manifest["coalitions"]
    assert (report["backend"], report["dtype"], report["memory_mib"]) == ("fused", "float32", 512)
    assert 0 <= report["largest_difference"] < 1e-4


@pytest.mark.slow
def test_all_methods_start_from_the_same_policy_and_the_same_first_batch(records: Runs) -> None:
    for name in METHODS:
        assert records[name].manifest["status"] == "finished"
    initial = [record.evaluation["initial"] for record in records.values()]
    assert all(summary == initial[0] for summary in initial)
    first = [record.metrics[0] for record in records.values()]
    for key in ("reward/raw_mean", "reward/raw_std", "len/mean", "eos_frac"):
        assert len({row[key] for row in first}) == 1
    assert len({record.metrics[1]["reward/raw_mean"] for record in records.values()}) > 1  # then they part


def documented_keys() -> list[str]:
    """Keys in backticks in the first column of the tables of docs/metrics.md."""
    file = REPOSITORY / "docs" / "metrics.md"
    if not file.exists():
        pytest.skip("docs/metrics.md is not written yet")
    cells = [line.split("|")[1] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return [key for cell in cells for key in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.slow
def test_logged_and_documented_metrics_are_the_same(records: Runs) -> None:
    documented, records = documented_keys(), {name: records[name] for name in METHODS}
    logged = {key for record in records.values() for row in record.metrics for key in row}
    judged = set(records["sparse"].evaluation["final"])
    assert logged - set(documented) == set()
    assert judged - set(documented) == set()
    of_spans = {"scar/words_per_unit_mean", "scar/units_over_cap_frac"}  # tests/segmentation/test_span_segmenters.py
    assert set(documented) - logged - judged == {"gpu_hours", *of_spans}  # a CPU


def test_same_seed_gives_the_same_rows_and_another_seed_does_not(
    smoke: SmokeScale, records: Runs, tmp_path: Path
) -> None:
    again = smoke.run(TWO_UPDATES, *METHODS["scar-permutation"], runs=tmp_path)
    assert decided(again) == decided(records["scar-permutation"])
    assert again.samples == records["scar-permutation"].samples
    other = smoke.run(TWO_UPDATES, *METHODS["scar-permutation"], "seed=2", runs=tmp_path)
    for row, other_row in zip(decided(again), decided(other), strict=True):
        assert row["reward/raw_mean"] != other_row["reward/raw_mean"]
        assert row["ppo/value_loss"] != other_row["ppo/value_loss"]
    assert other.evaluation["initial"] == again.evaluation["initial"]  # the evaluation has a seed of its own


@pytest.mark.slow
def test_alpha_zero_of_scar_gives_the_numbers_of_sparse(smoke: SmokeScale, records: Runs, tmp_path: Path) -> None:
    record = smoke.run(TWO_UPDATES, *METHODS["scar-permutation"], "shaping.alpha=0", runs=tmp_path)
    assert decided(record, without=COSTS) == decided(records["sparse"], without=COSTS)
    assert record.samples == records["sparse"].samples


def test_every_update_samples_and_shuffles_by_streams_of_its_own(
    smoke: SmokeScale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def note(owner: type, name: str) -> None:
        method = getattr(owner, name)

        def spy(self: Any, *arguments: Any, generator: torch.Generator) -> Any:
            drawn.append(generator.initial_seed())
            return method(self, *arguments, generator=generator)

        monkeypatch.setattr(owner, name, spy)

    note(Sampler, "sample")
    note(PPOUpdater, "update")
    smoke.run(TWO_UPDATES, *METHODS["sparse"], runs=tmp_path)
    wanted = [(purpose, update) for update in (1, 2) for purpose in ("sampling", "minibatches")]
    names = {stream_seed(1, *name): name for name in wanted}
    assert [names[seed] for seed in drawn if seed in names] == wanted


def count_trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Its length grows with each training."""
    trained: list[int] = []
    train = Trainer.train

    def spy(self: Trainer, *arguments: Any, **options: Any) -> None:
        trained.append(self.seed)
        train(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "train", spy)
    return trained


def test_finished_run_is_skipped_and_force_runs_it_again(
    smoke: SmokeScale, records: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = records["sparse"]  # trained now, if no test before did
    trained = count_trainings(monkeypatch)
    stamp = (before.path / "manifest.json").stat().st_mtime_ns
    assert smoke.run(TWO_UPDATES, *METHODS["sparse"]).path == before.path
    assert trained == []
    assert (before.path / "manifest.json").stat().st_mtime_ns == stamp
    again = smoke.run(TWO_UPDATES, *METHODS["sparse"], "force=true")
    assert trained == [1]
    assert again.path == before.path
    assert (again.path / "manifest.json").stat().st_mtime_ns > stamp
    assert decided(again) == decided(before)


def test_what_changes_no_number_changes_no_name(
    smoke: SmokeScale, records: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = records["sparse"]
    trained = count_trainings(monkeypatch)
    unread = ("estimator=owen", "coalitions.backend=plain", "task.alpha=0.3")
    same = smoke.run(TWO_UPDATES, *METHODS["sparse"], *unread, "tracker=wandb")
    assert same.path == before.path
    assert trained == []


def fail_at(monkeypatch: pytest.MonkeyPatch, update: int, error: BaseException) -> None:
    """Make the run fail in `update`, after the rows before it were written."""
    run_update = Trainer.run_update

    def broken(self: Trainer, number: int) -> dict[str, Any]:
        if number == update:
            raise error
        return run_update(self, number)

    monkeypatch.setattr(Trainer, "run_update", broken)


@pytest.mark.parametrize(
    "error", [RuntimeError("out of memory"), pytest.param(KeyboardInterrupt(), marks=pytest.mark.slow)]
)
def test_run_that_fails_in_the_middle_leaves_nothing_and_can_be_run_again(
    smoke: SmokeScale, tmp_path: Path, error: BaseException
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, 2, error)
        with pytest.raises(type(error)):
            smoke.run(TWO_UPDATES, *METHODS["sparse"], runs=tmp_path)
    assert files_below(tmp_path) == []
    assert find_records(tmp_path) == []
    assert len(smoke.run(TWO_UPDATES, *METHODS["sparse"], runs=tmp_path).metrics) == 2


@pytest.mark.slow
def test_diverged_run_says_so_and_leaves_nothing(smoke: SmokeScale, tmp_path: Path) -> None:
    with pytest.raises(
        FloatingPointError, match=r"not finite in update 1: training has diverged; lower ppo\.learning_rate"
    ):
        smoke.run(TWO_UPDATES, *METHODS["sparse"], "ppo.learning_rate=1e30", runs=tmp_path)
    assert files_below(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("error", [RuntimeError("W&B is gone"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_tracker_that_cannot_close_undoes_no_finished_run(
    smoke: SmokeScale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    checkpoints: list[int] = []

    def broken(self: JsonlTracker, status: str) -> None:
        (partial,) = unfinished_runs(tmp_path)
        checkpoints.append(find_checkpoint(partial).update)  # who is killed here goes on from the last update
        raise error

    monkeypatch.setattr(JsonlTracker, "finish", broken)
    with pytest.raises((ConnectionError, KeyboardInterrupt)) as raised:
        smoke.run("ppo.updates=1", *METHODS["sparse"], runs=tmp_path)
    (record,) = find_records(tmp_path)
    if isinstance(error, RuntimeError):
        assert str(raised.value) == f"W&B is gone; the run is finished and its record is kept: {record.path}"
    assert unfinished_runs(tmp_path) == []
    assert not (record.path / "checkpoints").exists()
    assert checkpoints == [1]
    trained = count_trainings(monkeypatch)
    smoke.run("ppo.updates=1", *METHODS["sparse"], runs=tmp_path)
    assert trained == []


@pytest.mark.slow
def test_wandb_files_lie_in_the_finished_run_folder_and_hold_its_record(smoke: SmokeScale, tmp_path: Path) -> None:
    record = smoke.run("ppo.updates=1", *METHODS["sparse"], "tracker=wandb", runs=tmp_path / "runs")
    assert len(list(record.path.glob("wandb/offline-run-*/*.wandb"))) == 1
    assert decided(record) == decided(smoke.run("ppo.updates=1", *METHODS["sparse"], runs=tmp_path / "other"))
    assert [found.path for found in find_records(record.path)] == [record.path]
    (file,) = record.path.glob(f"wandb/offline-run-*/files/{RECORD_FILE}")
    assert typed(json.loads(file.read_text(encoding="utf-8"))) == typed(record_contents(record))


def test_models_are_trained_once(smoke: SmokeScale, monkeypatch: pytest.MonkeyPatch) -> None:
    from scar.commands.models import prepare_model
    from scar.supervised import sentiment, store

    def trained_again(*arguments: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(store, "train_language_model", trained_again)
    monkeypatch.setattr(sentiment, "train_reward_model", trained_again)
    for kind in ("policy", "reward"):
        report = prepare_model(smoke.config(), kind, start_progress=lambda title: lambda *progress: None)
        assert report["folder"] == smoke.reports[kind]["folder"]
        assert report["cached"] is True


def test_models_are_named_by_their_settings(smoke: SmokeScale) -> None:
    def fingerprints(*overrides: str) -> tuple[str, ...]:
        cfg = smoke.config(*overrides)
        models = build.local_models(cfg, build.build_task(cfg), build.resolve_device("cpu"))
        return tuple(models.fingerprint(kind) for kind in ("tokenizer", "policy", "reward"))

    usual = fingerprints()
    changed = {
        "seed=2": (),
        "ppo.updates=9": (),
        "model_seed=2": (1, 2),
        "models.policy.training.epochs=3": (1,),
        "models.reward.architecture.width=8": (2,),
        "models.tokenizer.vocab_size=600": (0, 1, 2),
    }
    for override, kinds in changed.items():
        other = fingerprints(override)
        assert [kind for kind in range(3) if other[kind] != usual[kind]] == list(kinds), override


def test_reports_of_the_models_say_how_good_they_are(smoke: SmokeScale) -> None:
    policy = json.loads((Path(smoke.reports["policy"]["folder"]) / "report.json").read_text())
    assert policy["train_texts"] == 600
    assert 1 < policy["validation_perplexity"] < 512  # better than guessing among 512 tokens
    reward = smoke.reports["reward"]
    assert {"accuracy_review_63_tokens", "accuracy_review_prefix_16_32_tokens", "accuracy_rotten_tomatoes"} <= set(
        reward
    )
    assert all(0.3 < reward[key] < 1 for key in reward if key.startswith("accuracy"))
