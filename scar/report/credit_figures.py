"""Figure 1, a row of coloured words for each method, and the figure and tables of a credit record's measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from scar.report.credit import (
    BINS,
    CONFIDENCE,
    LEAST_RATED,
    NEGATIVE,
    POSITIVE,
    PRINTED,
    Interval,
    Range,
    credit_name,
    credit_of,
    labels_in_order,
    notes,
    number,
    pieces_of,
    printed_credit,
    printed_words,
    strength,
    text_of,
    words_of,
)
from scar.report.style import (
    UNIT_DASHES,
    comparability,
    fonts,
    legend_below,
    look_of,
    new_figure,
    set_caption,
    style_axes,
    task_name,
)
from scar.report.tables import paper_results
from scar.report.writing import csv_text, markdown_table
from scar.tracking.credit_records import CreditRecord

NOT_SHOWN = ("uniform", "scar:sentence")
"""Left out of Figure 1: one has the same number everywhere, the other one number for a text of one sentence."""
WIDTH, LABELS = 5.5, 0.78
"""Inches: a paper's column, and of it the names of the methods."""
POINTS, CAPTION_POINTS = 7.5, 7.0
LINE, BOX, ROW_GAP, PAD, GAP = 0.33, 0.29, 0.09, 0.03, 0.035
FRAME = "#404040"
LONGEST_PROMPT = 300
PRINTED_SUM = (
    "SCAR's sum to 9.6 of the 10.0 printed as the reward: as if v(empty) had been dropped, though rounding of 16 numbers "
    "alone may take 0.8 away."
)
DEEPEST = 0.8
"""How much of the full colour the largest credit gets: black text stays readable on it."""


@dataclass(frozen=True)
class Word:
    """A word with its place: `line` from 0, `left` and `width` in inches."""

    tokens: Range
    text: str
    line: int
    left: float
    width: float


def legible(text: str) -> str:
    """The text with a replacement character for each control character, which no font can draw."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def width_of(text: str, points: float) -> float:
    """Inches of a text in the figure's font."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=points), False)[0] / 72 if text else 0.0


def placed(words: Sequence[tuple[Range, str, float]], *, room: float) -> list[Word]:
    """Words (tokens, text, width) side by side, with a new line before each one that is too wide for what is left."""
    row: list[Word] = []
    line, left = 0, 0.0
    for tokens, text, width in words:
        if left > 0 and left + width > room:
            line, left = line + 1, 0.0
        row.append(Word(tokens, text, line, left, width))
        left += width + GAP
    return row


def figure1(record: CreditRecord, *, item: int = 0, methods: Sequence[str] | None = None) -> Figure:
    """The credit of response `item` (its index in the record, from 0) by word, one row per method.

    A number stands under each word; under a unit of several words, which is framed, stands its value, and ticks are the
    borders of units within a word. The paper's own rows stand below those of its example at scale=paper. `methods`: labels
    (default: all but `NOT_SHOWN`). Raises ValueError for what is not there.
    """
    if not 0 <= item < len(record.rows):
        raise ValueError(f"item {item} of {record.path}; allowed: 0 to {len(record.rows) - 1}")
    row = record.rows[item]
    row = row | {"methods": row["methods"] | printed_credit(record, row)}
    shown = [label for label in labels_in_order(row["methods"]) if label not in NOT_SHOWN]
    labels = list(methods or shown or row["methods"])
    if unknown := [label for label in labels if label not in row["methods"]]:
        raise ValueError(f"{record.path} has no {', '.join(unknown)}; it has {', '.join(row['methods'])}")
    rows = {label: _words(row, row["methods"][label]) for label in labels}
    largest = max(
        abs(credit_of(row["methods"][label], piece))
        for label in labels
        for piece in pieces_of(words_of(row), row["methods"][label])
    )
    above = _wrapped(_prompt(row["prompt"]))
    below = _wrapped(_caption(record, row, labels))
    step = 1.35 * CAPTION_POINTS / 72
    heights = {label: (words[-1].line + 1) * LINE + ROW_GAP for label, words in rows.items()}
    height = 0.1 + step * (len(above) + len(below)) + sum(heights.values()) + 0.1
    figure = Figure(figsize=(WIDTH, height), dpi=200)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    top = _write(axes, above, 0.05, step) + 0.07
    for label, words in rows.items():
        _draw_row(axes, row, label, words, top, largest)
        top += heights[label]
    _write(axes, below, top + 0.02, step)
    return figure


def _words(row: Mapping[str, Any], method: Mapping[str, Any]) -> list[Word]:
    """The words of a response, each as wide as its text or, where it has one of its own, its number."""
    alone = set(pieces_of(words_of(row), method))
    sized = []
    for tokens in words_of(row):
        text = legible(text_of(row, tokens))
        under = width_of(number(credit_of(method, tokens)), CAPTION_POINTS) if tokens in alone else 0.0
        sized.append((tokens, text, max(width_of(text, POINTS), under) + 2 * PAD))
    total = "= " + number(method["sum"])
    end = len(row["tokens"])
    return placed([*sized, ((end, end), total, width_of(total, POINTS) + 2 * PAD)], room=WIDTH - LABELS - 0.05)


def _draw_row(axes: Axes, row: Mapping[str, Any], label: str, words: list[Word], top: float, largest: float) -> None:
    method = row["methods"][label]
    name = credit_name(label).replace(", ", ",\n").replace(" (not", "\n(not").replace(" the", "\nthe")
    axes.text(0.05, top + 0.02, name, fontsize=CAPTION_POINTS, va="top", fontweight="bold", linespacing=1.15)
    *words, total = words
    players = len(row["tokens"]) - row["finished"] if "units" in method else 0  # tokens that are in a unit
    for piece in pieces_of(words_of(row), method):
        inside = [word for word in words if piece[0] <= word.tokens[0] < piece[1]]
        value = credit_of(method, piece)
        for line in sorted({word.line for word in inside}):
            on_line = [word for word in inside if word.line == line]
            ends = (on_line[0] is inside[0], on_line[-1] is inside[-1])
            _draw_box(axes, on_line, value, top + line * LINE, largest, ends=ends, framed=piece[1] <= players)
    for word in words if players else []:
        _draw_ticks(axes, row, method, word, top + word.line * LINE)
    middle = top + total.line * LINE + BOX / 2
    axes.text(LABELS + total.left + PAD, middle, total.text, fontsize=POINTS, va="center", fontweight="bold")


def _draw_box(
    axes: Axes,
    words: Sequence[Word],
    value: float,
    top: float,
    largest: float,
    *,
    ends: tuple[bool, bool],
    framed: bool,
) -> None:
    """Words of one piece on one line; `ends`: whether it begins and ends here. Its number stands where it ends."""
    left, right = LABELS + words[0].left, LABELS + words[-1].left + words[-1].width
    depth = DEEPEST * strength(value, largest)
    colour = [1 - depth * (1 - channel) for channel in to_rgb(POSITIVE if value > 0 else NEGATIVE)]
    axes.add_patch(Rectangle((left, top), right - left, BOX, facecolor=colour, linewidth=0))
    if framed:
        sides = [((left, right), (top, top)), ((left, right), (top + BOX, top + BOX))]
        sides += [((x, x), (top, top + BOX)) for x, end in zip((left, right), ends, strict=True) if end]
        for x, y in sides:
            axes.plot(x, y, color=FRAME, linewidth=0.6, solid_capstyle="projecting")
    for word in words:
        _text(axes, LABELS + word.left + word.width / 2, top + 0.09, word.text, POINTS)
    if ends[1]:
        _text(axes, (left + right) / 2, top + 0.21, number(value), CAPTION_POINTS)


def _text(axes: Axes, x: float, y: float, text: str, points: float) -> None:
    axes.text(x, y, text, fontsize=points, ha="center", va="center", parse_math=False)


def _draw_ticks(axes: Axes, row: Mapping[str, Any], method: Mapping[str, Any], word: Word, top: float) -> None:
    """Where units end within a word."""
    start = LABELS + word.left + (word.width - width_of(word.text, POINTS)) / 2
    for unit in method["units"]:
        if word.tokens[0] < unit["end"] < word.tokens[1]:
            x = start + width_of(legible(text_of(row, (word.tokens[0], unit["end"]))), POINTS)
            axes.plot([x, x], [top, top + 0.025], color=FRAME, linewidth=0.6)


def _prompt(prompt: str) -> str:
    """The prompt, of a long one its end."""
    text = legible(" ".join(prompt.split()))
    shown = text if len(text) <= LONGEST_PROMPT else f"\N{HORIZONTAL ELLIPSIS} {text[-LONGEST_PROMPT:]}"
    return f"Prompt: \N{LEFT DOUBLE QUOTATION MARK}{shown}\N{RIGHT DOUBLE QUOTATION MARK}"


def _caption(record: CreditRecord, row: Mapping[str, Any], labels: Sequence[str]) -> str:
    sentences = [
        f"Raw reward {number(row['reward'])}, split by each method (\N{GREEK SMALL LETTER ALPHA} = 1). Blue adds, orange takes "
        "away; the colour's strength is the square root of |credit|, on one scale for all rows."
    ]
    if any("units" in row["methods"][label] for label in labels):
        sentences.append("A frame is a unit of SCAR; where a word holds several, ticks are their borders.")
    if any(label.endswith(PRINTED) for label in labels):
        sentences.append(f"As printed: the numbers in the paper's Figure 1. {PRINTED_SUM}")
    return " ".join([*sentences, *notes(record, labels)])


def _wrapped(text: str) -> list[str]:
    """Lines of a text as wide as the figure."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(longer, CAPTION_POINTS) > WIDTH - 0.1:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _write(axes: Axes, lines: Sequence[str], top: float, step: float) -> float:
    for index, line in enumerate(lines):
        axes.text(0.05, top + index * step, line, fontsize=CAPTION_POINTS, va="top", parse_math=False)
    return top + len(lines) * step


# The paper's example beside the numbers that the paper prints.


def printed_markdown(records: Sequence[CreditRecord]) -> str:
    """Tables of what SCAR's settings give for the paper's example (`printed_words`), and of the words under the nearest ones.

    The nearest have the smallest mean difference from the printed numbers. Empty without such a record of SCAR.
    """
    found = []
    for record in records:
        for row in record.rows:
            words = printed_words(record, row)
            credit = {label: [credit_of(method, word) for word in words] for label, method in row["methods"].items()}
            scar = [label for label in credit if label.startswith("scar") and words]
            found += [(_apart(credit[label], "scar"), label, record, row["reward"], credit) for label in scar]
    if not found:
        return ""
    found.sort(key=lambda entry: entry[0])
    settings = [["SCAR", "reward", "sum", "mean difference", "largest", "words within 0.05"]]
    for (mean, largest, outside), label, record, reward, credit in found:
        numbers = [number(reward), number(sum(credit[label])), f"{mean:.3f}", f"{largest:.2f}"]
        settings.append([_settings_line(record, label), *numbers, str(len(credit[label]) - outside)])
    _, label, record, _, credit = found[0]
    printed = paper_results()["figure1"]
    columns = {credit_name(key): credit[key] for key in ("abc", label) if key in credit}
    columns |= {credit_name(key + PRINTED): printed[key] for key in ("abc", "scar")}
    texts = [word.strip() or "<EOS>" for word in printed["words"]]
    lines = [[text, *map(number, values)] for text, *values in zip(texts, *columns.values(), strict=True)]
    lines.append(["sum", *(number(sum(values)) for values in columns.values())])
    return (
        "# The paper's example\n\nDifferences are from the numbers printed in the paper's Figure 1, which are rounded to 0.1. "
        f"{PRINTED_SUM}\n\n{markdown_table(settings[0], settings[1:])}\n\n"
        f"Under the first of these settings:\n\n{markdown_table(['word', *columns], lines)}\n"
    )


def _apart(credit: Sequence[float], method: str) -> tuple[float, float, int]:
    """Mean and largest |difference| from the printed numbers, and how many differ by more than rounding explains."""
    differences = np.abs(np.asarray(credit) - paper_results()["figure1"][method])
    return float(differences.mean()), float(differences.max()), int((differences > 0.05 + 1e-6).sum())


def _settings_line(record: CreditRecord, label: str) -> str:
    """What decides SCAR's credit of a text: units, the method's settings, the estimator and its, whether EOS is read."""
    settings = record.manifest["methods"][label]
    named = {**settings["method"], **settings["estimator"], **record.manifest.get("config", {}).get("scoring", {})}
    parts = [settings["estimator"]["name"], *(f"{key} {named[key]}" for key in named if key != "name")]
    return f"{label.partition(':')[2]} units, {', '.join(parts)}"


# The measurements of a credit record as tables and as a figure.


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
                line |= {f"{key}_{index + 1}": share for index, share in enumerate(value)}
            elif isinstance(value, tuple):
                line |= dict(zip((key, f"{key}_low", f"{key}_high"), value, strict=True))
            else:
                line[key] = value
        flat.append(line)
    return csv_text(flat)


def stats_markdown(record: CreditRecord, rows: Rows) -> str:
    """Tables of the rows of `credit_stats`, with what they rest on."""
    tenths = [f"{10 * index}-{10 * index + 10} %" for index in range(BINS)]
    ends = [["method", "n", "last content token", "EOS (n)", "negative units"]]
    positions = [["method", *tenths]]
    sense = [["method", "rated words", "rho, all words", "rho within responses (n)", "words rated +", "words rated -"]]
    for row in rows:
        name = credit_name(row["method"])
        eos = f"{_shown(row['eos'])} ({row['finished']})"
        ends.append([name, str(row["responses"]), _shown(row["last_content"]), eos, _shown(row["negative"])])
        pairs = zip(row["mass"], row["signed"], strict=True)
        positions.append([name, *[f"{mass:.2f} ({signed:+z.2f})" for mass, signed in pairs]])
        if "rho" in row:
            within = f"{_shown(row['rho_response'])} ({row['rated_responses']})"
            means = [_shown(row["positive"]), _shown(row["negative_words"])]
            sense.append([name, str(row["words"]), _shown(row["rho"]), within, *means])
    bullets = "\n".join(f"- {note}" for note in notes(record, [row["method"] for row in rows]))
    sections = [
        f"# Where credit goes: {len(record.rows)} responses\n\n{bullets}",
        f"## To the end, and below zero\n\n{_ENDS}\n\n{markdown_table(ends[0], ends[1:])}",
        f"## By place in the response\n\n{_PLACES}\n\n{markdown_table(positions[0], positions[1:])}",
    ]
    if len(sense) > 1:
        sections.append(f"## By the sense of words\n\n{_SENSE}\n\n{markdown_table(sense[0], sense[1:])}")
    return "\n\n".join(sections) + "\n"


def _shown(value: Interval | None) -> str:
    return "-" if value is None else f"{value[0]:z.2f} [{value[1]:z.2f}, {value[2]:z.2f}]"


def stats_figure(record: CreditRecord, rows: Rows) -> Figure:
    """|credit| and signed credit by place in the response, one line per method, and, where words are rated, how credit goes with
    their ratings (all words together), with intervals."""
    with fonts():
        return _figure(record, rows, [row for row in rows if row.get("rho") is not None])


def _figure(record: CreditRecord, rows: Rows, rated: Rows) -> Figure:
    figure = new_figure(4.9 if rated else 3.0)
    grid = figure.add_gridspec(2 if rated else 1, 2, height_ratios=[1.15, 1] if rated else None)
    panels = [figure.add_subplot(grid[0, column]) for column in (0, 1)]
    _draw_positions(panels[0], rows, "mass", "share of |credit|")
    _draw_positions(panels[1], rows, "signed", "signed credit / sum of |credit|")
    panels[1].axhline(0, color="black", linewidth=0.6)
    if rated:
        _draw_correlations(figure.add_subplot(grid[1, :]), rated)
    scale, task = record.manifest["scale"], record.manifest["task"]
    note = "" if scale == "paper" else f"; {comparability(scale)}"
    what = f"Where credit goes, {task_name(task)}, scale {scale}: mean of {len(record.rows)} responses{note}"
    set_caption(figure, [what])
    handles, names = panels[0].get_legend_handles_labels()
    legend_below(figure, handles, names)
    return figure


def _style(label: str) -> dict[str, Any]:
    method, _, units = label.partition(":")
    look = look_of(method)
    return {"color": look.colour, "linestyle": UNIT_DASHES[units] if units else look.dashes}


def _draw_positions(axes: Axes, rows: Rows, key: str, name: str) -> None:
    middles = (np.arange(BINS) + 0.5) * 100 / BINS
    for row in rows:
        style = _style(row["method"]) | {"marker": "o", "markersize": 2, "linewidth": 1.1}
        axes.plot(middles, row[key], label=credit_name(row["method"]), **style)
    axes.set_xlabel("place in the response, %")
    axes.set_title(name)
    style_axes(axes)
    axes.set_xlim(0, 100)


def _draw_correlations(axes: Axes, rows: Rows) -> None:
    for index, row in enumerate(rows):
        value, low, high = row["rho"]
        axes.barh(index, value, color=_style(row["method"])["color"], height=0.7)
        axes.plot([low, high], [index, index], color="black", linewidth=1.2)
    names = [credit_name(row["method"]).removesuffix(" (not in the paper)") for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel(
        f"Spearman's rho of credit and people's ratings, {rows[0]['words']} words, {CONFIDENCE:.0%} intervals"
    )
    style_axes(axes)
