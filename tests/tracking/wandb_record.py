"""A record with what is hard to keep, for the tests of W&B."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from scar.tracking.records import SCHEMA_VERSION, RunRecord, RunWriter, record_folder

Log = list[dict[str, Any]]

MANIFEST: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "status": "finished",
    "scale": "smoke",
    "model_seed": 1,
    "device": {"kind": "cpu", "name": "a laptop"},
    "task": "imdb",
    "method": "scar",
    "seed": 3,
    "fingerprint": "f00d",
    "alpha": 1.0,
    "segmentation": None,
    "settings": {"seed": 3, "ppo": {"learning_rate": 1e-05, "clip_range": 0.2}, "estimator": None},
    "commit": "c0ffee",
    "finished": "2026-11-26T10:00:00+00:00",
    "timing": {"total_seconds": 12.000000000000002, "peak_memory_bytes": None},
}
ROWS: list[dict[str, Any]] = [
    {
        "update": 1,
        "episodes": 8,
        "memory/peak_bytes": 2**52 + 1,
        "reward/raw_mean": 2.0,
        "kl/seq_sum_mean": 0.1 + 0.2,
        "objective/non_score": -0.0,
        "ppo/value_loss": 5e-324,
        "lr": 1e-05,
    },
    {
        "update": 2,
        "episodes": 16,
        "memory/peak_bytes": 10**10,
        "reward/raw_mean": 1e16,
        "kl/seq_sum_mean": 1.7976931348623157e308,
        "objective/non_score": 0.1,
        "scar/only_now": 3.0,
        "lr": 0.0,
    },
]
EVALUATION: dict[str, Any] = {
    "protocol": {"split": "test", "prompts": 2, "temperature": 1.0, "reference": None},
    "initial": {"reward_mean": -1.0, "reward_std": 1 / 3, "kl_mean": 0.0, "length_mean": 9.5, "prompts": 2},
    "final": {"reward_mean": 2.0, "reward_std": 0.1, "kl_mean": 1e-17, "length_mean": 8.0, "prompts": 2},
}
SAMPLES: list[dict[str, Any]] = [
    {"prompt": "The fílm", "response": "war\u2028\n\tgut \U0001f642 \x85", "response_ids": [1, 2], "reward": 2.0},
    {"prompt": "", "response": 'a "b" \\ <c>&', "response_ids": [], "reward": None},
]


def written(folder: Path) -> RunWriter:
    """A run written whole, that is not committed yet."""
    writer = RunWriter(folder)
    for row in ROWS:
        writer.append(row)
    writer.write("evaluation.json", EVALUATION)
    writer.write("samples.jsonl", SAMPLES)
    writer.write("manifest.json", MANIFEST)
    return writer


def assert_equal_records(found: RunRecord, expected: RunRecord) -> None:
    """The same everywhere; ints and floats are told apart, and so are None and nothing."""
    for name in ("manifest", "metrics", "evaluation", "samples"):
        assert typed(getattr(found, name)) == typed(getattr(expected, name)), name


def typed(value: Any) -> Any:
    """`value` with every number and text beside its type."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    return [typed(inner) for inner in value] if isinstance(value, list) else (type(value), value)


def folder_of_record(root: Path) -> Path:
    """Where the run of MANIFEST lies."""
    return record_folder(root, MANIFEST)


def read_log(folder: Path) -> Log:
    """All that W&B's reader finds in the one offline run below a folder."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    offline = os.environ | {"WANDB_MODE": "offline"}
    out = subprocess.run(command, env=offline, capture_output=True, text=True, encoding="utf-8", check=False).stdout
    return [json.loads(line) for line in out.split("\n") if line]
