"""What a run is called: names that no move of code or config changes, and old records that are known by them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from scar.commands.train import class_name, run_config, run_folder, run_identity, train_run
from scar.config import fingerprint
from scar.identity import run_settings
from scar.tracking.records import RunRecord, find_records
from tests.smoke_scale import composed

CPU = torch.device("cpu")
GOLDEN = {
    ("task=imdb", "shaping=sparse"): "56af0f6d33",
    ("task=imdb", "shaping=scar"): "4fbc675831",
    ("task=tldr", "shaping=scar"): "1622a1f383",
    ("task=tldr", "shaping=sparse", "seed=5"): "e6f8337cb5",
    ("task=hh", "shaping=abc"): "8b1be7eb97",
    ("task=imdb", "shaping=red"): "97d5c80c4d",
    ("task=imdb", "shaping=prefix"): "97d5c80c4d",
}
"""Table 1's runs at scale=local. A change here renames the runs on every user's disk: it must be meant, and the log must
say which name became which."""
OLD = Path(__file__).with_name("golden") / "manifest_of_version_1.json"
"""Of imdb, SCAR, seed 1 at scale=local, as commit 25edab6 wrote it (the models' reports are cut off)."""


def named(*overrides: str) -> str:
    return fingerprint(run_identity(composed("scale=local", *overrides), CPU))


def config_of(*overrides: str) -> dict[str, Any]:
    return run_config(composed("scale=local", *overrides), CPU)


@pytest.mark.parametrize("overrides", GOLDEN, ids=" ".join)
def test_runs_keep_their_names(overrides: tuple[str, ...]) -> None:
    assert named(*overrides) == GOLDEN[overrides]


def elsewhere(value: Any) -> Any:
    """A config whose classes have moved to another module."""
    if isinstance(value, Mapping):
        moved = {"_target_": f"another.place.{value['_target_'].rpartition('.')[2]}"} if "_target_" in value else {}
        return {key: elsewhere(item) for key, item in value.items()} | moved
    return value


@pytest.mark.parametrize("task", ["imdb", "tldr", "hh"])
def test_moving_a_class_renames_no_run(task: str) -> None:
    config = config_of(f"task={task}", "shaping=scar")
    needs = ("scorer", "estimator", "units")
    targets = [config[node]["_target_"] for node in ("segmentation", "parser", "estimator")]
    names = {target.rpartition(".")[2]: class_name(target) for target in targets}
    moved = run_settings(elsewhere(config), lambda target: names[target.rpartition(".")[2]], needs)
    assert moved == run_settings(config, class_name, needs)
    assert "_target_" not in json.dumps(run_settings(config, class_name, needs))


@pytest.mark.parametrize(
    "override",
    [
        "parser=chunk",  # tokens need none
        "task.sources.hub.path=somewhere/else",  # the data are a package's
        "task.alpha=0.3 shaping.alpha=0.8",  # where alpha comes from
        "models.reward.rows_a_batch=7",
        "coalitions.memory_mib=64",
        "memory.gradient_checkpointing=true",
        "tracker=jsonl",
        "engine=deepspeed",
        "paths.runs=elsewhere",
        # What runs did before there were such settings.
        "shaping.sparse_weight=null ppo.kl_scale=1.0 evaluation.temperature=null",
    ],
)
def test_what_a_run_does_not_use_has_no_say(override: str) -> None:
    assert named("shaping=scar", *override.split()) == named("shaping=scar")


@pytest.mark.parametrize(
    "override",
    [
        "seed=2",
        "model_seed=2",
        "threads=2",
        "shaping.alpha=0.3",
        "shaping.sparse_weight=0.2",
        "ppo.kl_scale=0.5",
        "shaping.method.fill=delete",
        "shaping.method.one_unit=none",
        "estimator.unbounded.permutations=4",
        "estimator=owen",
        "segmentation=span",
        "coalitions.dtype=bfloat16",
        "ppo.learning_rate=1e-5",
        "task.generation.temperature=0.8",
        "task.prompt.max_tokens=7",
        "task.min_characters=201",
        "task.sources.package.version=0.0.3",
        "task.scoring.missing_eos_score=-1.0",
        "models.policy.training.epochs=1",
        "evaluation.seed=1",
        "evaluation.temperature=0.01",
    ],
)
def test_what_decides_numbers_has_a_say(override: str) -> None:
    assert named("shaping=scar", override) != named("shaping=scar")


def test_how_many_test_prompts_the_hub_has_is_a_fact_and_no_setting() -> None:
    fewer = "task.sources.hub.test_prompts=600"
    assert named("task=hh", "task.source=hub", fewer) == named("task=hh", "task.source=hub")


def test_spans_of_the_first_rule_have_another_name() -> None:
    spans = run_identity(composed("scale=local", "task=tldr", "shaping=scar", "segmentation.max_units=12"), CPU)
    assert spans["units"].pop("rule") == "forward"
    assert spans["evaluation"].pop("temperature") == 0.01  # it came later than the spans of the first rule
    assert fingerprint(spans) == "7345213206"  # as commit 409241e named it


def test_parser_of_a_run_on_spans_has_a_say() -> None:
    spans = ("shaping=scar", "segmentation=span")
    assert named(*spans, "parser=chunk") != named(*spans, "parser=spacy")


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A finished run that bears its old name."""
    folder = tmp_path / "runs" / "local" / "imdb" / "scar" / "seed1-8ccb55ebee"
    folder.mkdir(parents=True)
    shutil.copy(OLD, folder / "manifest.json")
    return folder


def test_old_record_has_the_new_name_and_its_settings(old_run: Path) -> None:
    manifest = RunRecord(old_run).manifest
    assert manifest["fingerprint"] == GOLDEN["task=imdb", "shaping=scar"]
    assert manifest["estimator"] == {"name": "permutation", "permutations": 2}
    assert manifest["settings"]["ppo"]["learning_rate"] == 1e-4
    assert [record.path for record in find_records(old_run.parents[3], method="scar")] == [old_run]


def test_old_record_is_found_and_not_run_again(old_run: Path) -> None:
    paths = (f"paths.runs={old_run.parents[3]}", "scale=local", "device=cpu", "tracker=jsonl")
    assert train_run(composed(*paths, "shaping=scar")) == old_run
    cfg = composed(*paths, "shaping=scar", "seed=2")
    assert run_folder(cfg, run_identity(cfg, CPU)) != old_run


def test_old_record_of_other_code_is_one_line(old_run: Path) -> None:
    manifest = json.loads(OLD.read_text())
    manifest["config"]["estimator"]["_target_"] = "scar.attribution.GoneEstimator"
    (old_run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"schema version 1 and lacks what names a run .*GoneEstimator is no class of"):
        _ = RunRecord(old_run).manifest


@pytest.mark.parametrize("version", [1, 2])
def test_a_run_of_red_under_its_former_name_is_found_and_not_run_again(tmp_path: Path, version: int) -> None:
    written = json.loads(OLD.read_text(encoding="utf-8")) | {"method": "prefix"}
    config = written["config"]
    config["shaping"] |= {"name": "prefix", "needs": ["reward_model"]}
    del config["shaping"]["method"]["fill"], config["shaping"]["method"]["empty"]
    name = "seed1-0123456789"
    if version == 2:
        name = "seed1-97d5c80c4d"
        settings = run_settings(config_of("shaping=red"), class_name, ["reward_model"])
        assert settings["method"] == {"name": "prefix"}  # so that fingerprints stay
        written |= {"schema_version": 2, "settings": settings, "fingerprint": fingerprint(settings)}
    folder = tmp_path / "runs" / "local" / "imdb" / "prefix" / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(written), encoding="utf-8")
    record = RunRecord(folder)
    assert (record.manifest["method"], record.manifest["fingerprint"]) == ("red", "97d5c80c4d")
    assert [found.path for found in find_records(tmp_path, method="red")] == [folder]
    for method in ("red", "prefix"):
        cfg = composed(f"paths.runs={tmp_path}/runs", "scale=local", "device=cpu", "tracker=jsonl", f"shaping={method}")
        assert train_run(cfg) == folder
        cfg.seed = 2
        assert run_folder(cfg, run_identity(cfg, CPU)).parent == tmp_path / "runs" / "local" / "imdb" / "red"
