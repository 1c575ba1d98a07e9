"""The report page: one HTML file that needs nothing beside it, with tables, figures and what is missing."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt

from scar.report.files import Files
from scar.report.tables import comparability

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --ground: #ffffff; --soft: #f3f4f6; --line: #d6d9de; --warn: #8a4b00 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8eb; --ground: #16181c; --soft: #22262c; --line: #3a4048; --warn: #f0b35c }
}
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--ground); margin: 0 }
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.6rem; margin: 0 0 .3rem } h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem } h3, h4 { margin: 1.4rem 0 .4rem }
nav ul { columns: 2; padding-left: 1.2rem; margin: .8rem 0 }
.table { overflow-x: auto; margin: .6rem 0 }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { border-bottom-width: 2px } td:first-child { min-width: 13rem }
td:nth-child(n+2):nth-last-child(n+2) { white-space: nowrap }
figure { margin: 1rem 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .6rem }
img { display: block; max-width: 100%; height: auto; margin: 0 auto }
.missing { color: var(--warn); background: var(--soft); border-left: 3px solid var(--warn); padding: .5rem .8rem }
.note { background: var(--soft); padding: .6rem .8rem; border-radius: 6px }
code { overflow-wrap: anywhere }
@media (max-width: 40rem) { nav ul { columns: 1 } }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page: the markdown tables and PNG images among `files`, or why there are none."""

    title: str
    files: Files
    missing: str | None


def page(scale: str, sections: Sequence[Section], unfinished: Sequence[str]) -> bytes:
    """The page as UTF-8 HTML. `unfinished` are the folders of runs that were left out."""
    note = "" if scale == "paper" else f"Numbers at scale {scale} are {comparability(scale)}."
    links = "".join(f'<li><a href="#s{i}">{html.escape(s.title)}</a>{_absent(s)}</li>' for i, s in enumerate(sections))
    left_out = ", ".join(map(html.escape, unfinished))
    left_out = f'<p class="missing">Unfinished runs, left out: {left_out}.</p>' if unfinished else ""
    body = "".join(_section(number, section) for number, section in enumerate(sections))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>SCAR, scale {html.escape(scale)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>SCAR: tables and figures, scale {html.escape(scale)}</h1>"
        f"<p>Everything here is computed from run records. {html.escape(note)}</p>"
        f"{left_out}<nav><ul>{links}</ul></nav>{body}</main></body></html>\n"
    ).encode()


def _absent(section: Section) -> str:
    return " (missing)" if section.missing else ""


def _section(number: int, section: Section) -> str:
    titled = next((name for name in section.files if name.endswith(".md")), None)  # its first line is a heading
    parts = [f'<section id="s{number}">' + ("" if titled else f"<h2>{html.escape(section.title)}</h2>")]
    if section.missing:
        parts.append(f'<p class="missing">Missing: {html.escape(section.missing)}</p>')
    for name, content in section.files.items():
        if name.endswith(".md"):
            parts.append(_markdown(content.decode()))
        elif name.endswith(".png"):
            data = base64.b64encode(content).decode()
            parts.append(
                f'<figure><img alt="{html.escape(section.title)}" src="data:image/png;base64,{data}"></figure>'
            )
    return "".join([*parts, "</section>"])


def _markdown(text: str) -> str:
    """Tables of our own reports as HTML; headings go one level down, below the section's, and raw HTML stays text."""
    lines = [f"#{line}" if line.startswith("#") else line for line in text.splitlines()]
    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").render("\n".join(lines))
    return rendered.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
