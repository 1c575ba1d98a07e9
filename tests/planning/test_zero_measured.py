"""What two ranks of DeepSpeed hold on CPUs, beside the arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scar.planning.ranks import Plan, state_bytes
from tests.smoke_scale import REPOSITORY

WEIGHTS, BUCKET = 8 * 256**2, 3 * 256**2
"""Numbers of the model of tests/planning/deepspeed_rank.py and of its bucket."""


@pytest.mark.slow
def test_bytes_of_a_rank(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    results = tmp_path / "bytes.json"
    script = str(REPOSITORY / "tests" / "planning" / "deepspeed_rank.py")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        script,
        str(results),
    ]
    settings = os.environ | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for stage, measured in json.loads(results.read_text(encoding="utf-8")).items():
        state = state_bytes(4 * WEIGHTS, WEIGHTS, Plan(2, int(stage)), passes=2)
        bucket = 4 * BUCKET - state.bucket if state.always else 0  # DeepSpeed was given a smaller one
        assert measured["at rest"] == pytest.approx(state.at_rest + bucket, rel=1e-3)
        part = 0 if state.always else state.master  # this rank's gradients, put aside
        assert measured["learning"] == pytest.approx(state.at_rest + bucket + part, rel=1e-3)
