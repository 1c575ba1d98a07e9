"""Credit records as they are shown: names, words, the pieces that carry one number each, and their colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scar.report.tables import TASK_NAMES, comparability, method_name
from scar.tracking.credit_records import CreditRecord

POSITIVE, NEGATIVE = "#0072B2", "#D55E00"
"""Blue adds, vermilion takes away: Okabe and Ito's, told apart with any colour vision."""
EOS = "<EOS>"
ESTIMATORS = {
    "owen": "Owen values",
    "shap": "Owen values (shap package)",
    "exact": "exact Shapley values",
    "permutation": "sampled Shapley values",
    "sequential": "one order, left to right",
}
READ_HIERARCHY = ("owen", "shap")
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
    """The name shown for a method of a record: `scar:span` is "SCAR, span units"."""
    method, _, units = label.partition(":")
    return f"{method_name(method)}, {units} units" if units else method_name(method)


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
    for place, text in enumerate(texts[:content]):
        if not text:
            waiting = place if waiting is None else waiting
            continue
        if text.strip() and (apart or text[0].isspace()):
            starts.append(place if waiting is None else waiting)
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
    found = [
        f"{TASK_NAMES.get(manifest['task'], manifest['task'])} at scale {manifest['scale']}, reward model {name}{scale}."
    ]
    ways: dict[str, list[str]] = {}
    for label in labels:
        settings = manifest["methods"][label]
        if estimator := estimator_of(settings):
            build = settings["method"]
            how = ESTIMATORS.get(estimator, estimator)
            way = f"{how}; absent units are {_FILLS[build['fill']]}; {_EMPTIES[build['empty']]}"
            ways.setdefault(way, []).append(label.partition(":")[2])
    return found + [f"SCAR on {', '.join(units)} units: {way}." for way, units in ways.items()]


_FILLS = {"space": "blanked by the space token", "delete": "taken out"}
_EMPTIES = {
    "uniform": "v(empty) is shared out evenly over the units",
    "zero": "v(empty) counts as 0",
    "terminal": "v(empty) goes to the last token",
}
