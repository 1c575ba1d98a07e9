"""tldr from data to record at scale=smoke: spans from the parser, a reward model from pairs, a value net of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scar.tasks.sources import PackageSource
from scar.tracking.records import RunRecord
from tests.smoke_scale import SmokeScale

pytestmark = pytest.mark.slow

# Nearly untrained models never end a response, and without EOS there is no credit: let them be scored all the same.
NO_RULE = "task.scoring.missing_eos_score=null"

Train = Callable[..., RunRecord]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains the three models once, on a tenth of the texts; then two updates with overrides."""
    load = PackageSource.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackageSource, "load", lambda source: load(source).iloc[::10])
        smoke = SmokeScale(tmp_path_factory.mktemp("tldr"), task="tldr", models=("base", "policy", "reward"))
    return lambda *overrides: smoke.run("ppo.updates=2", "evaluation.prompts=8", "evaluation.batch_size=8", *overrides)


@pytest.fixture(scope="module")
def sparse(train: Train) -> RunRecord:
    return train("shaping=sparse")


def test_scar_credits_spans_of_the_parser(train: Train) -> None:
    record = train("shaping=scar", NO_RULE)
    assert record.manifest["segmentation"] == "span"
    for row in record.metrics:
        assert row["scar/n_units_mean"] > 1
        assert row["scar/n_units_max"] <= 12
        assert row["scar/evals_mean"] <= 256
        assert row["scar/efficiency_err_max"] < 1e-4
        assert row["time/segment_s"] > 0


@pytest.mark.parametrize("method", ["sparse", "scar"])
def test_a_response_without_eos_scores_minus_one_whatever_the_method(train: Train, method: str) -> None:
    record = train(f"shaping={method}")
    for row in record.metrics:
        raw, final, finished = row["reward/raw_mean"], row["reward/score_mean"], row["eos_frac"]
        assert finished < 1  # else this test shows nothing
        if finished == 0:
            assert final == pytest.approx(-1.0)
        assert row["reward/shaped_sum_mean"] == pytest.approx(final + row["objective/non_score"], abs=1e-4)
        assert raw != pytest.approx(final)


def test_value_net_is_one_of_its_own_and_the_first_ratio_is_1(sparse: RunRecord) -> None:
    assert sparse.manifest["settings"]["ppo"]["value_net"] == "separate"
    assert sparse.metrics[0]["ppo/first_ratio_error"] < 1e-4


def test_reports_name_constructed_preferences(sparse: RunRecord) -> None:
    report = sparse.manifest["models"]["reward"]["report"]
    assert report["preferences"] == "constructed"
    assert set(report["accuracy_by_kind"]) <= {
        "other_same",
        "other_opposite",
        "sentence",
        "lead",
        "shuffled",
        "repeated",
        "chant",
        "cut",
    }
    low, high = report["accuracy_interval"]
    assert 0 < low < report["accuracy"] < high < 1


def test_kl_is_that_of_training_whatever_the_temperature_of_the_evaluation(sparse: RunRecord, train: Train) -> None:
    other = train("shaping=sparse", "evaluation.temperature=null")
    assert [record.evaluation["protocol"]["temperature"] for record in (sparse, other)] == [0.01, None]
    assert sparse.metrics[-1]["reward/raw_mean"] == other.metrics[-1]["reward/raw_mean"]
    for when in ("initial", "final"):
        cool, warm = sparse.evaluation[when], other.evaluation[when]
        assert cool["kl_mean"] == warm["kl_mean"]
        assert cool["reward_mean"] != warm["reward_mean"]
    assert {sample["prompt"] for sample in sparse.samples} == {sample["prompt"] for sample in other.samples}
    assert [sample["response"] for sample in sparse.samples] != [sample["response"] for sample in other.samples]
