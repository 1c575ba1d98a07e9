"""What Owen values cost: this engine beside the shap package, on the same coalitions of the same responses.

Both run in one process on one thread, in turn; times are CPU seconds of the process and the best of the repetitions.
The peer is shap's PartitionExplainer as one writes it: its default batch of 10, whole sequences through the Hugging
Face model (its default attention), no limit on evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.benchmarks.update import MEMORY_MIB, NO_LIMIT, Row, timed, update_row
from scar.coalitions.backends import make_scorer
from scar.credit.estimators import OwenEstimator
from scar.credit.game import TextGame
from scar.credit.shap_oracle import partition_values
from scar.models.reward import SequenceRewardModel
from scar.planning.workloads import SPACE_ID, Workload, random_reward_model, random_rollout, random_units, score
from scar.segmentation.hierarchies import coalition_count
from scar.types import Rollout, Units

Advance = Callable[[int, int, dict[str, float]], None]
PEER = "shap.PartitionExplainer"

QUICK = (
    Workload("tldr span N=12", "smaller", 512, 53, 12, 1),
    Workload("tldr span N=12", "larger", 512, 53, 12, 1),
    Workload("imdb token N=24", "smaller", 8, 24, 24, 4),
    Workload("imdb token N=24", "larger", 8, 24, 24, 4),
    Workload("imdb span N=8", "smaller", 8, 24, 8, 4),
    Workload("imdb span N=8", "larger", 8, 24, 8, 4),
)
FULL = (
    *QUICK,
    Workload("tldr token N=53", "smaller", 512, 53, 53, 1),
    Workload("tldr token N=53", "larger", 512, 53, 53, 1),
)
ONCE_ABOVE = 1000
"""A workload of more coalitions than this is run once: its peer takes a minute or more."""


def compare(work: Workload, *, backends: tuple[str, ...], repetitions: int) -> Iterator[Row]:
    """One row per backend; the peer is timed once for all of them, in turn with them."""
    reward_model = random_reward_model(work.size)
    rollout = random_rollout(work)
    units, scores = random_units(rollout, work.units), score(reward_model, rollout)
    estimator = OwenEstimator(max_coalitions=NO_LIMIT)
    games = {backend: TextGame(_scorer(reward_model, backend), fill="space") for backend in backends}

    def scar_values(game: TextGame) -> Any:
        return estimator.estimate(game.batch(scores, units), np.random.default_rng(0))

    tasks: dict[str, Callable[[], Any]] = {backend: partial(scar_values, game) for backend, game in games.items()}
    tasks[PEER] = lambda: [shap_values(reward_model, rollout, units, row) for row in range(work.responses)]
    shap_values(reward_model, rollout, units, 0, max_evals=4)  # compiles shap's numba code
    best: dict[str, float] = {}
    results: dict[str, Any] = {}
    for _ in range(1 if coalition_count(units.hierarchies[0]) > ONCE_ABOVE else repetitions):
        for name, task in tasks.items():
            seconds, results[name] = timed(task)
            best[name] = min(seconds, best.get(name, np.inf))
    for backend in backends:
        estimates = results[backend]
        differences = [
            np.abs(estimate.values - peer).max() for estimate, peer in zip(estimates, results[PEER], strict=True)
        ]
        yield Row(
            f"{work.name}, {work.size} model, {backend}",
            best[backend],
            PEER,
            best[PEER],
            best[PEER] / best[backend],
            float(max(differences)),
            sum(estimate.queries for estimate in estimates),
        )


def _scorer(reward_model: SequenceRewardModel, backend: str) -> Any:
    return make_scorer(
        reward_model, backend=backend, dtype="float32", memory_mib=MEMORY_MIB, device=torch.device("cpu")
    )[0]


def shap_values(
    reward_model: SequenceRewardModel, rollout: Rollout, units: Units, row: int, *, max_evals: int = NO_LIMIT
) -> np.ndarray:
    """f64[n]: shap's values of one response, with the model called directly on whole sequences."""
    model, full = reward_model.model, rollout.sequence_ids()[row]
    unit = torch.nn.functional.pad(units.unit_index[row], (len(full) - units.unit_index.shape[1], 0), value=-1)

    @torch.no_grad()
    def evaluate(masks: np.ndarray) -> np.ndarray:
        absent = ~torch.from_numpy(masks)[:, unit.clamp(min=0)] & (unit >= 0)
        ids = torch.where(absent, SPACE_ID, full)
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
        return reward_model.read(hidden).double().numpy()

    return partition_values(evaluate, units.hierarchies[row], max_evals=max_evals, batch_size=10)


def run(*, quick: bool, cache: Path, advance: Advance) -> list[Row]:
    """All rows; `advance(done, total, last ratio)` is called after each workload. Needs no model of `cache`."""
    works = QUICK if quick else FULL
    rows: list[Row] = []
    for done, work in enumerate(works, start=1):
        backends = ("fused", "generic") if work.name.startswith("tldr span") else ("fused",)
        rows += compare(work, backends=backends, repetitions=2 if quick else 3)
        advance(done, len(works) + 1, {"ratio": rows[-1].ratio})
    rows.append(update_row(responses=2 if quick else 4))
    advance(len(works) + 1, len(works) + 1, {"ratio": rows[-1].ratio})
    return rows
