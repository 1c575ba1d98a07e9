"""Credit records with hand-picked numbers, in the schema of scar.commands.credit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scar.tracking.credit_records import CREDIT_VERSION, CreditRecord

SETTINGS: dict[str, dict[str, Any]] = {
    name: {"method": {"name": name}, "units": None, "parser": None, "estimator": None, "coalitions": None}
    for name in ("sparse", "uniform", "abc", "red")
}
"""In the form of scar/identity.py."""


def scar_settings(estimator: str) -> dict[str, Any]:
    method = {"name": "scar", "fill": "space", "empty": "uniform"}
    return {"method": method, "estimator": {"name": estimator}}


SETTINGS |= {"scar:token": scar_settings("permutation"), "scar:span": scar_settings("owen")}


def plain(credit: Sequence[float]) -> dict[str, Any]:
    """A method without units."""
    return {"per_token": list(credit), "sum": sum(credit), "queries": 0, "diagnostics": {}}


def on_units(
    pieces: Sequence[str],
    ends: Sequence[int],
    values: Sequence[float],
    hierarchy: Sequence[Sequence[int]],
    *,
    trees: Any = None,
) -> dict[str, Any]:
    """A method whose units end before the tokens `ends`, each with its value at its last token."""
    credit = [0.0] * len(pieces)
    units = []
    for start, end, value in zip([0, *ends], ends, values, strict=False):
        credit[end - 1] = value
        units.append({"start": start, "end": end, "text": "".join(pieces[start:end]), "value": value})
    return plain(credit) | {"units": units, "hierarchy": [list(pair) for pair in hierarchy], "trees": trees}


def row_of(
    pieces: Sequence[str],
    methods: Mapping[str, Any],
    *,
    number: int = 0,
    prompt: str = "The film",
    finished: bool = True,
) -> dict[str, Any]:
    """A row whose response is `pieces`; the last of them is EOS, of no characters, if `finished`."""
    reward = next(iter(methods.values()))["sum"]
    tokens, end = [], 0
    for piece in pieces:
        tokens.append({"text": piece, "start": end, "end": end + len(piece)})
        end += len(piece)
    row = {"number": number, "prompt": prompt, "reward_prompt": None, "response": "".join(pieces), "finished": finished}
    return row | {"reward": reward, "credited": reward, "tokens": tokens, "methods": dict(methods)}


def write_record(folder: Path, rows: Sequence[Mapping[str, Any]], **manifest: Any) -> CreditRecord:
    folder.mkdir(parents=True)
    body: dict[str, Any] = {
        "credit_version": CREDIT_VERSION,
        "scale": "local",
        "task": "imdb",
        "source": {"kind": "sft"},
        "methods": {label: SETTINGS.get(label) for label in rows[0]["methods"]},
        "models": {"policy": {"fingerprint": "a1"}, "reward": {"fingerprint": "b2", "report": {}}},
        "commit": "c0ffee",
        "dirty": False,
        "finished": "2025-01-01T00:00:00+00:00",
        "responses": len(rows),
    }
    (folder / "manifest.json").write_text(json.dumps(body | manifest), encoding="utf-8")
    (folder / "credit.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return CreditRecord(folder)


PIECES = (" a", " great", "ly", " sad", ",", " film", "")
"""Words: a, greatly, sad, film (with the comma at sad), EOS."""


def example_row(**options: Any) -> dict[str, Any]:
    """Four methods that all sum to 2."""
    tree = ["S", ["NP", ["DT", "a"], ["RB", "greatly"]], ["VP", ["JJ", "sad"], [",", ","], ["NN", "film"]]]
    methods = {
        "sparse": plain([0, 0, 0, 0, 0, 0, 2.0]),
        "abc": plain([0.1, 0.4, 0.5, 0.2, 0.3, 0.5, 0.0]),
        "scar:token": on_units(
            PIECES, [1, 2, 3, 4, 5, 6], [0.25, 1.5, 1.0, -1.25, 0.0, 0.5], [[1, 2], [3, 4], [0, 6], [8, 7], [9, 5]]
        ),
        "scar:span": on_units(PIECES, [3, 6], [2.5, -0.5], [[0, 1]], trees=[tree]),
    }
    return row_of(PIECES, methods, **options)
