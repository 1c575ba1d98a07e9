"""The report page: one HTML file that needs nothing beside it, with tables, figures and what is missing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt

from scar.report.files import Files
from scar.report.style import comparability
from scar.report.writing import render


@dataclass(frozen=True)
class Section:
    """A part of the page: the markdown tables and PNG images among `files`, or why there are none."""

    title: str
    files: Files
    missing: str | None

    @property
    def texts(self) -> list[str]:
        """The markdown files as HTML; the first line of each is a heading."""
        return [_html(content.decode()) for name, content in self.files.items() if name.endswith(".md")]

    @property
    def images(self) -> list[str]:
        """The PNG files in base64."""
        return [base64.b64encode(content).decode() for name, content in self.files.items() if name.endswith(".png")]


def page(scale: str, sections: Sequence[Section], unfinished: Sequence[str]) -> bytes:
    """The page as UTF-8 HTML. `unfinished` are the folders of runs that were left out."""
    note = "" if scale == "paper" else f"Numbers at scale {scale} are {comparability(scale)}."
    return render("report.html", scale=scale, note=note, sections=sections, unfinished=unfinished)


def _html(text: str) -> str:
    """Tables of our own reports as HTML; headings go one level down, below the section's, and raw HTML stays text."""
    lines = [f"#{line}" if line.startswith("#") else line for line in text.splitlines()]
    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").render("\n".join(lines))
    return rendered.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
