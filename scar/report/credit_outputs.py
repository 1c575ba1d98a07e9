"""The files that show a credit record, as bytes by name."""

from __future__ import annotations

import warnings
from pathlib import Path

from scar.report.credit_figure import figure1
from scar.report.credit_page import credit_page
from scar.report.credit_stats import VALENCE_TASKS, credit_stats, vader_lexicon
from scar.report.credit_tables import stats_csv, stats_figure, stats_markdown
from scar.report.outputs import write_files
from scar.report.style import image_files
from scar.tracking.credit_records import CreditRecord

LEAST_RESPONSES = 10
"""Responses from which on a record is measured (ours): fewer say nothing about methods."""


def credit_files(record: CreditRecord, *, item: int | None = None) -> dict[str, bytes]:
    """The page; Figure 1 of `item` (a place in the record), or of a record's only response; and the measurements of many.

    Raises ValueError for an item that is not there.
    """
    files = {"credit.html": credit_page(record)}
    if item is not None or len(record.rows) == 1:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it; the page has it
            files |= image_files("figure1", figure1(record, item=item or 0))
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
