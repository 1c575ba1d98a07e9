"""Names and rows of local models: training models keep theirs, a gold model learns from what the others never see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from scar.config import fingerprint
from scar.models.cache import ModelCache
from scar.seeding import stream_seed
from scar.supervised.preference import AnswerModels, SummaryModels
from scar.supervised.sentiment import SentimentModels
from scar.supervised.store import LocalModels
from scar.tasks.imdb import hash_split

SPLITS = ("train", "validation", "test")
SETTINGS = {
    "examples": None,
    "tokenizer": {"vocab_size": 300, "head_characters": 600},
    "lengths": {"prompt_tokens": 8, "response_tokens": 4},
    "base": {"training": 1},
    "policy": {"training": 2},
    "reward": {"training": 3, "rows_a_batch": 4},
}
ROWS = pd.DataFrame({"turn": [f"Request {n}?" for n in range(400)]})
ROWS = ROWS.assign(answer="Answer to " + ROWS["turn"], split=ROWS["turn"].map(hash_split))


class Texts:
    """A task and its source at once, in the schemas of imdb, tldr and hh."""

    name = "tiny"

    @property
    def source(self) -> Texts:
        return self

    def identity(self) -> dict[str, Any]:
        return {"package": "tiny"}

    def examples(self, split: str, *, origin: str | None = None) -> pd.DataFrame:
        rows = ROWS[ROWS["split"] == split]
        return pd.DataFrame({"text": rows["turn"], "label": 1, "origin": origin})

    def closings(self) -> pd.DataFrame:
        names = {"subreddit": "s", "title": "t", "label": 1, "authored": True}
        return ROWS.rename(columns={"turn": "post", "answer": "summary"}).assign(**names)

    def answers(self) -> tuple[pd.DataFrame, dict[str, int]]:
        return ROWS, {}


def models(kind: type[LocalModels] = SentimentModels, *, gold: bool = False, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "settings": SETTINGS,
        "task": Texts(),
        "cache": ModelCache(Path("nowhere")),
        "model_seed": 7,
        "device": torch.device("cpu"),
    }
    return kind(**(fields | changes), gold=gold)


def texts(model: Any, split: str) -> list[str]:
    """What tells the rows of a split apart: review, post or request."""
    if isinstance(model, SentimentModels):
        return model._heads(split, origin=None)["text"].tolist()
    return [prompt.body for prompt in model.rows(split)["prompt"]]


def of_split(split: str) -> set[str]:
    return set(ROWS["turn"][ROWS["split"] == split])


RECIPES = (SentimentModels, SummaryModels, AnswerModels)


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_models_have_the_splits_as_they_are(recipe: type[LocalModels]) -> None:
    for split in SPLITS:
        assert set(texts(models(recipe), split)) == of_split(split)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_gold_model_learns_from_the_rows_that_no_other_model_learns_from(recipe: type[LocalModels]) -> None:
    gold = texts(models(recipe, gold=True), "train")
    assert set(gold) == of_split("validation") | of_split("test")
    assert not set(gold) & set(texts(models(recipe), "train"))
    assert len(gold) == len(set(gold))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_gold_model_is_reported_on_as_many_train_rows_always_the_same(recipe: type[LocalModels], split: str) -> None:
    gold = texts(models(recipe, gold=True), split)
    assert len(gold) == len(of_split(split))
    assert set(gold) <= of_split("train")
    assert gold == texts(models(recipe, gold=True, model_seed=8), split)


def test_identity_of_a_training_model_by_hand() -> None:
    wanted = {"recipe": 1, "kind": "reward", "task": "tiny", "data": {"package": "tiny"}}
    wanted |= {"tokenizer": SETTINGS["tokenizer"], "settings": {"training": 3}, "examples": None}
    wanted |= {"seed": 7, "device": "cpu"}
    assert models().identity("reward") == wanted
    assert models().fingerprint("reward") == fingerprint(wanted)


def test_a_gold_model_shares_no_name_no_seed_and_no_base_with_the_others() -> None:
    for kind in ("tokenizer", "base", "policy", "reward"):
        usual, gold = models(SummaryModels), models(SummaryModels, gold=True)
        assert gold.identity(kind)["role"] == "gold"
        assert gold.fingerprint(kind) != usual.fingerprint(kind)
    assert gold.seed == stream_seed(7, "gold")
    assert gold.identity("reward")["seed"] == gold.seed != replace(gold, model_seed=8).seed
    assert gold.identity("reward")["base"] == gold.fingerprint("base") != usual.fingerprint("base")


@pytest.mark.parametrize(
    ("kind", "gold", "command"),
    [
        ("policy", False, "python experiments/models.py model=policy"),
        ("reward", False, "python experiments/models.py model=reward"),
        ("reward", True, "python experiments/models.py model=gold"),
    ],
)
def test_a_missing_model_names_the_command_that_makes_it(kind: str, gold: bool, command: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        models(gold=gold).folder(kind)
    name = f"gold {kind}" if gold else kind
    says = f"the {name} model of task=tiny with model_seed=7 is not in nowhere; make it with `{command}` and the same overrides"
    assert str(caught.value).startswith(says)


def test_the_report_of_a_gold_model_says_which_rows_are_which(tmp_path: Path) -> None:
    part = SimpleNamespace(save_pretrained=lambda folder: None)
    for gold in (False, True):
        model = models(cache=ModelCache(tmp_path), gold=gold)
        model.save("reward", [part], {"accuracy": 0.5})
        rows = {"trained_on": "validation and test rows", "reported_on": "train rows"}
        assert model.report("reward") == {"accuracy": 0.5} | (rows if gold else {})
    assert sorted(path.name.rpartition("-")[0] for path in tmp_path.iterdir()) == ["tiny-gold-reward", "tiny-reward"]
