"""Plant faults one at a time in a copy of the working tree and say which of the default tests catch them.

`python -m tests.faults` or `python -m tests.faults kl-sign gae-discount`; ends with 1 when a fault is missed. The checkout
is never touched. The tests nearest to a fault run first and stop at the first failure. Each run is a fork of this process,
which has imported the libraries: importing them takes longer than most tests. At the end the tests that failed run on
the unbroken copy, where they must pass.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.listing import Fault, find, nearest_tests, read_code, read_faults

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = (
    "torch",
    "torch._dynamo",
    "torch.testing",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "numpy",
)
LIBRARIES += (
    "pandas",
    "scipy.stats",
    "matplotlib.figure",
    "hydra",
    "omegaconf",
    "safetensors.torch",
    "pytest",
    "hypothesis",
)
LIBRARIES += ("rich", "shap")


@dataclass(frozen=True)
class Outcome:
    """What became of a fault: the test that failed ("" if none did) and the seconds until then."""

    fault: Fault
    test: str
    seconds: float
    problem: str = ""

    @property
    def line(self) -> str:
        """For the terminal."""
        what = self.problem or (f"caught by {self.test}" if self.test else "MISSED")
        return f"{self.fault.name:25} {self.seconds:6.1f} s  {what}"


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class FirstFailure:
    """A pytest plugin that notes the first test that fails; one that cannot be imported is no catch."""

    def __init__(self) -> None:
        self.test, self.problem = "", ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.test:
            self.test = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.problem:
            self.problem = f"ERROR: {report.nodeid} cannot be imported"


def copy_tree(target: Path) -> None:
    """The tracked files as they are in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def run_tests(copy: Path, tests: list[str], *options: str) -> dict[str, str]:
    """What `FirstFailure` notes of a run of pytest in a fork of this process, which imports scar and tests from `copy`."""
    noted, log = copy.with_suffix(".json"), copy.with_suffix(".log")
    noted.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            _run_here(copy, tests, options, noted, log)
        finally:
            os._exit(0)
    try:
        os.waitpid(child, 0)
    except BaseException:  # Ctrl-C
        os.kill(child, signal.SIGKILL)
        raise
    if not noted.is_file():
        return {"test": "", "problem": f"ERROR: pytest ended before its time: {log.read_text()[-500:]}"}
    return json.loads(noted.read_text())


def _run_here(copy: Path, tests: list[str], options: tuple[str, ...], noted: Path, log: Path) -> None:
    with open(log, "w", encoding="utf-8") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    import pytest

    for name in [name for name in sys.modules if name.partition(".")[0] in ("scar", "tests")]:
        del sys.modules[name]
    sys.path[:] = [str(copy), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    os.chdir(copy)
    temporary = copy.with_suffix(".tmp")
    temporary.mkdir(exist_ok=True)
    os.environ |= {"PYTHONPATH": str(copy), "TMPDIR": str(temporary)}  # for the processes that tests start
    tempfile.tempdir = None
    importlib.invalidate_caches()
    found = importlib.util.find_spec("scar")
    plugin = FirstFailure()
    if found is None or not str(found.origin).startswith(str(copy)):
        plugin.problem = "ERROR: the copy is not what is imported"
    else:
        arguments = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "--durations=0", "--rootdir", str(copy)]
        code = pytest.main([*arguments, f"--basetemp={temporary / 'pytest'}", *options, *tests], plugins=[plugin])
        if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR):
            plugin.problem = plugin.problem or f"ERROR: pytest cannot run {' '.join(tests)}"
    noted.write_text(json.dumps(vars(plugin)))


def try_fault(fault: Fault, copy: Path, *, near_only: bool) -> Outcome:
    """Break the line, test, mend it."""
    file = find(fault, read_code(copy))
    text = file.read_text(encoding="utf-8")
    near, far = nearest_tests(fault, file, copy)
    _write(file, text.replace(fault.old, fault.new))
    start, noted = time.monotonic(), {"test": "", "problem": ""}
    try:
        # The nearest alone at first: pytest imports all that it is given before it runs any.
        for tests in (near[:1], near[1:4], near[4:12], near[12:], *([] if near_only else [far[:4], far[4:]])):
            noted = run_tests(copy, tests, "-x") if tests else noted
            if noted["test"] or noted["problem"]:
                break
    finally:
        _write(file, text)
    return Outcome(fault, noted["test"], time.monotonic() - start, noted["problem"])


def _write(file: Path, text: str) -> None:
    """A .pyc is known by the second and the length of its source, so one that is there would hide a change of one letter."""
    Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
    file.write_text(text, encoding="utf-8")


def try_all(faults: list[Fault], folder: Path, jobs: int, *, near_only: bool) -> list[Outcome]:
    """Every fault in a fork of its own, `jobs` at a time, each of which has a copy."""
    copies = [folder / str(number) for number in range(jobs)]
    for copy in copies:
        copy_tree(copy)
    waiting, running, outcomes = list(faults), dict[int, tuple[Fault, Path]](), dict[str, Outcome]()
    try:
        while waiting or running:
            while waiting and copies:
                fault, copy = waiting.pop(0), copies.pop(0)
                running[_start(fault, copy, near_only=near_only)] = fault, copy
            child, _ = os.wait()
            fault, copy = running.pop(child)
            copies.append(copy)
            result = copy.with_suffix(".outcome")
            found = json.loads(result.read_text()) if result.is_file() else ["", 0.0, "ERROR: nothing was reported"]
            result.unlink(missing_ok=True)
            outcomes[fault.name] = Outcome(fault, *found)
            say(outcomes[fault.name].line)
    finally:
        for child in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return [outcomes[fault.name] for fault in faults]


def _start(fault: Fault, copy: Path, *, near_only: bool) -> int:
    child = os.fork()
    if child == 0:
        try:
            os.setsid()  # so that all of it can be ended together
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            found = try_fault(fault, copy, near_only=near_only)
            copy.with_suffix(".outcome").write_text(json.dumps([found.test, found.seconds, found.problem]))
        finally:
            os._exit(0)
    return child


def fails_anyway(outcomes: list[Outcome], copy: Path) -> list[str]:
    """Which of the tests that caught something fail on the unbroken copy too."""
    tests = sorted({outcome.test for outcome in outcomes if outcome.test})
    guilty = []
    while tests:  # usually once: the first failure ends a run
        noted = run_tests(copy, tests, "-x")
        if noted["problem"]:
            raise SystemExit(noted["problem"])
        if not noted["test"]:
            break
        guilty.append(noted["test"])
        tests.remove(noted["test"])
    return guilty


def table(outcomes: list[Outcome]) -> str:
    """Markdown for docs/results_log.md."""
    lines = ["| fault | what is wrong | caught by | seconds |", "| --- | --- | --- | --- |"]
    for one in outcomes:
        caught = f"`{one.test.removeprefix('tests/')}`" if one.test and not one.problem else one.problem or "MISSED"
        lines.append(f"| {one.fault.name} | {one.fault.meaning} | {caught} | {one.seconds:.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Read the arguments, plant, report."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="plant faults, one at a time")
    parser.add_argument("names", nargs="*", help="these faults only")
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time")
    parser.add_argument("--near", action="store_true", help="run only the test files that name the broken module")
    options = parser.parse_args()
    faults = {fault.name: fault for fault in read_faults()}
    unknown = [name for name in options.names if name not in faults]
    if unknown:
        sys.exit(f"no fault is named {', '.join(unknown)}; known: {', '.join(faults)}")
    chosen = [faults[name] for name in options.names or faults]
    code = read_code(ROOT)
    try:
        for fault in chosen:
            find(fault, code)
    except ValueError as error:
        sys.exit(f"error: {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true", "HF_HUB_OFFLINE": "1"}
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):  # some are optional
            importlib.import_module(library)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name).resolve()
        outcomes = try_all(chosen, folder, max(options.jobs, 1), near_only=options.near)
        guilty = fails_anyway(outcomes, folder / "0")
    outcomes = [
        Outcome(one.fault, one.test, one.seconds, f"ERROR: {one.test} fails without the fault too")
        if one.test in guilty
        else one
        for one in outcomes
    ]
    caught = sum(bool(one.test and not one.problem) for one in outcomes)
    say(f"\n{table(outcomes)}\n\n{caught} of {len(outcomes)} faults caught in {time.monotonic() - start:.0f} s")
    return int(caught < len(outcomes))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
