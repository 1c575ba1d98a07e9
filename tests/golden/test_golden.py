"""The first three updates at scale=smoke still give the recorded numbers; a change must be meant, and explained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.regenerate import GOLDEN, METHODS, golden_rows, versions
from tests.smoke_scale import SmokeScale


@pytest.mark.parametrize("method", METHODS)
def test_metrics_equal_the_golden_ones(method: str, smoke: SmokeScale, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    if golden["versions"] != versions():
        pytest.skip(f"golden numbers NOT compared: of {golden['versions']}, here {versions()}; {golden['regenerate']}")
    rows = golden_rows(smoke, method, tmp_path)
    assert len(rows) == len(golden["rows"][method]) == 3
    for row, expected in zip(rows, golden["rows"][method], strict=True):
        assert set(row) == set(expected)
        wrong = {
            key: (row[key], value)
            for key, value in expected.items()
            if row[key] != pytest.approx(value, rel=1e-3, abs=1e-6)
        }
        assert wrong == {}, f"update {expected['update']}: (now, golden); if meant: {golden['regenerate']}"
