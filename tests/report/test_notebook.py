from __future__ import annotations

from pathlib import Path

from scar.report.notebook import sources


def test_notebooks_read_the_repository_around_them(monkeypatch):
    for name in ("SCAR_ROOT", "SCAR_SCALE", "SCAR_TASKS", "SCAR_METHODS", "SCAR_SEEDS"):
        monkeypatch.delenv(name, raising=False)
    found = sources()
    assert (found.scale, found.records, found.units) == ("local", Path("../runs"), Path("../sweeps/units"))
    assert sources(scale="smoke", seeds=[3]).seeds == [3]


def test_the_environment_chooses_and_arguments_win(monkeypatch):
    monkeypatch.setenv("SCAR_ROOT", "/data")
    monkeypatch.setenv("SCAR_SCALE", "smoke")
    monkeypatch.setenv("SCAR_SEEDS", "1,2")
    monkeypatch.setenv("SCAR_TASKS", "tldr")
    monkeypatch.setenv("SCAR_METHODS", "")
    found = sources()
    assert (found.scale, found.credit, found.seeds) == ("smoke", Path("/data/credit"), [1, 2])
    assert (found.tasks, found.methods) == (["tldr"], None)
    assert sources(scale="local").scale == "local"
