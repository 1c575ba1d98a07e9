"""What the notebooks show with: figures as they are written to files, markdown tables as tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from scar.identity import name_now
from scar.report.selection import FOLDERS, Sources
from scar.report.style import png_bytes


def sources(root: str | Path = "..", **chosen: Any) -> Sources:
    """The records below `root` (the repository, seen from notebooks/), at the scale and with the tasks, methods and seeds that
    `chosen` or the environment (SCAR_ROOT, SCAR_SCALE, SCAR_TASKS, SCAR_METHODS, SCAR_SEEDS) says."""
    root = Path(os.environ.get("SCAR_ROOT", root))
    defaults: dict[str, Any] = {"scale": os.environ.get("SCAR_SCALE", "local")}
    for name, kind in (("tasks", str), ("methods", str), ("seeds", int)):
        if text := os.environ.get(f"SCAR_{name.upper()}"):
            defaults[name] = [name_now(word) if name == "methods" else kind(word) for word in text.split(",")]
    fields = Sources.__dataclass_fields__
    folders: dict[str, Any] = {name: root / str(fields[name].default) for name in ("records", *FOLDERS)}
    return Sources(**(folders | defaults | chosen))


def show(*shown: Figure | str | Sequence[str]) -> None:
    """Display figures, and texts as markdown."""
    from IPython.display import Image, Markdown, display

    for item in shown:
        display(Image(png_bytes(item), width=825) if isinstance(item, Figure) else Markdown(str(item)))
