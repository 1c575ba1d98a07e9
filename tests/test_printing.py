"""A stdout that is full or closed ends the printing, in one line, and nothing else."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from scar.commands import cli
from scar.printing import ended, say
from tests.smoke_scale import REPOSITORY
from tests.stdouts import BROKEN, REASONS


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """To be called in the test itself, for pytest puts its own stdout in place before: what the line at the end says."""

    def broken(kind: str) -> str:
        monkeypatch.setattr(sys, "stdout", BROKEN[kind]())
        return REASONS[kind]

    return broken


def test_what_can_be_printed_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\n")
    say("b\n")
    assert ended(0) == 0
    assert ended(3) == 3
    assert capsys.readouterr() == ("a\nb\n", "")


@pytest.mark.parametrize("kind", BROKEN)
def test_the_work_goes_on_and_the_end_says_once_what_was_lost(
    kind: str, breaking: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    reason = breaking(kind)
    say("lost\n")
    say("lost too\n")
    assert ended(0) == 1
    assert capsys.readouterr().err == f"error: stdout could not be written ({reason}); what was made is kept\n"
    assert ended(0) == 0
    sys.stdout.flush()  # as Python does at its end: nothing is left to fail


def test_a_status_of_the_scripts_own_stays(breaking: Callable[[str], str]) -> None:
    breaking("full")
    say("lost\n")
    assert ended(3) == 3


@pytest.mark.parametrize("kind", BROKEN)
def test_script_whose_lines_are_lost_ends_with_status_1(
    kind: str, breaking: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    breaking(kind)
    done = []

    def main() -> None:
        say("lost\n")
        done.append("the rest")

    with pytest.raises(SystemExit) as caught:
        cli.run_script(main)
    assert caught.value.code == 1
    assert done == ["the rest"]
    assert capsys.readouterr().err.count("\n") == 1


def test_script_may_print_by_itself(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra does, and leaves flushing to Python's end."""
    monkeypatch.setattr(sys, "stdout", BROKEN["pipe"]())

    def main() -> None:
        sys.stdout.write("x" * (io.DEFAULT_BUFFER_SIZE + 1))
        sys.stdout.write("y")
        sys.stdout.flush()

    with pytest.raises(SystemExit) as caught:
        cli.run_script(main)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: stdout could not be written (Broken pipe); what was made is kept\n"


def test_script_gives_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run_script(lambda: 0)
    cli.run_script(lambda: None)
    cli.run_script(lambda: Path("what a main gives besides"))
    with pytest.raises(SystemExit) as caught:
        cli.run_script(lambda: 1)
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", "")


DISPLAYS = """
import sys
from pathlib import Path
from scar.commands.cli import training_bar
from scar.printing import ended
from scar.tracking.trackers import BarTracker, ProgressFile, SweepProgress
folder = Path(sys.argv[1])
training_bar("policy")(1, 1, {"loss": 0.5})
ProgressFile(folder / "progress.json", name="a", updates=1).finish("finished", result="a line")
sweep = SweepProgress(folder.parent, runs=1)
sweep.start()
sweep.refresh()
sweep.stop()
BarTracker(name="a", updates=1, folder=folder).finish("finished")
(folder / "done").write_text("all of it")
sys.exit(ended(0))
"""


@pytest.mark.slow
@pytest.mark.parametrize("stdout", BROKEN)
def test_displays_end_no_work(stdout: str, tmp_path: Path) -> None:
    """In a process of its own, whose last flush is Python's."""
    (tmp_path / "0").mkdir()
    where: IO[str] = BROKEN[stdout]()
    command = [sys.executable, "-c", DISPLAYS, str(tmp_path / "0")]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=where, stderr=subprocess.PIPE, text=True, check=False)
    assert (tmp_path / "0" / "done").read_text() == "all of it"
    line = f"error: stdout could not be written ({REASONS[stdout]}); what was made is kept\n"
    assert (done.returncode, done.stderr) == (1, line)
