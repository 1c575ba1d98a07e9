"""Every package that the code imports is declared in pyproject.toml: what is imported at the top of a file among those of runs."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def imported(*, at_the_top: bool) -> dict[str, Path]:
    """Packages by name, each with one file that imports it; `at_the_top`: outside of functions and of TYPE_CHECKING."""
    packages = {}
    for folder in ("scar", "experiments"):
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in tree.body if at_the_top else ast.walk(tree):
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


def declared(*, extras: bool) -> set[str]:
    """Distributions of pyproject.toml, with those of every extra or without."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"].values() if extras else []
    lines = [*project["dependencies"], *(line for extra in optional for line in extra)]
    return {normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in lines}


@pytest.mark.parametrize("at_the_top", [True, False])
def test_imports_are_declared(at_the_top: bool) -> None:
    distributions, known = importlib.metadata.packages_distributions(), declared(extras=not at_the_top)
    missing = {
        name: file.relative_to(REPOSITORY).as_posix()
        for name, file in imported(at_the_top=at_the_top).items()
        if not {normal(d) for d in distributions.get(name, [name])} & known
    }
    assert missing == {}


def test_the_packages_of_runs_hold_none_that_is_compiled_or_that_few_need() -> None:
    few = {
        "deepspeed",
        "stanza",
        "bitsandbytes",
        "shap",
        "datasets",
        "peft",
        "openai",
        "nbconvert",
        "pytest",
        "ruff",
        "mypy",
    }
    assert declared(extras=False) & few == set()
    assert few <= declared(extras=True)
