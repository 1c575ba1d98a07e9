"""Who may import whom, and where outside libraries may appear (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE, SCRIPTS = REPOSITORY / "scar", REPOSITORY / "experiments"

LAYERS = {
    0: (
        "types",
        "coalitions",
        "pairs",
        "interfaces",
        "config",
        "identity",
        "seeding",
        "packages",
        "offline",
        "printing",
        "engine.interfaces",
    ),
    1: (
        "ppo.masked",
        "ppo.advantages",
        "ppo.losses",
        "ppo.kl_control",
        "shaping.rewards",
        "attribution.plans",
        "attribution.hierarchies",
        "attribution.estimators",
        "attribution.trie",
        "segmentation.units",
        "segmentation.offsets",
        "segmentation.words",
        "segmentation.sentences",
        "evaluation.samples",
    ),
    2: (
        "models",
        "tasks",
        "segmentation",
        "attribution.backends",
        "attribution.fused",
        "attribution.trie_attention",
        "attribution.attention",
        "attribution.architectures",
        "attribution.shap_backend",
        "engine",
        "tracking",
        "evaluation.judge",
        "evaluation.judge_cache",
        "evaluation.judge_prompts",
    ),
    3: (
        "rollout",
        "scoring",
        "attribution.game",
        "shaping.methods",
        "ppo.updater",
        "evaluation.reward_eval",
        "evaluation.samples",
        "evaluation.credit",
        "supervised",
        "checkpoint",
        "trainer",
    ),
    4: (
        "construct",
        "parts",
        "build",
        "gold",
        "prefetch",
        "judging",
        "recipes",
        "run",
        "runlife",
        "crediting",
        "cli",
        "launchers",
        "bench",
        "planning",
    ),
}
"""The first names that fit decide, longest first: "segmentation.units" before "segmentation"."""
REPORT = "report"
PURE = {"torch", "numpy"}
REPORT_MAY_USE = {"types", "tracking.records", "tracking.judgements", "tracking.credit_records", REPORT}
ONE_MODULE_ONLY = ("wandb", "datasets", "shap", "spacy", "stanza", "peft", "deepspeed", "openai", "vaderSentiment")
HYDRA_USERS = {
    "construct",
    "parts",
    "build",
    "gold",
    "prefetch",
    "judging",
    "run",
    "runlife",
    "crediting",
    "cli",
    "launchers",
    "bench.estimators",
    "planning.check",
}


@dataclass(frozen=True)
class Import:
    """`module` is imported by a file; `inside`: within a function; `typing_only`: under TYPE_CHECKING."""

    module: str
    inside: bool
    typing_only: bool
    line: int


def imports_of(tree: ast.Module) -> Iterator[Import]:
    def walk(node: ast.AST, inside: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, inside, typing_only, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            assert node.module is not None
            for alias in node.names:  # the name may be a module itself: from scar.models import loading
                yield Import(f"{node.module}.{alias.name}", inside, typing_only, node.lineno)
        inside = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for child in ast.iter_child_nodes(node):
            guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and child in node.body
            yield from walk(child, inside, typing_only or guarded)

    yield from walk(tree, False, False)


def name_of(file: Path) -> str:
    """`ppo.masked` for scar/ppo/advantages.py."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


def fits(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def layer_of(name: str) -> int | None:
    """The layer of a module; None for report and for package files."""
    found = [(len(prefix), layer) for layer, prefixes in LAYERS.items() for prefix in prefixes if fits(name, prefix)]
    return max(found)[1] if found else None


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py")) if file.name != "__init__.py"}


def inner_imports(name: str) -> set[str]:
    """The modules of this package that a module imports at run time."""
    return problems_free(ast.parse(FILES[name].read_text(encoding="utf-8")))


def problems_free(tree: ast.Module) -> set[str]:
    found = set()
    for imported in imports_of(tree):
        if imported.module.startswith("scar.") and not imported.typing_only:
            inner = imported.module.removeprefix("scar.")
            found.add(max((name for name in FILES if fits(inner, name)), key=len, default=inner))
    return found


def forbidden(name: str, imported: str) -> bool:
    """Whether module `name` may not import module `imported`."""
    if fits(name, REPORT):
        return not any(fits(imported, allowed) for allowed in REPORT_MAY_USE)
    here, there = layer_of(name), layer_of(imported)
    if here is None or there is None:
        return True
    if here == 4:
        return False
    if here == 3:
        return there == 2 or there > 3
    if here == there == 2:
        return name.split(".")[0] != imported.split(".")[0]
    return there > here


def outer_imports(tree: ast.Module) -> list[tuple[str, Import]]:
    """Top-level package of every import from outside."""
    return [(i.module.split(".")[0], i) for i in imports_of(tree) if not i.module.startswith("scar")]


def test_every_module_has_a_place() -> None:
    homeless = [name for name in FILES if layer_of(name) is None and not fits(name, REPORT)]
    assert homeless == []


@pytest.mark.parametrize("name", list(FILES))
def test_imports_go_down_only(name: str) -> None:
    assert [imported for imported in sorted(inner_imports(name)) if forbidden(name, imported)] == []


@pytest.mark.parametrize(
    ("name", "imported", "wrong"),
    [
        ("trainer", "models.policy", True),
        ("models.policy", "tasks.imdb", True),
        ("models.reward", "models.policy", False),
        ("types", "config", False),
        ("ppo.losses", "rollout", True),
        ("shaping.methods", "attribution.game", False),
        ("segmentation.segmenters", "segmentation.units", False),
        ("attribution.plans", "segmentation.segmenters", True),
        ("report.tables", "build", True),
        ("report.tables", "tracking.records", False),
        ("report.tables", "tracking.trackers", True),
        ("run", "recipes.store", False),
    ],
)
def test_the_rule_itself(name: str, imported: str, wrong: bool) -> None:
    assert forbidden(name, imported) is wrong


def test_the_import_walk_sees_every_form() -> None:
    source = "import scar.commands.build\nfrom scar.models import loading\ndef f():\n    from scar import trainer\n"
    assert problems_free(ast.parse(source)) == {"build", "models.loading", "trainer"}


@pytest.mark.parametrize("name", [name for name in FILES if layer_of(name) in (0, 1)])
def test_the_two_lowest_layers_use_torch_and_numpy_only(name: str) -> None:
    import sys

    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    outside = {package for package, _ in outer_imports(tree)} - set(sys.stdlib_module_names) - PURE
    outside -= {"huggingface_hub"} if name == "offline" else set()  # where its cache is, and whether it may be asked
    assert outside == set()


@pytest.mark.parametrize("library", ONE_MODULE_ONLY)
def test_heavy_libraries_are_imported_in_one_module_inside_functions(library: str) -> None:
    users = {}
    for name, file in FILES.items():
        found = [i for package, i in outer_imports(ast.parse(file.read_text(encoding="utf-8"))) if package == library]
        if found:
            users[name] = found
    assert len(users) <= 1
    assert all(imported.inside for found in users.values() for imported in found)


def test_hydra_is_used_by_the_composition_root_only() -> None:
    users = {
        name
        for name, file in FILES.items()
        for package, _ in outer_imports(ast.parse(file.read_text(encoding="utf-8")))
        if package in ("hydra", "omegaconf")
    }
    assert users <= HYDRA_USERS


def test_reports_do_not_load_models() -> None:
    for name in (name for name in FILES if fits(name, REPORT)):
        packages = {package for package, _ in outer_imports(ast.parse(FILES[name].read_text(encoding="utf-8")))}
        assert not packages & {"transformers", "hydra", "omegaconf", "torch", "wandb"}, name


def test_the_environment_is_read_where_it_may_be() -> None:
    readers = {name for name, file in FILES.items() if "environ" in file.read_text(encoding="utf-8")}
    assert readers <= {"build", "cli", "judging", "engine.ranks", "tracking.wandb_runs", "report.notebook"}


@pytest.mark.parametrize("file", [*FILES.values(), *sorted(SCRIPTS.glob("*.py"))], ids=lambda file: file.stem)
def test_files_do_not_print(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert "sys.stdout" not in text or file.stem == "printing"


def test_scripts_import_no_script_and_hold_no_loop() -> None:
    for file in SCRIPTS.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assert not [i for i in imports_of(tree) if i.module.startswith("experiments")]
        assert not [node for node in ast.walk(tree) if isinstance(node, (ast.For, ast.While))]
