"""The gold reward model from config to scores: trained beside the others at scale=smoke, or named; and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from scar.commands import build
from scar.commands.judge import gold_reward_model
from scar.commands.models import prepare_model
from scar.commands.train import run_folder, run_identity
from scar.supervised.preference import AnswerModels
from scar.tasks.hh import REWARD_PROMPT
from scar.tasks.imdb import hash_split
from scar.tasks.sources import PackageSource
from tests.smoke_scale import composed, silent_progress

CPU = torch.device("cpu")

LOGGED = {
    "imdb": {"policy": "96e1ee8e20", "reward": "2f6ff23433", "run": "4fbc675831"},
    "tldr": {"base": "c399483a66", "policy": "f13dea15b6", "reward": "67e75f9795", "run": "1622a1f383"},
    "hh": {"base": "ea8ac6e0b1", "policy": "76d617fe5e", "reward": "c010ad8721", "run": "5d083b7fe0"},
}
"""Local models of model seed 1 and Table 1's first run of scar (docs/results_log.md)."""


def names(task: str, *overrides: str) -> dict[str, str]:
    """Fingerprints of the training models and of the run of a config."""
    cfg = composed(f"task={task}", *overrides)
    models = build.local_models(cfg, build.build_task(cfg), CPU)
    run = run_folder(cfg, run_identity(cfg, CPU)).name.removeprefix("seed1-")
    return {kind: models.fingerprint(kind) for kind in models.KINDS} | {"run": run}


@pytest.mark.parametrize("task", LOGGED)
def test_models_and_runs_of_the_results_log_keep_their_names(task: str) -> None:
    """A name that changes means that logged results must be made and logged again."""
    assert names(task) == LOGGED[task]


@pytest.mark.parametrize("task", LOGGED)
def test_settings_of_the_gold_model_name_no_other_model_and_no_run(task: str) -> None:
    override = "models.gold.reward.training.epochs=77"
    assert names(task, override) == LOGGED[task]
    usual, changed = (composed(f"task={task}", *more) for more in ((), (override,)))
    gold = [build.local_models(cfg, build.build_task(cfg), CPU, gold=True) for cfg in (usual, changed)]
    assert gold[0].fingerprint("reward") != gold[1].fingerprint("reward")
    assert gold[1].settings["reward"]["training"]["epochs"] == 77


@pytest.mark.parametrize("task", LOGGED)
def test_the_gold_model_is_the_larger_one_and_takes_over_what_it_does_not_set(task: str) -> None:
    cfg = composed(f"task={task}")
    gold = build.local_models(cfg, build.build_task(cfg), CPU, gold=True)
    of = "reward" if task == "imdb" else "base"
    larger, usual = gold.settings[of]["architecture"], cfg.models[of].architecture
    assert larger["width"] * larger["layers"] > usual.width * usual.layers
    assert larger["dropout"] == usual.dropout
    assert gold.settings["tokenizer"] == OmegaConf.to_container(cfg.models.tokenizer)
    assert not {"gold", "source", "recipe"} & set(gold.settings)


# Trained at scale=smoke.


@pytest.fixture(params=["imdb", "tldr"])
def cfg(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A config whose data are a fortieth of the package."""
    load = PackageSource.load
    monkeypatch.setattr(PackageSource, "load", lambda source: load(source).iloc[::40])
    return composed(
        "scale=smoke", f"task={request.param}", "device=cpu", f"paths.cache={tmp_path}", "models.examples=80"
    )


@pytest.mark.slow
def test_from_config_to_scores(cfg: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"gold reward model of task=.* model=gold"):
        gold_reward_model(cfg)
    made = prepare_model(cfg, "gold", start_progress=silent_progress)
    assert made is not None
    assert made["cached"] is False
    assert {name.name.rpartition("-")[0] for name in Path(cfg.paths.cache).iterdir()} == {
        f"{cfg.task.name}-gold-{kind}" for kind in (("base",) if "base" in cfg.models else ()) + ("tokenizer", "reward")
    }  # and none of the models that it judges
    model, tokenizer, described = gold_reward_model(cfg)
    report = described["report"]
    assert report.items() <= made.items()
    assert made["folder"].endswith(described["fingerprint"])
    assert (report["trained_on"], report["reported_on"]) == ("validation and test rows", "train rows")
    accuracies = [value for key, value in report.items() if key.startswith("accuracy") and isinstance(value, float)]
    assert accuracies
    assert all(0 < value < 1 for value in accuracies)
    assert model.model.config.n_embd == 48  # conf/scale/smoke/<task>.yaml; the model that trains has 32
    ids = torch.tensor([tokenizer("A good film.")["input_ids"]])
    assert model.score(ids, torch.ones_like(ids, dtype=torch.bool)).shape == (1,)
    assert prepare_model(cfg, "gold", start_progress=silent_progress)["cached"] is True  # type: ignore[index]


class Pairs:
    """An answers source with ranked pairs only."""

    def pairs(self) -> pd.DataFrame:
        turns = [f"Request {n}?" for n in range(60)]
        rows = {"turn": turns, "chosen": "Yes, of course.", "rejected": "No, never.", "split": map(hash_split, turns)}
        return pd.DataFrame(rows)


@pytest.mark.parametrize("gold", [False, True])
def test_ranked_pairs_of_the_report_are_those_that_training_did_not_see(
    gold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(
        "scar.supervised.preference.encode", lambda tokenizer, texts: seen.extend(texts) or [[1]] * len(texts)
    )
    found = {"ranked_accuracy": 1.0, "ranked_accuracy_interval": (0.0, 1.0)}
    monkeypatch.setattr("scar.supervised.preference.compare", lambda *arguments, **options: found)
    cfg = composed("task=hh")
    models = build.local_models(cfg, build.build_task(cfg), CPU, gold=gold)
    models.task.__dict__["source"] = Pairs()
    assert isinstance(models, AnswerModels)
    models.after_training(None, SimpleNamespace(pad_token_id=0))
    turns = [f"Request {n}?" for n in range(60)]
    wanted = [REWARD_PROMPT.format(turn) for turn in turns if (hash_split(turn) == "train") is gold]
    assert seen[: len(wanted)] == wanted
    assert len(seen) == 3 * len(wanted)


# Named.


def test_without_a_local_scale_the_gold_model_is_named_and_is_not_the_one_trained_against() -> None:
    says = "models.gold.name={}; allowed: a reward model on the hub, or its folder, that no policy was trained against"
    for name in ("null", "XanderJC/gpt2-rm-imdb"):
        with pytest.raises(ValueError) as caught:
            gold_reward_model(composed("scale=paper", f"models.gold.name={name}", "device=cpu"))
        assert str(caught.value).startswith(says.format("None" if name == "null" else name))
        assert "\n" not in str(caught.value)
