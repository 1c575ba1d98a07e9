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
    monkeypatch.setattr(wandb_import, "records_from_project", lambda *arguments: calls.append(arguments))
    return calls


def test_project_is_imported_into_a_folder_of_its_own(tmp_path: Path, asked: list[tuple[Any, ...]]) -> None:
    folder = open_records("wandb:me/scar", cache=tmp_path)
    assert folder == tmp_path / "me" / "scar"
    assert asked == [("me/scar", folder)]


@pytest.mark.parametrize("source", ["wandb-offline:runs", "wandb-offline:"])
def test_offline_files_are_not_read_but_the_records_beside_them(tmp_path: Path, source: str) -> None:
    with pytest.raises(ValueError, match=rf"records={source}; .* give the folder with the runs \(records=runs\)"):
        open_records(source, cache=tmp_path)


@pytest.mark.parametrize("source", ["runs", "C:runs"])
def test_folder_is_itself_and_loads_no_wandb(tmp_path: Path, source: str) -> None:
    (tmp_path / "C:runs").mkdir()
    code = (
        "import sys; from pathlib import Path; from scar.tracking.wandb_runs import open_records\n"
        f"assert open_records({source!r}, cache=Path('cache')) == Path({source!r})\n"
        "assert not {'wandb', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path)


@pytest.mark.parametrize("source", ["wandb:scar", "wandb:me/", "wandb:me/scar/a1", "wandb:", "s3:x"])
def test_other_sources_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(ValueError, match=rf"records={source}; allowed: a folder or wandb:ENTITY/PROJECT"):
        open_records(source, cache=tmp_path)
