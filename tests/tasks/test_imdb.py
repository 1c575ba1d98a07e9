"""The film-review task: cleaning, splits without leaks, prompts' texts, and the score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scar.interfaces import PromptText
from scar.tasks.imdb import ImdbTask, clean, hash_split
from scar.tasks.sources import HubSource
from tests.smoke_scale import composed
from tests.tasks.test_sources import configured_package, hub_folder

LONG = "long enough to cut a prompt from " * 7


@dataclass(frozen=True)
class GivenRows:
    """A source of rows (text, label, origin, official_split) written in the test."""

    rows: tuple[tuple[str, int, str, str | None], ...]

    def load(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=["text", "label", "origin", "official_split"])

    def identity(self) -> dict[str, Any]:
        return {"rows": len(self.rows)}


def task_of(*rows: tuple[str, int, str, str | None], min_characters: int = 200) -> ImdbTask:
    return ImdbTask(source=GivenRows(rows), min_characters=min_characters)


@pytest.fixture(scope="module")
def package_task() -> ImdbTask:
    return ImdbTask(source=configured_package(), min_characters=200)


@pytest.fixture(scope="module")
def official_task(official_imdb: Path, tmp_path_factory: pytest.TempPathFactory) -> ImdbTask:
    """The official files under the names that the hub source looks for."""
    import datasets

    folder = tmp_path_factory.mktemp("official")
    for split in ("train", "test"):
        (folder / f"{split}.parquet").symlink_to(official_imdb / f"imdb_{split}_25000.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        task = ImdbTask(source=HubSource(str(folder)), min_characters=200)
        assert len(task.frame)
    return task


def splits_of_texts(task: ImdbTask) -> pd.Series:
    """How many different splits each case-folded text is in."""
    return task.frame.groupby(task.frame["text"].str.casefold())["split"].nunique()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("One.<br /><br />Two.", "One. Two."),
        ("One.<br>Two.<br/>Three.", "One. Two. Three."),
        ("  spread \t over\r\n lines  ", "spread over lines"),
        ("3 < 4 > 2", "3 < 4 > 2"),
        ("<br />", ""),
    ],
)
def test_clean_turns_breaks_and_white_space_into_one_space(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_hash_split_ignores_case_and_sends_a_tenth_to_each_held_out_split() -> None:
    texts = [f"text number {i}" for i in range(3000)]
    shares = pd.Series([hash_split(text) for text in texts]).value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.8, abs=0.025)  # 3.4 standard deviations
    assert shares["validation"] == pytest.approx(0.1, abs=0.02)
    assert shares["test"] == pytest.approx(0.1, abs=0.02)
    assert [hash_split(text.upper()) for text in texts] == [hash_split(text) for text in texts]


@pytest.mark.slow
def test_package_texts_are_each_in_one_split_once(package_task: ImdbTask) -> None:
    folded = package_task.frame["text"].str.casefold()
    assert not folded.duplicated().any()
    assert (splits_of_texts(package_task) == 1).all()
    assert len(folded) > 33_000  # nothing but duplicates was dropped
    assert not package_task.frame["text"].str.contains("<br", regex=False).any()
    assert (package_task.frame["text"].str.len() > 0).all()


@pytest.mark.slow
def test_package_splits_are_about_80_10_10_for_reviews_and_sentences(package_task: ImdbTask) -> None:
    for _, rows in package_task.frame.groupby("origin"):
        shares = rows["split"].value_counts(normalize=True)
        assert shares["train"] == pytest.approx(0.8, abs=0.02)
        assert shares["validation"] == pytest.approx(0.1, abs=0.01)
        assert shares["test"] == pytest.approx(0.1, abs=0.01)
        assert rows.groupby("split")["label"].mean().between(0.45, 0.55).all()


def test_hub_schema_works_with_the_same_task_class(tmp_path: Path, datasets_cache: Path) -> None:
    texts = [f"review {i} {LONG}" for i in range(40)]
    folder = hub_folder(tmp_path / "films", text=texts, label=[i % 2 for i in range(40)])
    task = ImdbTask(source=HubSource(str(folder)), min_characters=200)
    assert task.examples("test")["text"].tolist() == [f"{text.strip()} Again." for text in texts]
    rest = pd.concat([task.examples("train"), task.examples("validation")])
    assert sorted(rest["text"]) == sorted(text.strip() for text in texts)
    assert len(task.examples("validation")) < len(task.examples("train"))
    assert datasets_cache.exists()  # and not the user's own cache


def test_official_test_texts_that_train_has_are_dropped_from_test() -> None:
    task = task_of(
        ("Seen in train.", 1, "imdb", "train"),
        ("seen in<br />TRAIN.", 0, "imdb", "test"),
        ("Only in test.", 0, "imdb", "test"),
        ("Only in test.", 1, "imdb", "test"),
    )
    assert task.examples("test")[["text", "label"]].to_numpy().tolist() == [["Only in test.", 0]]
    seen = task.frame[task.frame["text"] == "Seen in train."]
    assert seen["split"].isin(["train", "validation"]).all()
    assert seen["label"].tolist() == [1]


def test_official_train_texts_never_become_test_texts() -> None:
    names = [f"text {i}" for i in range(300)]
    assert any(hash_split(name) == "test" for name in names)
    task = task_of(*[(name, 1, "imdb", "train") for name in names])
    assert set(task.frame["split"]) == {"train", "validation"}
    would_be_test = task.frame[task.frame["text"].map(hash_split) == "test"]
    assert (would_be_test["split"] == "train").all()


@pytest.mark.slow
@pytest.mark.shared
def test_official_data_has_no_text_in_two_splits(official_task: ImdbTask) -> None:
    assert (splits_of_texts(official_task) == 1).all()
    assert not official_task.frame["text"].str.casefold().duplicated().any()
    shares = official_task.frame["split"].value_counts()
    assert shares["validation"] == pytest.approx(2500, abs=200)
    assert set(official_task.frame["origin"]) == {"imdb"}


@pytest.mark.slow
@pytest.mark.shared
def test_official_test_split_loses_its_known_duplicates(official_task: ImdbTask, official_imdb: Path) -> None:
    raw = {split: pd.read_parquet(official_imdb / f"imdb_{split}_25000.parquet")["text"] for split in ("train", "test")}
    known = raw["test"][raw["test"].isin(raw["train"])]
    assert len(known) == 123
    left = set(official_task.examples("test")["text"])
    assert not left & set(known.map(clean))
    assert len(left) == 25_000 - 123 - 199 - 2  # 199 repeat an earlier test text, 2 but for case or white space
    given = composed("scale=paper", "task=imdb").task.sources.hub.test_prompts
    assert given == sum(len(text) > 200 for text in left) == len(official_task.prompts("test"))


def test_origin_picks_reviews_or_sentences() -> None:
    task = task_of(("A review.", 1, "imdb", "test"), ("A sentence.", 0, "rotten_tomatoes", "test"))
    assert task.examples("test", origin="imdb")["text"].tolist() == ["A review."]
    assert task.examples("test", origin="rotten_tomatoes")["text"].tolist() == ["A sentence."]
    assert len(task.examples("test")) == 2


def test_prompts_come_from_reviews_above_the_length_bound_only() -> None:
    task = task_of(
        ("r" * 10, 1, "imdb", "test"),
        ("q" * 11, 1, "imdb", "test"),
        ("s" * 11, 1, "rotten_tomatoes", "test"),
        min_characters=10,
    )
    assert task.prompts("test") == [PromptText("", "q" * 11, "")]
