"""Benchmarks compare what they say they compare; none of these tests looks at how long anything took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks.attribution import compare
from experiments.benchmarks.estimators import TruncatedShap, relative_error
from experiments.benchmarks.update import as_dicts
from scar.planning.workloads import Workload, random_rollout, random_units
from scar.segmentation.hierarchies import balanced_hierarchy, coalition_count
from tests.builders import TableGames, chain

TINY = Workload("tiny span", "smaller", 40, 7, 5, 2)


@pytest.mark.slow
def test_rows_have_the_documented_keys_and_agree_with_shap() -> None:
    rows = list(compare(TINY, backends=("fused", "generic"), repetitions=1))
    assert [row.name for row in rows] == ["tiny span, smaller model, fused", "tiny span, smaller model, generic"]
    for row in as_dicts(rows):
        keys = {"name", "ours_seconds", "peer", "peer_seconds", "ratio", "max_abs_difference", "queries"}
        assert set(row) == keys
        assert row["ratio"] == row["peer_seconds"] / row["ours_seconds"]
        assert 0 < row["max_abs_difference"] < 1e-5
        assert row["queries"] == 2 * (coalition_count(balanced_hierarchy(5)) - 1)
    assert json.loads(json.dumps(as_dicts(rows))) == as_dicts(rows)


def test_random_units_are_contiguous_and_uneven() -> None:
    work = Workload("", "smaller", 4, 53, 12, 3)
    units = random_units(random_rollout(work), 12)
    for row in units.unit_index.numpy():
        assert row[0] == 0
        assert row[-1] == 11
        assert set(np.diff(row)) <= {0, 1}
        assert len(set(np.bincount(row).tolist())) > 1


def test_relative_error_by_hand() -> None:
    phi = np.array([1.0, 3.0])  # mean 2, distance from it sqrt(2)
    assert relative_error(phi, phi) == 0
    assert relative_error(np.array([2.0, 2.0]), phi) == pytest.approx(1)
    assert relative_error(np.array([1.0, 4.0]), phi) == pytest.approx(1 / np.sqrt(2))


def test_truncated_shap_stops_at_its_limit_and_stays_efficient() -> None:
    def game(coalition: frozenset[int]) -> float:
        return float(len(coalition) ** 2)

    found = TruncatedShap(max_evals=20).estimate(TableGames([game], [chain(8)]), np.random.default_rng(0))[0]
    assert found is not None
    assert found.queries <= 30  # 20, and the batch that was under way
    assert found.values.sum() == pytest.approx(64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["experiments/bench.py", "attribution"], "attribution: write target=attribution"),
        (["experiments/bench.py", "target=attribution", "--quick"], "--quick: write quick=true"),
        (["-m", "experiments.bench", "attribution"], "write python experiments/bench.py target=attribution"),
        (["experiments/bench.py", "target=speed"], "target=speed; allowed: agreement attribution"),
        (["experiments/bench.py", "quick=1"], "quick=1; allowed: true or false"),
        (["experiments/bench.py", "scale=smoke"], "a scale is for estimators and agreement"),
        (["experiments/bench.py", "quik=true"], "did you mean quick?"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments: list[str], says: str) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
