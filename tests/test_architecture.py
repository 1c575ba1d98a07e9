"""The house: a room imports rooms below it, never beside or above it; and the few walls inside (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE, SCRIPTS = REPOSITORY / "scar", REPOSITORY / "experiments"
FILES = {file.relative_to(REPOSITORY).as_posix(): file for file in sorted(PACKAGE.rglob("*.py"))}
FLOORS = (
    ("types", "config", "identity", "seeding", "packages", "printing", "files", "text", "judging"),
    ("interfaces",),
    ("segmentation", "coalitions", "tasks", "engine", "tracking"),
    ("credit", "models", "report"),
    ("ppo",),
    ("supervised", "planning"),
    ("commands",),
)
"""From the ground up. Modules of the lowest floors are rooms of their own, but for those of judging."""


@functools.cache
def imports_of(file: Path) -> list[tuple[str, bool]]:
    """Every module that a file imports, and whether that is inside a function or for types only."""

    def walk(node: ast.AST, later: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.ImportFrom):
            assert node.module, "imports name the whole path"
            yield from ((f"{node.module}.{alias.name}", later) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, later) for alias in node.names)
        later = later or isinstance(node, ast.FunctionDef)
        later = later or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for child in ast.iter_child_nodes(node):
            yield from walk(child, later)

    return list(walk(ast.parse(file.read_text(encoding="utf-8")), False))


@pytest.mark.parametrize("name", FILES)
def test_rooms_import_rooms_below_them(name: str) -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    room = name.split("/")[1].removesuffix(".py")
    inner = {module.split(".")[1] for module, _ in imports_of(FILES[name]) if module.startswith("scar.")} - {room}
    if room != "__init__":
        assert {other for other in inner if floor[other] >= floor[room]} == set()


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == {room for floor in FLOORS for room in floor}


@pytest.mark.parametrize(
    "library", ["wandb", "datasets", "shap", "spacy", "stanza", "peft", "deepspeed", "openai", "vaderSentiment"]
)
def test_heavy_libraries_are_imported_by_one_module_inside_functions(library: str) -> None:
    found = {name: [later for m, later in imports_of(FILES[name]) if m.split(".")[0] == library] for name in FILES}
    users = {name: later for name, later in found.items() if later}
    assert len(users) <= 1
    assert all(all(later) for later in users.values())


def test_commands_alone_know_hydra() -> None:
    found = {name for name in FILES for m, _ in imports_of(FILES[name]) if m.split(".")[0] in ("hydra", "omegaconf")}
    assert {name.split("/")[1] for name in found} == {"commands"}


@pytest.mark.slow
@pytest.mark.parametrize("module", ["scar.commands.cli", "scar.tracking.records", "scar.report.items"])
def test_what_draws_and_reads_starts_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_the_environment_is_read_where_it_may_be() -> None:
    readers = {name for name, file in FILES.items() if "os.environ" in file.read_text(encoding="utf-8")}
    commands = {f"scar/commands/{name}.py" for name in ("build", "cli", "judge")}
    assert readers <= commands | {"scar/engine/spread.py", "scar/tracking/wandb_runs.py", "scar/report/notebook.py"}


@pytest.mark.parametrize("file", [*FILES.values(), *sorted(SCRIPTS.glob("*.py"))], ids=lambda file: file.stem)
def test_files_do_not_print(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert "sys.stdout" not in text or file.stem == "printing"
