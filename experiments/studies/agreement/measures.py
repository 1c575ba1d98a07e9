"""How close splits of a score are to Shapley values, and what the games behind them are like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.studies.agreement.splits import (
    IN_GAME,
    PREFIX,
    Reference,
    Split,
    Texts,
    all_splits,
    exact_reference,
    prefix_rows,
    sampled_reference,
)
from scar.credit.game import BatchGame
from scar.credit.plans import exact_plan
from scar.seeding import numpy_generator
from scar.types import CoalitionRows, Units

LEAST_UNITS = 4
"""Two units correlate with 1 or -1 whatever they are."""
GAE_LAMBDA = 0.95
"""As conf/config.yaml has it."""
BLANKS = 8


@dataclass(frozen=True)
class Row:
    """One method against Shapley values at one level, on `responses` of two units or more, of which `correlated` have four."""

    units: str
    tokens: int
    method: str
    queries: float | None
    pearson: float
    pearson_sd: float
    spearman: float
    spearman_sd: float
    error: float
    same_sign: float
    last_quarter: float
    gae_pearson: float | None
    responses: int
    correlated: int
    reference: str


@dataclass(frozen=True)
class GameRow:
    """The games of one length and level."""

    units: str
    tokens: int
    additive_r2: float
    additive_r2_sd: float
    prefix_to_game: float | None
    blank_effect: float | None
    prefix_lag1: float | None
    shapley_lag1: float | None
    suffix_effect: float | None
    half_suffix_effect: float | None
    suffix_flips_sign: float | None


def measure(texts: Texts, spans: Units, tokens: Units, *, permutations: int) -> tuple[list[Row], list[GameRow]]:
    """All rows of responses of one length, against exact values of spans and sampled ones of tokens."""
    length = tokens.unit_index.shape[1]
    splits = all_splits(texts, spans, tokens, full_owen=length <= 32)
    reference = sampled_reference(texts.game(tokens), permutations)
    rows = [
        *compare("span", spans, splits, exact_reference(texts.game(spans))),
        *compare("token", tokens, splits, reference),
    ]
    span_r2, token_r2 = additive_r2(texts.game(spans), exact=True), additive_r2(texts.game(tokens), exact=False)
    credit, in_game = splits[PREFIX].of_units(tokens), splits[IN_GAME].of_units(tokens)
    shapley_size = np.abs(np.concatenate([values for values in reference.values if values is not None])).mean()
    compared = (
        float(
            np.mean(
                [correlation(values, in_game_values) for values, in_game_values in zip(credit, in_game, strict=True)]
            )
        ),
        float(blank_changes(texts).mean() / shapley_size),
        float(np.mean([lag1(values) for values in credit])),
        float(np.mean([lag1(values) for values in reference.values if values is not None])),
    )
    return rows, [
        GameRow("span", length, float(span_r2.mean()), float(span_r2.std()), *[None] * 7),
        GameRow(
            "token", length, float(token_r2.mean()), float(token_r2.std()), *compared, *suffix_effects(texts, tokens)
        ),
    ]


def compare(level: str, units: Units, splits: dict[str, Split], reference: Reference) -> Iterator[Row]:
    """One row per method; the first shows Shapley values themselves, or how well half of their permutations know the rest."""
    halves = reference.halves
    own = [np.zeros(0) if value is None else value for value in halves[0]]
    title = "shapley" if reference.method == "exact" else "shapley, one half of the permutations against the other"
    yield _row(level, units, title, None, own, halves[1], reference.method)
    for name, split in splits.items():
        yield _row(level, units, name, split.queries, split.of_units(units), reference.values, reference.method)


def _row(
    level: str,
    units: Units,
    name: str,
    queries: float | None,
    credits: Sequence[np.ndarray],
    truth: Sequence[np.ndarray | None],
    reference: str,
) -> Row:
    index = units.unit_index.numpy()
    pairs = [(values, phi, row) for values, phi, row in zip(credits, truth, index, strict=True) if phi is not None]
    large = [(values, phi) for values, phi, _ in pairs if len(phi) >= LEAST_UNITS]
    pearson = [correlation(values, phi) for values, phi in large]
    in_gae = [correlation(gae_sums(values), gae_sums(phi)) for values, phi in large] if level == "token" else None
    spearman = [correlation(ranks(values), ranks(phi)) for values, phi in large]
    credit, phi = np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
    return Row(
        units=level,
        tokens=index.shape[1],
        method=name,
        queries=queries,
        pearson=float(np.mean(pearson)),
        pearson_sd=float(np.std(pearson)),
        spearman=float(np.mean(spearman)),
        spearman_sd=float(np.std(spearman)),
        error=float(np.abs(credit - phi).mean() / np.abs(phi).mean()),
        same_sign=float((np.sign(credit) == np.sign(phi)).mean()),
        last_quarter=float(np.mean([last_quarter(values, row) for values, _, row in pairs])),
        gae_pearson=None if in_gae is None else float(np.mean(in_gae)),
        responses=len(pairs),
        correlated=len(large),
        reference=reference,
    )


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation; 0 where either is constant (it tells no unit from another)."""
    if np.ptp(first) < 1e-9 or np.ptp(second) < 1e-9:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def gae_sums(credit: np.ndarray) -> np.ndarray:
    """f64[T]: sums of credit, less its mean, over what follows with weights lambda^k: GAE's way, without a value function."""
    centred = credit - credit.mean()
    ahead = np.arange(len(credit)) - np.arange(len(credit))[:, None]
    return np.where(ahead >= 0, GAE_LAMBDA ** np.maximum(ahead, 0), 0.0) @ centred


def lag1(values: np.ndarray) -> float:
    """Correlation of each value with the next: about -1/2 for differences of a noise that has nothing to do with time."""
    return correlation(values[:-1], values[1:])


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values (to 9 decimals) sharing theirs."""
    return pd.Series(np.round(values, 9)).rank().to_numpy()


def last_quarter(credit: np.ndarray, unit_index: np.ndarray) -> float:
    """Share of all |credit| on the last quarter of the tokens; a unit's is spread evenly over its tokens."""
    index = unit_index[unit_index >= 0]
    per_token = (np.abs(credit) / np.bincount(index, minlength=len(credit)))[index]
    return float(per_token[-(-3 * len(index) // 4) :].sum() / per_token.sum())


def additive_r2(game: BatchGame, *, exact: bool, coalitions_a_unit: int = 20) -> np.ndarray:
    """f64[B']: the share of the variance of v that the best additive model explains, of games of at least four units.

    Over all coalitions, or (adjusted for the number of parameters) over random ones that hold each unit with chance 1/2.
    """
    rng = numpy_generator(0, "agreement coalitions")
    masks = [
        None
        if count < LEAST_UNITS
        else exact_plan(count).coalitions
        if exact
        else rng.random((coalitions_a_unit * count, count)) < 0.5
        for count in game.counts
    ]
    values = game.evaluate(masks)
    return np.array([_r2(m, v, exact) for m, v in zip(masks, values, strict=True) if m is not None and v is not None])


def _r2(masks: np.ndarray, v: np.ndarray, exact: bool) -> float:
    design = np.column_stack([np.ones(len(masks)), masks])
    fitted = design @ np.linalg.lstsq(design, v, rcond=None)[0]
    left = ((v - fitted) ** 2).sum() / ((v - v.mean()) ** 2).sum()
    adjustment = 1.0 if exact else (len(v) - 1) / (len(v) - design.shape[1])
    return float(1 - left * adjustment)


def blank_changes(texts: Texts) -> np.ndarray:
    """f64[B,BLANKS]: |change of the score| by one blank more behind the whole response, which says nothing."""
    batch = []
    for rows in prefix_rows(texts, blanks=BLANKS):
        count = rows.ids.shape[1] - BLANKS
        ids = np.repeat(rows.ids[-1:], BLANKS + 1, axis=0)
        batch.append(CoalitionRows(rows.prompt_ids, ids, count + np.arange(BLANKS + 1)))
    return np.abs(np.stack([np.diff(v) for v in texts.scorer.score(batch)]))


def suffix_effects(texts: Texts, tokens: Units) -> tuple[float, float, float]:
    """What the text behind a token does to what the token adds to the text before it, in the game.

    Mean |change| / mean |added without a suffix| for the whole suffix and for a random half of it; the share of tokens
    whose sign the whole suffix changes. The last token has no suffix and does not count.
    """
    rng = numpy_generator(0, "agreement suffixes")
    counts = [count for count in tokens.count.tolist()]
    values = texts.game(tokens).evaluate([_suffix_masks(count, rng) for count in counts])
    added = [
        np.diff(v.reshape(3, count - 1, 2))[..., 0] for v, count in zip(values, counts, strict=True) if v is not None
    ]
    none, half, whole = np.concatenate(added, axis=1)
    size = np.abs(none).mean()
    flips = float((np.sign(none) != np.sign(whole)).mean())
    return float(np.abs(whole - none).mean() / size), float(np.abs(half - none).mean() / size), flips


def _suffix_masks(count: int, rng: np.random.Generator) -> np.ndarray:
    """b[3*(n-1)*2,n]: for no, half and the whole suffix, for each token but the last: without and with the token."""
    position, token = np.arange(count), np.arange(count - 1)[:, None]
    suffixes = [
        np.zeros((count - 1, count), dtype=bool),
        rng.random((count - 1, count)) < 0.5,
        np.ones((1, count), bool),
    ]
    rows = [((position < token) | ((position > token) & suffix)) for suffix in suffixes]
    return np.stack([np.stack([row, row | (position == token)], 1) for row in rows]).reshape(-1, count)
