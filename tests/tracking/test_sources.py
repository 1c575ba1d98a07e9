"""Sources of records: what is asked for is what is imported, and W&B is loaded for nobody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scar.tracking import wandb_runs as wandb_import
from scar.tracking.wandb_runs import open_records


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would be imported, and where to."""
    calls: list[tuple[Any, ...]] = []
    for name in ("records_from_offline", "records_from_project"):
        monkeypatch.setattr(wandb_import, name, lambda *arguments, name=name: calls.append((name, *arguments)))
    return calls


def test_project_is_imported_into_a_folder_of_its_own(tmp_path: Path, asked: list[tuple[Any, ...]]) -> None:
    folder = open_records("wandb:me/scar", cache=tmp_path)
    assert folder == tmp_path / "me" / "scar"
    assert asked == [("records_from_project", "me/scar", folder)]


def test_every_offline_folder_is_imported_into_one_of_its_own(tmp_path: Path, asked: list[tuple[Any, ...]]) -> None:
    folders = [open_records(f"wandb-offline:{tmp_path / name}", cache=tmp_path / "cache") for name in ("a", "b", "a")]
    assert folders[0] == folders[2] != folders[1]
    assert asked == [
        ("records_from_offline", tmp_path / name, folder) for name, folder in zip("aba", folders, strict=True)
    ]


@pytest.mark.parametrize("source", ["runs", "C:runs"])
def test_folder_is_itself_and_loads_no_wandb(tmp_path: Path, source: str) -> None:
    (tmp_path / "C:runs").mkdir()
    code = (
        "import sys; from pathlib import Path; from scar.tracking.wandb_runs import open_records\n"
        f"assert open_records({source!r}, cache=Path('cache')) == Path({source!r})\n"
        "assert not {'wandb', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path)


@pytest.mark.parametrize("source", ["wandb:scar", "wandb:me/", "wandb:me/scar/a1", "wandb:", "wandb-offline:", "s3:x"])
def test_other_sources_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(ValueError, match=rf"records={source}; allowed: a folder, wandb:ENTITY/PROJECT or wandb-offl"):
        open_records(source, cache=tmp_path)
