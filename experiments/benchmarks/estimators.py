"""How far each estimator is from Shapley values, by what it costs: tokens of real responses, the local reward model.

The relative error of a response is |estimate - phi| / |phi - mean(phi)|: giving every token the mean has error 1.
Reference: exact values for 12 tokens, else the mean of many antithetic permutations drawn apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from scar.coalitions.backends import make_scorer
from scar.commands.build import Run, check_settings, setup_process
from scar.commands.settings import prepared
from scar.credit.estimators import Estimator, ExactEstimator, OwenEstimator, PermutationEstimator
from scar.credit.game import BatchGame, TextGame
from scar.credit.shap_oracle import partition_values
from scar.seeding import generator
from scar.segmentation.hierarchies import empty_share
from scar.tracking.trackers import TrackerGroup
from scar.types import UnitValues

CONF = Path(__file__).resolve().parents[2] / "conf"
SHAP_DEFAULT_EVALUATIONS = 500
NO_LIMIT = 10**6
Advance = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Row:
    """One estimator on responses of `units` tokens: mean queries, and mean relative error and correlation with Shapley."""

    units: int
    estimator: str
    queries: float
    relative_error: float
    correlation: float
    responses: int
    reference: str


@dataclass(frozen=True)
class TruncatedShap:
    """shap as it comes: cut off at its default number of evaluations, the rest spread by shap's own rule."""

    name = "shap"
    max_evals: int = SHAP_DEFAULT_EVALUATIONS

    def estimate(self, game: BatchGame, generator: np.random.Generator) -> Sequence[UnitValues | None]:
        """Unit values of every response."""
        return [self._estimate_response(game, number) for number in range(len(game.counts))]

    def _estimate_response(self, game: BatchGame, number: int) -> UnitValues:
        queries = 0

        def evaluate(masks: np.ndarray) -> np.ndarray:
            nonlocal queries
            queries += int((~masks.all(1)).sum())
            values = game.evaluate([masks if row == number else None for row in range(len(game.counts))])[number]
            assert values is not None
            return values

        hierarchy = game.hierarchies[number]
        values = partition_values(evaluate, hierarchy, max_evals=self.max_evals, batch_size=10)
        return UnitValues(values, float("nan"), empty_share(hierarchy), queries)


def estimators(units: int) -> dict[str, Estimator]:
    """What is compared at one number of units."""
    compared: dict[str, Estimator] = {"owen": OwenEstimator(max_coalitions=NO_LIMIT)}
    if units > 12:
        compared["owen, at most 500 coalitions"] = OwenEstimator(max_coalitions=500)
        compared["shap, max_evals=500 (its default)"] = TruncatedShap()
    for count in (2, 4, 8, 12, 20):
        compared[f"{count} permutations"] = PermutationEstimator(count)
    return compared


def run(*, quick: bool, cache: Path, advance: Advance, scale: str = "local") -> list[Row]:
    """All rows; needs the imdb models of `scale` in `cache` (FileNotFoundError says how to make them)."""
    sizes = (12, 24) if quick else (12, 24, 53)
    rows: list[Row] = []
    for done, units in enumerate(sizes, start=1):
        rows += measure(units, responses=4 if quick else 8, cache=cache, scale=scale)
        advance(done, len(sizes), {"units": units})
    return rows


def measure(
    units: int,
    *,
    responses: int,
    cache: Path,
    scale: str = "local",
    compared: dict[str, Estimator] | None = None,
    draws: int = 5,
) -> Iterator[Row]:
    """Rows for responses of `units` tokens, each estimator averaged over `draws` streams."""
    game = sampled_game(units, responses=responses, cache=cache, scale=scale)
    if units <= 12:
        reference, name = ExactEstimator(max_units=12).estimate(game, np.random.default_rng(0)), "exact"
    else:
        permutations = 640
        reference = PermutationEstimator(permutations).estimate(game, np.random.default_rng(0))
        name = f"{permutations} permutations"
    truth = [estimate.values for estimate in reference if estimate is not None]
    for title, estimator in (compared or estimators(units)).items():
        by_draw = [
            [
                estimate
                for estimate in estimator.estimate(game, np.random.default_rng([1, draw]))
                if estimate is not None
            ]
            for draw in range(1 if isinstance(estimator, OwenEstimator) else draws)
        ]
        errors = [
            relative_error(estimate.values, phi)
            for estimates in by_draw
            for estimate, phi in zip(estimates, truth, strict=True)
        ]
        correlations = [
            float(np.corrcoef(estimate.values, phi)[0, 1])
            for estimates in by_draw
            for estimate, phi in zip(estimates, truth, strict=True)
        ]
        queries = float(np.mean([estimate.queries for estimates in by_draw for estimate in estimates]))
        yield Row(units, title, queries, float(np.mean(errors)), float(np.mean(correlations)), responses, name)


def relative_error(estimate: np.ndarray, phi: np.ndarray) -> float:
    """|estimate - phi| / |phi - mean(phi)|."""
    return float(np.linalg.norm(estimate - phi) / np.linalg.norm(phi - phi.mean()))


def sampled_game(units: int, *, responses: int, cache: Path, scale: str) -> BatchGame:
    """The game of responses of exactly `units` tokens, sampled by the SFT policy of `scale`."""
    settings = {
        "scale": scale,
        "tracker": "jsonl",
        "estimator": "permutation",
        "paths.cache": cache,
        "task.generation.min_new_tokens": units,
        "task.generation.max_new_tokens": units,
        **dict.fromkeys(("ppo.batch_size", "ppo.minibatch_size", "ppo.microbatch_size"), responses),
    }
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = prepared(compose("config", [f"{key}={value}" for key, value in settings.items()]))
    device = setup_process(cfg)
    run = Run(cfg, check_settings(cfg), device, TrackerGroup([]))
    trainer = run.trainer
    assert trainer.segmenter is not None
    rollout = trainer.sampler.sample(trainer.prompts.batch(0), generator=generator(cfg.seed, "bench"))
    scores = trainer.scoring.score(rollout)
    scorer, _ = make_scorer(run.reward_model, **cfg.coalitions, device=device)
    return TextGame(scorer, fill="space").batch(scores, trainer.segmenter.segment(rollout))
