"""Credit records as they are shown: names, words, pieces that carry one number each, colours; where credit goes, measured."""

from __future__ import annotations

import re
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from scar.report.statistics import CONFIDENCE
from scar.report.style import METHODS, UNIT_DASHES, comparability, method_name, task_name
from scar.report.tables import paper_results
from scar.tracking.credit_records import CreditRecord

POSITIVE, NEGATIVE = "#0072B2", "#D55E00"
"""Blue adds, vermilion takes away: Okabe and Ito's, told apart with any colour vision."""
EOS = "<EOS>"
ESTIMATORS = {
    "owen": "Owen values",
    "shap": "Owen values (shap package)",
    "partition": "Owen values, cut off as the shap package does",
    "exact": "exact Shapley values",
    "permutation": "sampled Shapley values",
    "sequential": "one order, left to right",
}
READ_HIERARCHY = ("owen", "shap")
PRINTED = " (paper)"
"""Ends the label of what the paper's Figure 1 prints for a method."""
Range = tuple[int, int]
"""Tokens [start, end) of a response."""


def load_credit(folder: Path) -> CreditRecord:
    """The finished credit record in `folder`; ValueError if there is none, or not all of it."""
    record = CreditRecord(folder)
    promised = record.manifest["responses"]
    if len(record.rows) != promised:
        raise ValueError(f"{folder} holds {len(record.rows)} of {promised} responses; delete it and compute it again")
    return record


def credit_name(label: str) -> str:
    """The name shown for a method of a record: `scar:span` is "SCAR, span units", `scar (paper)` "SCAR, as printed"."""
    if label.endswith(PRINTED):
        return f"{method_name(label.removesuffix(PRINTED))}, as printed"
    method, _, units = label.partition(":")
    return f"{method_name(method)}, {units} units" if units else method_name(method)


def labels_in_order(labels: Iterable[str]) -> list[str]:
    """Labels of methods in the order of tables, of one method its units from the smallest to the largest."""
    methods, units = list(METHODS), [*UNIT_DASHES, ""]

    def position(label: str) -> tuple[int, str, int]:
        method, _, of_units = label.partition(":")
        return methods.index(method) if method in methods else len(methods), method, units.index(of_units)

    return sorted(labels, key=position)


def estimator_of(settings: Mapping[str, Any]) -> str | None:
    """The short name of a method's estimator ("owen"), None for a method without one."""
    return settings["estimator"]["name"] if settings["estimator"] else None


def words_of(row: Mapping[str, Any]) -> list[Range]:
    """The tokens of each word of a response, together all tokens; punctuation is part of the word that it touches, EOS is
    a word of its own.

    A token of white space only goes with the word before it; one that completes no character with the token behind it.
    """
    texts = [token["text"] for token in row["tokens"]]
    content = len(texts) - row["finished"]
    starts: list[int] = []
    apart, waiting = True, None  # white space since the last word; the first of the tokens that complete no character
    for index, text in enumerate(texts[:content]):
        if not text:
            waiting = index if waiting is None else waiting
            continue
        if text.strip() and (apart or text[0].isspace()):
            starts.append(index if waiting is None else waiting)
        apart, waiting = text[-1].isspace(), None
    starts = [0, *starts[1:]] if content else []
    return list(zip(starts, [*starts[1:], content], strict=False)) + [(content, len(texts))] * row["finished"]


def pieces_of(columns: Sequence[Range], method: Mapping[str, Any]) -> list[Range]:
    """The token ranges that carry one number each: `columns` (tokens or words), joined where a unit spans several."""
    if not method.get("units"):
        return list(columns)
    ends = {unit["end"] for unit in method["units"]} | {columns[-1][1]}  # EOS is in no unit
    kept = [end for _, end in columns if end in ends]
    return list(zip([0, *kept[:-1]], kept, strict=True))


def text_of(row: Mapping[str, Any], piece: Range) -> str:
    """The text of a token range without the white space around it; EOS has a name."""
    text = "".join(token["text"] for token in row["tokens"][slice(*piece)]).strip()
    return EOS if row["finished"] and piece[0] == len(row["tokens"]) - 1 else text


def credit_of(method: Mapping[str, Any], piece: Range) -> float:
    """The credit of a token range."""
    return float(sum(method["per_token"][slice(*piece)]))


def strength(value: float, largest: float) -> float:
    """How strongly a value is coloured, 0 to 1: the square root of its size over the largest, so that small ones show."""
    return (min(abs(value) / largest, 1.0)) ** 0.5 if largest > 0 else 0.0


def number(value: float) -> str:
    """A credit value as it is shown; 0.00 has no sign."""
    return "0.00" if abs(value) < 0.005 else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def notes(record: CreditRecord, labels: Sequence[str]) -> list[str]:
    """What must be known of these methods of a record beside their numbers, a sentence each."""
    manifest = record.manifest
    reward = manifest["models"]["reward"]
    name = reward.get("name") or f"trained here ({manifest['task']}-reward-{reward['fingerprint']})"
    scale = "" if manifest["scale"] == "paper" else f"; numbers are {comparability(manifest['scale'])}"
    sentences = [f"{task_name(manifest['task'])} at scale {manifest['scale']}, reward model {name}{scale}."]
    ways: dict[str, list[str]] = {}
    for label in labels:
        settings = manifest["methods"].get(label, {"estimator": None})  # a row of the paper has no settings
        if estimator := estimator_of(settings):
            build = settings["method"]
            how = ESTIMATORS.get(estimator, estimator)
            way = f"{how}; absent units are {_FILLS[build['fill']]}; {_EMPTIES[build['empty']]}"
            ways.setdefault(way, []).append(label.partition(":")[2])
    return sentences + [f"SCAR on {', '.join(units)} units: {way}." for way, units in ways.items()]


_FILLS = {
    "space": "blanked by the space token",
    "delete": "taken out",
    "collapse": "one blank a run, and the text is tokenised again",
    "dots": '"..." a run, and the text is tokenised again',
}
_EMPTIES = {
    "uniform": "v(empty) is shared out evenly over the units",
    "zero": "v(empty) counts as 0",
    "terminal": "v(empty) goes to the last token",
    "drop": "v(empty) is paid to nobody",
}


# What the paper prints in its Figure 1.


def printed_words(record: CreditRecord, row: Mapping[str, Any]) -> list[Range]:
    """The tokens of each word of the paper's Figure 1, EOS last. Empty where the numbers printed there say nothing: the
    scale is not the paper's, or the prompt or the response is another one."""
    printed = paper_results()["figure1"]
    example = (printed["prompt"], "".join(printed["words"]), True)
    if record.manifest["scale"] != "paper" or (row["prompt"], row["response"], row["finished"]) != example:
        return []
    complete = [token["end"] for token in row["tokens"][:-1]]
    ends = [bisect_left(complete, end) + 1 for end in accumulate(map(len, printed["words"][:-1]))]
    ends.append(len(row["tokens"]))
    return list(zip([0, *ends[:-1]], ends, strict=True))


def printed_credit(record: CreditRecord, row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the paper prints for the words of `row`, by label, as methods without units: each number on its word's last token."""
    words, credit = printed_words(record, row), {}
    for method in ("abc", "scar") if words else ():
        per_token = [0.0] * len(row["tokens"])
        for (_, end), value in zip(words, paper_results()["figure1"][method], strict=True):
            per_token[end - 1] += value
        credit[method + PRINTED] = {"per_token": per_token, "sum": round(sum(per_token), 6)}
    return credit


# Where credit goes, over many responses: by position, to the end, to negative units, and on imdb to words of good and bad
# sense (people's ratings, the VADER lexicon). All intervals are 95 % bootstrap intervals over responses.


BINS = 10
LEAST_RATED = 3
"""Rated words that a response needs for a correlation of its own (chosen by us)."""
RESAMPLES = 1000
VALENCE_TASKS = ("imdb",)
"""Tasks whose reward is how positive a text is, so that the sense of a word is what its credit may be compared with."""
Interval = tuple[float, float, float]
"""Mean or correlation, and the ends of its interval."""
Rated = tuple[np.ndarray, np.ndarray]
"""Credit and rating of the rated words of one response."""


def vader_lexicon() -> dict[str, float]:
    """People's mean ratings of words, -4 to 4 (Hutto and Gilbert, 2014)."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer().lexicon


def position_shares(credit: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Of one response the |credit| and the signed credit f64[10] of each tenth of it, both over the sum of |credit|; token t
    of T (EOS included) lies at (t + 1/2) / T. None where all credit is 0."""
    values = np.asarray(credit, dtype=np.float64)
    total = np.abs(values).sum()
    if total == 0:
        return None
    tenth = ((np.arange(len(values)) + 0.5) / len(values) * BINS).astype(int)
    return tuple(np.bincount(tenth, weights=w, minlength=BINS) / total for w in (np.abs(values), values))


def rated_words(row: Mapping[str, Any], method: Mapping[str, Any], lexicon: Mapping[str, float]) -> Rated:
    """Credit and rating of the words of a response that are in the lexicon, lower-cased and without outer punctuation."""
    rated = []
    for word in words_of(row):
        rating = lexicon.get(re.sub(r"^\W+|\W+$", "", text_of(row, word).lower()))
        if rating is not None:
            rated.append((credit_of(method, word), rating))
    pairs = np.array(rated, dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def rank_correlation(credit: np.ndarray, ratings: np.ndarray) -> float | None:
    """Spearman's rank correlation; None where one side is constant, so that there is none."""
    if len(credit) < 2 or np.ptp(credit) == 0 or np.ptp(ratings) == 0:
        return None
    return float(np.corrcoef(stats.rankdata(credit), stats.rankdata(ratings))[0, 1])


def _interval(count: int, statistic: Callable[[np.ndarray], np.ndarray]) -> Interval | None:
    """A statistic of responses 0..count-1 with its percentile interval over resampled responses; `statistic` takes indices
    i64[..., count] and gives f64[...], nan where it is not defined. None where it is not on the responses themselves;
    resamples on which it is not are left out."""
    value = float(statistic(np.arange(count))) if count else np.nan
    if np.isnan(value):
        return None
    if count < 2:
        return value, value, value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # of the nans, which are left out below
        resampled = stats.bootstrap(
            (np.arange(count),),
            lambda indices, axis: statistic(indices),
            n_resamples=RESAMPLES,
            method="percentile",
            random_state=np.random.default_rng(0),
        )
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(resampled.bootstrap_distribution, [tail, 100 - tail])
    return value, float(low), float(high)


def _mean(values: Sequence[float]) -> Interval | None:
    array = np.asarray(values, dtype=np.float64)
    return _interval(len(array), lambda indices: array[indices].mean(-1))


def credit_stats(record: CreditRecord, *, lexicon: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """One row per method of the record.

    `responses` (with credit other than 0); `mass` and `signed` f64[10]: mean `position_shares`; means over responses with
    intervals: `last_content` and `eos` (share of |credit| on the last content token; on EOS, of the `finished` responses),
    `negative` (share of units below 0, of content tokens for a method without units). With a `lexicon`: `words` rated,
    `rho` (rank correlation of credit and rating, all rated words together), `rho_response` (mean over the `rated_responses`
    with 3 rated words or more and credit that differs), `positive` and `negative_words` (mean credit of words rated above
    and below 0).
    """
    return [_method_row(record.rows, label, lexicon) for label in record.manifest["methods"]]


def _method_row(rows: Sequence[Mapping[str, Any]], label: str, lexicon: Mapping[str, float] | None) -> dict[str, Any]:
    shares, last, eos, negative = [], [], [], []
    for row in rows:
        method = row["methods"][label]
        credit = np.asarray(method["per_token"])
        share = position_shares(credit)
        content = len(credit) - row["finished"]
        units = [unit["value"] for unit in method["units"]] if "units" in method else credit[:content]
        if len(units):
            negative.append(float((np.asarray(units) < 0).mean()))
        if share is None:
            continue
        shares.append(share)
        total = np.abs(credit).sum()
        if content:
            last.append(abs(credit[content - 1]) / total)
        if row["finished"]:
            eos.append(abs(credit[-1]) / total)
    mass, signed = np.mean(shares, axis=0) if shares else np.full((2, BINS), np.nan)
    numbers: dict[str, Any] = {
        "method": label,
        "responses": len(shares),
        "mass": mass.tolist(),
        "signed": signed.tolist(),
    }
    numbers |= {"last_content": _mean(last), "eos": _mean(eos), "finished": len(eos), "negative": _mean(negative)}
    if lexicon is not None:
        numbers |= _valence([rated_words(row, row["methods"][label], lexicon) for row in rows])
    return numbers


def _valence(rated: Sequence[Rated]) -> dict[str, Any]:
    """How credit goes with ratings, over all words and within responses; only responses with a rated word count."""
    rated = [pair for pair in rated if len(pair[0])]
    own = [rank_correlation(*pair) for pair in rated if len(pair[0]) >= LEAST_RATED]
    defined = [value for value in own if value is not None]

    def correlation(indices: np.ndarray) -> float:
        rho = rank_correlation(*(np.concatenate([rated[index][side] for index in indices]) for side in (0, 1)))
        return np.nan if rho is None else rho

    return {
        "words": sum(len(credit) for credit, _ in rated),
        "rho": _interval(len(rated), lambda indices: np.apply_along_axis(correlation, -1, indices)),
        "rated_responses": len(defined),
        "rho_response": _mean(defined),
        "positive": _mean_credit(rated, 1),
        "negative_words": _mean_credit(rated, -1),
    }


def _mean_credit(rated: Sequence[Rated], sign: int) -> Interval | None:
    """Mean credit of all words rated above (`sign` 1) or below 0 (-1)."""
    chosen = [credit[sign * ratings > 0] for credit, ratings in rated]
    sums, counts = np.array([values.sum() for values in chosen]), np.array([len(values) for values in chosen])

    def mean(indices: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # no such word: nan
            return sums[indices].sum(-1) / counts[indices].sum(-1)

    return _interval(len(rated), mean)
