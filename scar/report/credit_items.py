"""Figure 1 and the measurements of credit, among the items of a report."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scar.report.claims import Verdict
from scar.report.credit import VALENCE_TASKS, Interval, credit_name, credit_stats, vader_lexicon
from scar.report.credit_figures import figure1, printed_markdown, stats_csv, stats_figure, stats_markdown
from scar.report.credit_page import credit_page
from scar.report.files import Files, as_json, write_files
from scar.report.selection import NoRunError, Sources
from scar.report.style import image_files, in_order, task_name, tasks_in_order
from scar.tracking.credit_records import CreditRecord, find_credit


def credit_records(sources: Sources, kind: str) -> list[CreditRecord]:
    """The credit records of one kind of texts: of each task the newest, as records of other methods or settings may lie
    beside it. Raises NoRunError if there is none."""
    by_task = {record.manifest["task"]: record for record in _all_records(sources, kind)}
    return [by_task[task] for task in tasks_in_order(by_task)]


def _all_records(sources: Sources, kind: str) -> list[CreditRecord]:
    """The credit records of one kind of texts, the newest last. Raises NoRunError if there is none."""
    wanted: dict[str, Any] = {"scale": sources.scale}
    wanted |= {"task": list(sources.tasks)} if sources.tasks else {}
    wanted |= {"model_seed": sources.model_seed} if sources.model_seed is not None else {}
    records = [record for record in find_credit(sources.credit, **wanted) if record.manifest["source"]["kind"] == kind]
    if not records:
        raise NoRunError(
            f"no credit record in {sources.credit} of scale={sources.scale}; make reproduce-fig1 makes them"
        )
    return sorted(records, key=lambda record: record.manifest["finished"])


def figure1_files(sources: Sources) -> Files:
    """Figure 1, from the record of the text that was typed, or of the paper's example; and of the paper's example, at its
    scale, every record beside the numbers that it prints."""
    record = credit_records(sources, "text")[0]
    files = {name: content for name, content in credit_files(record).items() if name.startswith("figure1")}
    if printed := printed_markdown(_all_records(sources, "text")):
        files["figure1.md"] = printed.encode()
    return files | {"figure1.json": _origin(record)}


def measured_files(sources: Sources) -> Files:
    """Where credit goes, for every task whose SFT responses were credited."""
    files: Files = {}
    for record in credit_records(sources, "sft"):
        name = f"credit_{record.manifest['task']}"
        own = credit_files(record)
        files |= {key.replace("credit_stats", name): own[key] for key in own if key.startswith("credit_stats")}
        files[f"{name}.json"] = _origin(record)
    return files


def _origin(record: CreditRecord) -> bytes:
    keys = ("scale", "task", "source", "fingerprint", "commit", "dirty", "responses")
    return as_json({"path": record.path.as_posix()} | {key: record.manifest[key] for key in keys})


def credit_verdicts(sources: Sources) -> list[Verdict]:
    """What the paper says of credit itself (4.2, Figure 1), and which method credits the words that people rate. Empty without
    records."""
    try:
        records = credit_records(sources, "sft")
    except NoRunError:
        return []
    verdicts = []
    for record in records:
        task = record.manifest["task"]
        lexicon = vader_lexicon() if task in VALENCE_TASKS else None
        rows = {row["method"]: row for row in credit_stats(record, lexicon=lexicon)}
        scar = next((row for name, row in rows.items() if name.startswith("scar:")), None)
        if scar is not None:
            verdicts += _of_task(task_name(task), len(record.rows), rows, scar)
    return verdicts


def _of_task(task: str, n: int, rows: dict[str, dict[str, Any]], scar: dict[str, Any]) -> list[Verdict]:
    def shown(value: Interval) -> str:
        return f"{value[0]:z.2f} [{value[1]:z.2f}, {value[2]:z.2f}]"

    def above(claim: str, higher: Interval | None, lower: Interval | None, of: str) -> Verdict:
        if higher is None or lower is None:
            return Verdict(claim, "Figure 1", "cannot be said", "")
        word = "yes" if higher[1] > lower[2] else "no" if higher[2] < lower[1] else "not shown"
        return Verdict(claim, "Figure 1", word, f"{of} {shown(higher)} against {shown(lower)}, {n} responses")

    units = f"SCAR ({scar['method'].partition(':')[2]} units)"
    verdicts = []
    negative = scar["negative"]
    if negative is not None:
        word = "yes" if negative[1] > 0 else "no"
        claim = f"{units} gives negative credit on {task}"
        verdicts.append(Verdict(claim, "Figure 1", word, f"share of units {shown(negative)}, {n} responses"))
    if "abc" in rows:
        claim = f"ABC puts more on the last content token than {units} on {task}"
        verdicts.append(above(claim, rows["abc"]["last_content"], scar["last_content"], "share of |credit|"))
    others = in_order(name for name in rows if ":" not in name and name != "sparse")  # sparse credits no word
    for other in (name for name in others if "rho" in rows[name]):
        claim = f"{units} agrees better than {credit_name(other)} with people's ratings of words on {task}"
        verdict = above(claim, scar["rho"], rows[other]["rho"], f"rank correlation over {scar['words']} words")
        verdicts.append(Verdict(verdict.claim, "not in the paper", verdict.verdict, verdict.evidence))
    return verdicts


CREDIT_ITEMS: dict[str, tuple[str, Callable[[Sources], Files]]] = {
    "figure1": ("Figure 1: one response, word by word", figure1_files),
    "credit": ("Where credit goes, over many responses", measured_files),
}
"""Title and files by target."""


# The files that show a credit record, as bytes by name.


LEAST_RESPONSES = 10
"""Responses from which on a record is measured (chosen by us): fewer say nothing about methods."""


def credit_files(record: CreditRecord, *, item: int | None = None) -> dict[str, bytes]:
    """The page; Figure 1 of `item` (a place in the record), or of a record's only response; and the measurements of many.

    Raises ValueError for an item that is not there.
    """
    files = {"credit.html": credit_page(record)}
    if item is not None or len(record.rows) == 1:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it; the page has it
            files |= image_files("figure1", figure1(record, item=item or 0))
        if printed := printed_markdown([record]):
            files["figure1.md"] = printed.encode()
    if len(record.rows) >= LEAST_RESPONSES:
        lexicon = vader_lexicon() if record.manifest["task"] in VALENCE_TASKS else None
        rows = credit_stats(record, lexicon=lexicon)
        files["credit_stats.md"] = stats_markdown(record, rows).encode()
        files["credit_stats.csv"] = stats_csv(rows).encode()
        files |= image_files("credit_stats", stats_figure(record, rows))
    return files


def write_credit(record: CreditRecord, results: Path, *, item: int | None = None) -> list[Path]:
    """Write `credit_files` into `<results>/<scale>/credit/<task>-<name of the record>`; return their paths."""
    folder = results / record.manifest["scale"] / "credit" / f"{record.manifest['task']}-{record.path.name}"
    return write_files(folder, credit_files(record, item=item))
