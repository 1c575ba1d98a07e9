"""The list of faults, and where each stands in the code."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("faults.toml")


@dataclass(frozen=True)
class Fault:
    """One line of scar/ that is broken: `old` becomes `new`; `meaning` says what is then wrong."""

    name: str
    meaning: str
    old: str
    new: str


def read_faults(path: Path = LIST) -> list[Fault]:
    """All faults; tomllib raises for a name that is there twice."""
    return [Fault(name, **entry) for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items()]


def read_code(root: Path) -> dict[Path, str]:
    """The text of every module of scar/ below `root`."""
    return {file: file.read_text(encoding="utf-8") for file in sorted((root / "scar").rglob("*.py"))}


def find(fault: Fault, code: dict[Path, str]) -> Path:
    """The file in which the fault's snippet stands. ValueError unless it stands exactly once in all of the code."""
    counts = {file: text.count(fault.old) for file, text in code.items() if fault.old in text}
    if sum(counts.values()) != 1:
        places = ", ".join(file.name for file in counts) or "no file"
        raise ValueError(
            f"fault {fault.name}: its snippet is {sum(counts.values())} times in scar/ ({places}), not once; "
            f"change tests/faults/{LIST.name}: {fault.old}"
        )
    return next(iter(counts))


def module_of(file: Path, root: Path) -> str:
    """The name by which a file is imported."""
    return ".".join(file.relative_to(root).with_suffix("").parts)


def nearest_tests(fault: Fault, file: Path, root: Path) -> tuple[list[str], list[str]]:
    """Test files, relative to `root`: those that name the module of `file` (the one named like it first, then by how often
    they name the function that the fault is in, then those in the folder named like its package, then by how often they
    name the module), and all others (those that run everything at scale=smoke first, then those that name the package)."""
    module = module_of(file, root)
    package = module.rpartition(".")[0]
    before = file.read_text(encoding="utf-8").partition(fault.old)[0]
    functions = re.findall(r"def (\w+)", before)
    function = re.compile(rf"\b{functions[-1] if functions else module}\b")
    tests = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((root / "tests").rglob("test_*.py"))
        if path.parent.name != LIST.parent.name
    }

    def distance(name: str) -> tuple[bool, int, bool, int]:
        text, folder = tests[name], Path(name).parent.name
        called = not name.endswith(f"/test_{file.stem}.py")
        return called, -len(function.findall(text)), folder != file.parent.name, -text.count(module)

    near = sorted((name for name, text in tests.items() if module in text), key=distance)
    far = tests.keys() - near
    return near, sorted(
        far, key=lambda name: ("smoke: SmokeScale" not in tests[name], package not in tests[name], name)
    )
