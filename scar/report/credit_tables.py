"""The measurements of a credit record as tables and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scar.report.credit import credit_name, notes
from scar.report.credit_stats import BINS, CONFIDENCE, LEAST_RATED, Interval
from scar.report.style import COLOURS, UNIT_DASHES, fonts, legend_below, new_figure, set_caption, style_axes
from scar.report.tables import TASK_NAMES, comparability, markdown_table
from scar.tracking.credit_records import CreditRecord

Rows = Sequence[Mapping[str, Any]]

_ENDS = f"""\
Shares of |credit| and of units (of content tokens for methods without units): means over responses, in brackets \
{CONFIDENCE:.0%} bootstrap intervals over responses."""
_PLACES = """\
Mean share of |credit| in each tenth of the tokens, EOS included (in brackets credit with its sign, over the same sum)."""
_SENSE = f"""\
Spearman's rank correlation of a word's credit, as PPO gets it (a unit's at its last word), with people's rating of the \
word alone (VADER lexicon; words that are not in it do not count), and mean credit of words rated above and below 0. Within \
responses: those with {LEAST_RATED} rated words or more whose credit differs. Over all words a method gains from the sign \
of whole responses alone: uniform shows how much."""


def stats_csv(rows: Rows) -> str:
    """The rows of `credit_stats` as CSV text, unrounded: `mass_1` to `mass_10`, and of each interval its value, `_low` and
    `_high`."""
    flat = []
    for row in rows:
        line: dict[str, Any] = {}
        for key, value in row.items():
            if key in ("mass", "signed"):
                line |= {f"{key}_{place + 1}": share for place, share in enumerate(value)}
            elif isinstance(value, tuple):
                line |= dict(zip((key, f"{key}_low", f"{key}_high"), value, strict=True))
            else:
                line[key] = value
        flat.append(line)
    return pd.DataFrame(flat).to_csv(index=False)


def stats_markdown(record: CreditRecord, rows: Rows) -> str:
    """Tables of the rows of `credit_stats`, with what they rest on."""
    tenths = [f"{10 * place}-{10 * place + 10} %" for place in range(BINS)]
    ends = [["method", "n", "last content token", "EOS (n)", "negative units"]]
    places = [["method", *tenths]]
    sense = [["method", "rated words", "rho, all words", "rho within responses (n)", "words rated +", "words rated -"]]
    for row in rows:
        name = credit_name(row["method"])
        eos = f"{_shown(row['eos'])} ({row['finished']})"
        ends.append([name, str(row["responses"]), _shown(row["last_content"]), eos, _shown(row["negative"])])
        pairs = zip(row["mass"], row["signed"], strict=True)
        places.append([name, *[f"{mass:.2f} ({signed:+z.2f})" for mass, signed in pairs]])
        if "rho" in row:
            within = f"{_shown(row['rho_response'])} ({row['rated_responses']})"
            means = [_shown(row["positive"]), _shown(row["negative_words"])]
            sense.append([name, str(row["words"]), _shown(row["rho"]), within, *means])
    bullets = "\n".join(f"- {note}" for note in notes(record, [row["method"] for row in rows]))
    parts = [
        f"# Where credit goes: {len(record.rows)} responses\n\n{bullets}",
        f"## To the end, and below zero\n\n{_ENDS}\n\n{markdown_table(ends[0], ends[1:])}",
        f"## By place in the response\n\n{_PLACES}\n\n{markdown_table(places[0], places[1:])}",
    ]
    if len(sense) > 1:
        parts.append(f"## By the sense of words\n\n{_SENSE}\n\n{markdown_table(sense[0], sense[1:])}")
    return "\n\n".join(parts) + "\n"


def _shown(value: Interval | None) -> str:
    return "-" if value is None else f"{value[0]:z.2f} [{value[1]:z.2f}, {value[2]:z.2f}]"


def stats_figure(record: CreditRecord, rows: Rows) -> Figure:
    """|credit| and signed credit by place in the response, a line a method, and, where words are rated, how credit goes with
    their ratings (all words together), with intervals."""
    with fonts():
        return _figure(record, rows, [row for row in rows if row.get("rho") is not None])


def _figure(record: CreditRecord, rows: Rows, rated: Rows) -> Figure:
    figure = new_figure(4.9 if rated else 3.0)
    grid = figure.add_gridspec(2 if rated else 1, 2, height_ratios=[1.15, 1] if rated else None)
    places = [figure.add_subplot(grid[0, column]) for column in (0, 1)]
    _draw_places(places[0], rows, "mass", "share of |credit|")
    _draw_places(places[1], rows, "signed", "signed credit / sum of |credit|")
    places[1].axhline(0, color="black", linewidth=0.6)
    if rated:
        _draw_correlations(figure.add_subplot(grid[1, :]), rated)
    scale, task = record.manifest["scale"], record.manifest["task"]
    note = "" if scale == "paper" else f"; {comparability(scale)}"
    what = f"Where credit goes, {TASK_NAMES.get(task, task)}, scale {scale}: mean of {len(record.rows)} responses{note}"
    set_caption(figure, [what])
    handles, names = places[0].get_legend_handles_labels()
    legend_below(figure, handles, names)
    return figure


def _style(label: str) -> dict[str, Any]:
    method, _, units = label.partition(":")
    dashes = UNIT_DASHES[units] if units else (0, (4, 2)) if method == "prefix" else "-"
    return {"color": COLOURS.get(method, "black"), "linestyle": dashes}


def _draw_places(axes: Axes, rows: Rows, key: str, name: str) -> None:
    middles = (np.arange(BINS) + 0.5) * 100 / BINS
    for row in rows:
        style = _style(row["method"]) | {"marker": "o", "markersize": 2, "linewidth": 1.1}
        axes.plot(middles, row[key], label=credit_name(row["method"]), **style)
    axes.set_xlabel("place in the response, %")
    axes.set_title(name)
    style_axes(axes)
    axes.set_xlim(0, 100)


def _draw_correlations(axes: Axes, rows: Rows) -> None:
    for place, row in enumerate(rows):
        value, low, high = row["rho"]
        axes.barh(place, value, color=_style(row["method"])["color"], height=0.7)
        axes.plot([low, high], [place, place], color="black", linewidth=1.2)
    names = [credit_name(row["method"]).removesuffix(" (not in the paper)") for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel(
        f"Spearman's rho of credit and people's ratings, {rows[0]['words']} words, {CONFIDENCE:.0%} intervals"
    )
    style_axes(axes)
