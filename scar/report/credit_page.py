"""A credit record as one HTML page that needs nothing else: no network, no server, no model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from scar.report.credit import READ_HIERARCHY, credit_name, estimator_of, notes, pieces_of, words_of
from scar.report.style import task_name
from scar.report.writing import render
from scar.tracking.credit_records import CreditRecord


def credit_page(record: CreditRecord) -> bytes:
    """The page: all responses of the record, all methods side by side, UTF-8. Texts are data on it, never HTML."""
    manifest = record.manifest
    return render(
        "credit.html",
        title=f"Credit token by token: {task_name(manifest['task'])}, scale {manifest['scale']}",
        data=script_json(page_data(record)),
    )


def script_json(value: Any) -> str:
    """JSON in ASCII without <, > and &, which is inert inside a script element whatever the texts hold."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page_data(record: CreditRecord) -> dict[str, Any]:
    """What the page draws: `about`, `notes`, `methods` (label and name, in order) and `samples`."""
    labels = list(record.manifest["methods"])
    return {
        "about": _about(record),
        "notes": _notes(record, labels),
        "methods": [{"label": label, "name": credit_name(label)} for label in labels],
        "samples": [_sample(row) for row in record.rows],
    }


def _sample(row: Mapping[str, Any]) -> dict[str, Any]:
    tokens = [(index, index + 1) for index in range(len(row["tokens"]))]
    words = words_of(row)
    sample = {key: row[key] for key in ("number", "prompt", "finished", "reward", "credited")}
    sample |= {"tokens": [token["text"] for token in row["tokens"]], "words": words, "methods": {}}
    for label, method in row["methods"].items():
        values = {"credit": method["per_token"], "sum": method["sum"]}
        values["pieces"] = {"tokens": pieces_of(tokens, method), "words": pieces_of(words, method)}
        if "units" in method:
            values["units"] = [(unit["start"], unit["end"], unit["value"]) for unit in method["units"]]
            values |= {"hierarchy": method["hierarchy"], "trees": method["trees"]}
        sample["methods"][label] = values
    return sample


def _about(record: CreditRecord) -> str:
    source, count = record.manifest["source"], len(record.rows)
    responses = "one response" if count == 1 else f"{count} responses"
    where = {
        "text": "a text that was typed",
        "run": f"of the policy that {source.get('method')} trained (seed {source.get('seed')}), on test prompts",
        "sft": "of the SFT policy, on test prompts",
    }[source["kind"]]
    return f"{responses}: {where}" if source["kind"] == "text" else f"{responses} {where}"


def _notes(record: CreditRecord, labels: list[str]) -> list[str]:
    manifest = record.manifest
    sentences = [
        "Credit is the raw reward split over the tokens, not mixed with a reward at the end (alpha = 1); each row sums to it, "
        "less what a setting of SCAR leaves out (empty=drop, one_unit=none).",
        *notes(record, labels),
    ]
    estimators = {label: estimator_of(manifest["methods"][label]) for label in labels}
    if idle := [credit_name(label) for label, name in estimators.items() if name and name not in READ_HIERARCHY]:
        sentences.append(f"The trees over units are not read by the estimator of {'; '.join(idle)}.")
    changed = {
        kind: sum(
            method["diagnostics"].get(f"scar/{kind}_frac", 0) > 0
            for row in record.rows
            for method in row["methods"].values()
        )
        for kind in ("rebalanced", "coarsened")
    }
    sentences += [
        f"The tree of {n} units' games was {kind} to fit the estimator's budget." for kind, n in changed.items() if n
    ]
    state = " with changes" if manifest["dirty"] else ""
    sentences.append(f"Computed {manifest['finished']}, commit {manifest['commit']}{state}, record {record.path.name}.")
    return sentences
