"""Numbers, tables and pages as text: markdown for people, CSV for programs, HTML from templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import pandas as pd

_PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("scar.report", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table of ready texts; a bar within a text stays one."""
    lines = [[text.replace("|", "\\|") for text in line] for line in (header, ["---"] * len(header), *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def csv_text(rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> str:
    """Rows as CSV, unrounded; a missing number is an empty field, and counts stay whole beside it."""
    return pd.DataFrame(rows, dtype=object).to_csv(index=False)


def show_mean(mean: float | None, std: float | None, digits: int = 2) -> str:
    """ "0.63 ± 0.04"; "0.63 ± -" without a std, "-" without a mean."""
    if mean is None or mean != mean:
        return "-"
    return f"{mean:z.{digits}f} ± " + ("-" if std is None or std != std else f"{std:.{digits}f}")


def show_difference(value: float, interval: tuple[float, float] | None, *, digits: int = 2) -> str:
    """A difference with its sign and, if there is one, its interval: "+0.63 [+0.41, +0.86]"."""
    bounds = "" if interval is None else f" [{interval[0]:+z.{digits}f}, {interval[1]:+z.{digits}f}]"
    return f"{value:+z.{digits}f}{bounds}"


NOISE = (
    "evaluation noise, the standard error of the final reward over test prompts (bootstrap over prompts, which all runs share), "
    "which the spread over seeds does not contain"
)
"""What `show_noise` shows, for the definitions below a table."""


def show_noise(value: float | None) -> str:
    """ "±0.04", "-" for none."""
    return "-" if value is None else f"±{value:.2f}"


def show_number(value: float | None, form: str) -> str:
    """A number in a format of Python's, "-" for none."""
    return "-" if value is None or value != value else format(value, form)


def count_of(n: int, wanted: int) -> str:
    """How many there are of those asked for: "5", "3/5"."""
    return f"{n}" if n == wanted else f"{n}/{wanted}"


def render(template: str, **values: Any) -> bytes:
    """A template of scar/report/templates/ as UTF-8 HTML; values are text, never markup, unless the template says so."""
    return _PAGES.get_template(template).render(values).encode()
