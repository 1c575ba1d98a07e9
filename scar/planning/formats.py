"""How planned numbers are written, and the tables that every report has."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from scar.packages import Named
from scar.planning.runs import Run

WIDTH = 120
GB = 1e9
KEYS = {
    "policy": ("models.policy.name", "models.pretrained.name"),
    "reward": ("models.reward.name", "models.pretrained.name"),
}
"""The settings that name the checkpoint of a model."""


def lay_out(parts: Iterable[Table | str]) -> str:
    """Everything, at most WIDTH characters wide."""
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False, emoji=False, markup=False)
    for part in parts:
        if isinstance(part, Table):
            console.print(part.title)  # the table itself would wrap it to its own width
            part.title = None
        console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def new_table(title: str, *columns: str, text: Sequence[str] = ("task", "method")) -> Table:
    """A table whose columns `text` are text and all others numbers."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        left = column in text
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "name", overflow="fold")
    return table


def label(run: Run) -> tuple[str, str]:
    """Task and method of a run."""
    return run.task, f"{run.method} {run.units or ''}".rstrip()


def gigabytes(size: float) -> str:
    """10^9 bytes."""
    return "-" if not size else f"{size / GB:.1f}" if size >= 0.05 * GB else f"{size / GB:.3f}"


def hours(count: float) -> str:
    """Two digits below one hour."""
    return f"{count:.2g}" if count < 1 else f"{count:.1f}"


def names_table(
    scale: str, named: Mapping[str, list[Named]], models: Mapping[str, Mapping[str, int]], runs: Mapping[str, Run]
) -> Table:
    """What the runs of each task name, with the parameters `models` of policy and reward model."""
    columns = ("task", "setting", "name", "revision", "parameters")
    title = f"What scale={scale} names, checked by form (nothing was asked of the hub)"
    table = new_table(title, *columns, text=columns[:4])
    for task, run in runs.items():
        if not {one.key for one in named[task]} & {key for keys in KEYS.values() for key in keys}:
            source = run.models.get("pretrained", {}).get("package", "trained here from scratch")
            table.add_row(task, "models", source, "-", _parameters(models[task], KEYS))
        for one in named[task]:
            kinds = [kind for kind, keys in KEYS.items() if one.key in keys]
            table.add_row(task, one.key, one.name, _revision(one.state), _parameters(models[task], kinds))
    return table


def _parameters(numbers: Mapping[str, int], kinds: Iterable[str]) -> str:
    return " + ".join(_short(numbers[kind]) for kind in kinds)


def _short(count: int) -> str:
    """A count of parameters in millions or billions."""
    return f"{count / 1e6:.3g}M" if count < 1e9 else f"{count / 1e9:.2f}B"


def _revision(state: str) -> str:
    """A commit's first characters; names whole."""
    return state[:12] if len(state) == 40 else state
