"""A run is computed once at a time, and a lock never outlives its holder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scar.tracking.records import only_here

HOLDER = """
import sys
from pathlib import Path
from scar.tracking.records import only_here
with only_here(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_second_process_is_refused_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    run = tmp_path / "imdb" / "seed1-abc"
    command = [sys.executable, "-c", HOLDER, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=r"another process is computing the run .*seed1-abc"), only_here(run):
            pass
        assert (tmp_path / "imdb" / "seed1-abc.lock").exists()  # whoever was refused does not take it away
        holder.kill()
    with only_here(run):
        pass
    assert list(run.parent.iterdir()) == []


def test_folders_of_a_run_that_never_began_are_taken_away_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with only_here(tmp_path / "kept" / "imdb" / "seed1"):
        pass
    assert list((tmp_path / "kept").iterdir()) == []
    with only_here(tmp_path / "kept" / "imdb" / "seed1"):
        (tmp_path / "kept" / "imdb" / "seed1").mkdir()
    assert (tmp_path / "kept" / "imdb" / "seed1").is_dir()
