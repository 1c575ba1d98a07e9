"""Every package that the code imports is declared in pyproject.toml."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def imported() -> dict[str, Path]:
    """Packages by name, each with one file that imports it."""
    packages = {}
    for folder in ("scar", "experiments"):
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    packages |= {alias.name.split(".")[0]: file for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    packages[node.module.split(".")[0]] = file
    return {
        name: file for name, file in packages.items() if name not in {*sys.stdlib_module_names, "scar", "experiments"}
    }


def normal(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """Distributions of pyproject.toml, with those of every extra."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in lines}


def test_imports_are_declared() -> None:
    distributions, known = importlib.metadata.packages_distributions(), declared()
    missing = {
        name: file.relative_to(REPOSITORY).as_posix()
        for name, file in imported().items()
        if not {normal(d) for d in distributions.get(name, [name])} & known
    }
    assert missing == {}
