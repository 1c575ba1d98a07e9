"""What benchmarks write: rows, the table made of them, and the machine they ran on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from scar.tracking.provenance import code_state, device_description, versions


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` = peer_seconds / ours_seconds; `queries` is ours, all responses together."""

    name: str
    ours_seconds: float
    peer: str
    peer_seconds: float
    ratio: float
    max_abs_difference: float | None
    queries: int


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and the result, of one call."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def as_dicts(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows (dataclasses of one kind) for a JSON file."""
    return [asdict(row) for row in rows]


def markdown(rows: Sequence[Any]) -> str:
    """A Markdown table with one column a field."""
    dicts = as_dicts(rows)
    header = list(dicts[0])
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row.values()] for row in dicts)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def machine() -> str:
    """One line: code, processor, threads, versions."""
    state = code_state()
    commit = (state["commit"] or "no git checkout")[:12] + ("+changes" if state["dirty"] else "")
    found = versions()
    shown = ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "transformers") if name in found)
    cpu = device_description(torch.device("cpu"))["name"]
    return f"commit {commit}; {cpu}; {torch.get_num_threads()} thread; {shown}"
