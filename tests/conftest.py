"""Shared fixtures: tiny models, built here from a seed; no downloads, no network, no W&B account."""

import os

# Read when huggingface_hub and wandb are imported, so they are set before anything else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    from tests.smoke_scale import SmokeScale

# The same examples each time; `pytest --hypothesis-profile=nightly` tries more of them.
settings.register_profile("usual", deadline=None, derandomize=True, max_examples=15)
settings.register_profile("nightly", deadline=None, derandomize=True, max_examples=200)
settings.load_profile("usual")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore::PendingDeprecationWarning:shap.*")  # its plots, at first import


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: a file's tests stay on one process, and the longest should not start last."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _no_task_of_another_test() -> None:
    """A process keeps the task that it built last, with its data; tests change what data there are."""
    if build := sys.modules.get("scar.commands.build"):
        build._tasks.clear()


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C reaches this process and those that it starts; jobs in a shell's background are started deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> "SmokeScale":
    """The smoke-scale models, trained once for all processes of the test run."""
    from tests.smoke_scale import SmokeScale  # imports transformers: only tests that need it pay for that

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with FileLock(folder / "smoke.lock"):
        return SmokeScale(tmp_path_factory.mktemp("smoke"), cache=folder / "smoke-models")


@pytest.fixture(scope="session")
def official_imdb() -> Path:
    """The folder of the official IMDB files beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "imdb"
    if not folder.is_dir():
        pytest.skip("the maintainers' folder shared/data/imdb is not beside the checkout")
    return folder


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the datasets library that is gone after the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "datasets"
