"""Files and folders are there whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from scar.files import atomic_file, atomic_folder, finish_folder


def test_file_has_its_old_content_until_the_new_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    with atomic_file(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    with suppress(KeyboardInterrupt), atomic_file(file) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "new")]


def test_folder_is_there_when_it_is_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "a"
    with atomic_folder(folder) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "b").write_text("whole")
        assert not folder.exists()
        assert partial.name.endswith(".partial")  # no record for whoever looks
    assert (folder / "inner" / "b").read_text() == "whole"
    with pytest.raises(ValueError, match="half"), atomic_folder(tmp_path / "made" / "c"):
        raise ValueError("half")
    assert list((tmp_path / "made").iterdir()) == [folder]


def test_folder_of_a_faster_process_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a") as partial:
        (partial / "b").write_text("slower")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "b").write_text("faster")
    assert [(path.name, (path / "b").read_text()) for path in tmp_path.iterdir()] == [("a", "faster")]


def test_folder_that_cannot_be_renamed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scar.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"), atomic_folder(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_finished_folder_replaces_one_of_its_name(tmp_path: Path) -> None:
    for name, content in (("a", "old"), ("a.partial", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / content).touch()
    os.symlink("nowhere", tmp_path / "a.partial" / "latest-run")  # as W&B makes them
    finish_folder(tmp_path / "a.partial", tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["latest-run", "new"]


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr("scar.files.os.fsync", lambda file: (events.append("flush"), sync(file)))
    monkeypatch.setattr("scar.files.os.replace", lambda *paths: (events.append("rename"), replace(*paths)))
    with atomic_file(tmp_path / "a") as partial:
        partial.touch()
    with atomic_folder(tmp_path / "b") as partial:
        (partial / "c").touch()
    assert events == ["flush", "rename"] * 2
