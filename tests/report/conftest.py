"""Run records with hand-picked numbers, in the schema of scar.tracking.records."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scar.tracking.records import SCHEMA_VERSION, RunRecord

SETTINGS: dict[str, Any] = {
    "ppo": {"kl_coef": 0.2, "updates": 6, "batch_size": 4, "value_net": "shared"},
    "models": {"policy": "tiny"},
    "task": {"name": "imdb"},
    "data": {"source": "package"},
    "prompt": {"max_tokens": 8},
    "generation": {"temperature": 0.7},
    "scoring": {"missing_eos_score": None},
    "evaluation": {"prompts": 512, "seed": 7},
    "units": None,
    "estimator": None,
}
"""In the form of scar/identity.py."""


def set_key(settings: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
    settings[last] = value


def updates_of(means: Sequence[float]) -> tuple[float, ...]:
    """Numbers of updates whose trailing means are these; five at most, as the mean is of five."""
    sums = [0.0, *(mean * count for count, mean in enumerate(means, start=1))]
    return tuple(after - before for before, after in pairwise(sums))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunRecord]:
    """A record under `tmp_path/runs` (`folder` may lead out of it).

    `config` overrides dotted settings, other keywords override manifest keys. With `prompt_rewards` there is a row of
    samples.jsonl for each, of the prompts p0, p1, ... (another letter: `prompts`)."""

    def build(
        method: str = "scar",
        seed: int = 1,
        *,
        task: str = "imdb",
        folder: str = "",
        rewards: tuple[float, ...] = (0.0,) * 6,
        final: float = 1.0,
        kl: float = 5.0,
        initial: float = 0.5,
        alpha: float = 0.8,
        seconds: float = 20.0,
        credit_seconds: tuple[float, ...] = (),
        kls: tuple[float, ...] = (),
        times: tuple[float, ...] = (),
        prompt_rewards: tuple[float, ...] = (),
        prompts: str = "p",
        config: dict[str, Any] | None = None,
        **manifest: Any,
    ) -> RunRecord:
        path = tmp_path / "runs" / (folder or f"{task}-{method}-{seed}")
        path.mkdir(parents=True)
        settings = copy.deepcopy(SETTINGS) | {"seed": seed, "model_seed": manifest.get("model_seed", 1), "alpha": alpha}
        for key, value in (config or {}).items():
            set_key(settings, key, value)
        body = {
            "schema_version": SCHEMA_VERSION,
            "status": "finished",
            "scale": "local",
            "task": task,
            "method": method,
        }
        body |= (
            {"segmentation": "token", "estimator": {"name": "owen"}}
            if method == "scar"
            else {"segmentation": None, "estimator": None}
        )
        body |= {"alpha": alpha, "seed": seed, "model_seed": 1}
        body |= {
            "device": {"kind": "cpu", "name": "a laptop"},
            "fingerprint": "f00d",
            "commit": "c0ffee",
            "dirty": False,
        }
        body |= {"models": {"policy": {"name": "a policy"}, "reward": {"name": "a reward model"}}}
        body |= {"settings": settings, "timing": {"total_seconds": 2 * seconds, "device_seconds": seconds}}
        (path / "manifest.json").write_text(json.dumps(body | manifest))
        credit = credit_seconds or (0.1,) * len(rewards)
        columns = (rewards, credit, kls or (1.0,) * len(rewards), times or range(1, len(rewards) + 1))
        rows = [
            {"update": u, "reward/raw_mean": r, "credit/queries_mean": 2.0 * u, "time/credit_s": c, "time/total_s": 1.0}
            | {"kl/seq_sum_mean": k, "device_seconds": t}
            for u, (r, c, k, t) in enumerate(zip(*columns, strict=True), start=1)
        ]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        first = {"reward_mean": initial, "kl_mean": 0.0, "distinct_bigrams_mean": 16.0}
        last = {"reward_mean": final, "kl_mean": kl, "distinct_bigrams_mean": 13.0}
        last |= {"score_mean": final - 1, "eos_frac": 0.75}
        (path / "evaluation.json").write_text(json.dumps({"protocol": {}, "initial": first, "final": last}))
        if prompt_rewards:
            samples = [{"prompt": f"{prompts}{n}", "reward": reward} for n, reward in enumerate(prompt_rewards)]
            (path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
        return RunRecord(path)

    return build
