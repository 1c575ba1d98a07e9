"""The one look of all figures: colours, sizes, captions, file formats. No pyplot, so no global state."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with any colour vision; a method keeps its colour in every figure.
COLOURS = {"sparse": "#4D4D4D", "uniform": "#E69F00", "abc": "#0072B2", "scar": "#D55E00", "prefix": "#CC79A7"}
_OTHER_COLOURS = ("#56B4E9", "#009E73", "#F0E442")
UNIT_DASHES: dict[str | None, Any] = {"token": "-", "span": (0, (5, 1.5)), "sentence": (0, (1, 1))}
"""SCAR keeps its colour whatever its units are; where several are drawn, dashes tell them apart."""
NOT_IN_PAPER_DASHES = (4.0, 2.0)

WIDTH = 5.5
"""Inches: the text width of the paper's style, so that nothing is scaled when a figure is put into a paper."""
FONTS = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 7.5,
    "pdf.fonttype": 42,  # text stays text
}


def method_colour(method: str, methods: Sequence[str]) -> str:
    """The colour of `method`; one that has none of its own gets one by its place among such in `methods`."""
    others = [name for name in methods if name not in COLOURS]
    return COLOURS.get(method) or _OTHER_COLOURS[others.index(method) % len(_OTHER_COLOURS)]


def new_figure(height: float, *, width: float = WIDTH) -> Figure:
    """An empty figure at paper width; `height` and `width` in inches."""
    return Figure(figsize=(width, height), dpi=300, layout="constrained")


def style_axes(axes: Axes) -> None:
    """Grid, frame and margins of a panel."""
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)


def set_caption(figure: Figure, lines: Iterable[str]) -> None:
    """The caption above the panels, a paragraph a line, filled to the figure's width."""
    width = int(figure.get_figwidth() * 17)  # letters that fit at this size
    figure.suptitle("\n".join(textwrap.fill(line, width=width) for line in lines if line))


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str], *, columns: int = 3) -> None:
    """One legend for all panels."""
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), frameon=False)


def fonts() -> Any:
    """Context in which figures are made, so that all text has the sizes of a paper."""
    return rc_context(FONTS)


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG, without the date or version of the program, so that the same records give the same bytes."""
    return _bytes(figure, "png", {"Software": None})


def pdf_bytes(figure: Figure) -> bytes:
    """The figure as vector PDF, the same bytes for the same records."""
    return _bytes(figure, "pdf", {"Creator": None, "Producer": None, "CreationDate": None})


def image_files(name: str, figure: Figure) -> dict[str, bytes]:
    """`name`.png and `name`.pdf."""
    return {f"{name}.png": png_bytes(figure), f"{name}.pdf": pdf_bytes(figure)}


def _bytes(figure: Figure, file_format: str, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with fonts():
        figure.savefig(buffer, format=file_format, metadata=metadata)
    return buffer.getvalue()
