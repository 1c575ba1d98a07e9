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
    """Test files, relative to `root`: those that name the module of `file`, or whose helpers do, and all others.

    Of the first: the one named like the module, then by how many words of the fault they hold (with the function that it is
    in), then those in the folder named like its package, then by how often they name the module. Of the others: those that
    run everything at scale=smoke, then those that name the package.
    """
    module = module_of(file, root)
    package = module.rpartition(".")[0]
    before = file.read_text(encoding="utf-8").partition(fault.old)[0]
    words = {*re.findall(r"def (\w+)", before)[-1:], *re.findall(r"\w{5,}", fault.old)}
    texts = {path.relative_to(root): path.read_text(encoding="utf-8") for path in (root / "tests").rglob("*.py")}
    helpers = [module_of(path, Path()) for path, text in texts.items() if module in text and path.name[:5] != "test_"]
    tests = {
        path.as_posix(): text
        for path, text in sorted(texts.items())
        if path.name.startswith("test_") and path.parent.name != LIST.parent.name
    }

    def distance(name: str) -> tuple[bool, int, bool, int]:
        text, folder = tests[name], Path(name).parent.name
        called = not name.endswith(f"/test_{file.stem}.py")
        return (
            called,
            -len(words.intersection(re.findall(r"\w+", text))),
            folder != file.parent.name,
            -text.count(module),
        )

    near = [name for name in sorted(tests, key=distance) if module in tests[name]]
    near += [
        name
        for name in sorted(tests.keys() - near, key=distance)
        if any(f"from {helper} " in tests[name] for helper in helpers)
    ]
    far = tests.keys() - near

    def reach(name: str) -> tuple[int, bool, str]:
        return -tests[name].count("smoke: SmokeScale"), package not in tests[name], name

    return near, sorted(far, key=reach)
