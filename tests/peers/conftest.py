"""The peers' numbers, computed once in their own environment, and the table of largest differences at the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

DIFFERENCES: dict[str, tuple[float, float]] = {}
"""Of each thing compared: the largest difference, the one that is allowed."""
VERSIONS: dict[str, str] = {}


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    python = os.environ.get("SCAR_PEERS")
    if not python:
        pytest.skip("there is no environment with the peers' packages: make test-peers makes it")
    file = tmp_path_factory.mktemp("peers") / "numbers.pt"
    script = Path(__file__).with_name("numbers_of_trl.py")
    subprocess.run([python, "-W", "ignore", str(script), str(file)], check=True)
    found = torch.load(file, weights_only=False)
    VERSIONS.update(found["versions"])
    return found


@pytest.fixture
def equal() -> Callable[..., None]:
    """Assert that |ours - theirs| / (1 + |theirs|) is at most `within`, and remember the largest under `name`."""

    def check(name: str, ours: Any, theirs: Any, *, within: float) -> None:
        ours, theirs = (torch.as_tensor(value, dtype=torch.float64) for value in (ours, theirs))
        assert ours.shape == theirs.shape
        difference = float(((ours - theirs).abs() / (1 + theirs.abs())).max())
        DIFFERENCES[name] = max(difference, DIFFERENCES.get(name, (0.0, 0.0))[0]), within
        assert difference <= within, f"{name}: {difference:.3g} apart, allowed {within:g}"

    return check


@pytest.fixture
def rows() -> Callable[[Tensor, Any], Tensor]:
    """Cut a tensor on whole texts [B,L-1], as TRL has it, to responses padded on the right [B,T]."""

    def cut(whole: Tensor, update: Any) -> Tensor:
        width = max(map(len, update["responses"]))
        out = torch.zeros(len(whole), width)
        for row, (query, response) in enumerate(zip(update["queries"], update["responses"], strict=True)):
            start = len(query) - 1
            out[row, : len(response)] = whole[row, start : start + len(response)]
        return out

    return cut


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if DIFFERENCES:
        terminalreporter.section("largest differences")
        terminalreporter.line("theirs: " + ", ".join(f"{name} {number}" for name, number in VERSIONS.items()))
        for name, (difference, within) in DIFFERENCES.items():
            terminalreporter.line(f"{name:<44} {difference:8.1e}  allowed {within:.0e}")
