"""The one look of all reports: names, order, colours, dashes and markers of methods; sizes, captions and formats of figures.

No pyplot, so no global state.
"""

from __future__ import annotations

import io
import textwrap
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Look:
    """How a method is shown: its name, colour, dashes and marker; `fixed_alpha`: its alpha is part of what it is."""

    name: str
    colour: str
    dashes: Any = "-"
    marker: str = "o"
    fixed_alpha: bool = False


METHODS = {
    "sparse": Look("Sparse RLHF", "#4D4D4D", fixed_alpha=True),
    "uniform": Look("Uniform", "#E69F00", marker="v", fixed_alpha=True),
    "abc": Look("ABC", "#0072B2", marker="^"),
    "scar": Look("SCAR", "#D55E00", marker="s"),
    "red": Look("RED (not in the paper)", "#CC79A7", (0, (4.0, 2.0)), "D"),
}
"""The look of each method, in the order of tables; a method without a line here gets a default (`look_of`).
The colours are Okabe and Ito's, told apart with any colour vision."""
PAPER_METHODS = ("sparse", "uniform", "abc", "scar")
"""The methods of the paper's Table 1."""
TASK_NAMES = {"imdb": "IMDB", "tldr": "TL;DR", "hh": "HH"}
"""Tasks as shown, in the order of tables."""
UNIT_DASHES: dict[str | None, Any] = {
    "token": "-",
    "span": (0, (5, 1.5)),
    "punctuation": (0, (3, 1, 1, 1)),
    "sentence": (0, (1, 1)),
}
"""SCAR keeps its colour whatever its units are; where several are drawn, dashes tell them apart."""
OTHER_COLOURS = ("#56B4E9", "#009E73", "#F0E442", "#000000")
"""Okabe and Ito's colours that no method of `METHODS` has."""


def look_of(method: str) -> Look:
    """The look of a method; one without a line in `METHODS` is dashed in a colour drawn from its name."""
    colour = OTHER_COLOURS[zlib.crc32(method.encode()) % len(OTHER_COLOURS)]
    return METHODS.get(method) or Look(f"{method.capitalize()} (not in the paper)", colour, (0, (4.0, 2.0)), "x")


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods without repeats, in the order of `METHODS`, others behind by name."""
    known = list(METHODS)
    return sorted(set(methods), key=lambda method: (known.index(method) if method in known else len(known), method))


def tasks_in_order(tasks: Iterable[str]) -> list[str]:
    """Tasks without repeats, in the order of `TASK_NAMES`, others behind by name."""
    known = list(TASK_NAMES)
    return sorted(set(tasks), key=lambda task: (known.index(task) if task in known else len(known), task))


def method_name(method: str) -> str:
    """The name shown for a method, or for "sft"; those that the paper does not have say so."""
    return "SFT policy" if method == "sft" else look_of(method).name


def task_name(task: str) -> str:
    """The name shown for a task."""
    return TASK_NAMES.get(task, task)


def comparability(scale: str) -> str:
    """What numbers of a scale other than the paper's may be compared with."""
    order = "and a smoke run's order means nothing either" if scale == "smoke" else "only their order is"
    return f"not comparable with the paper's, {order}"


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
