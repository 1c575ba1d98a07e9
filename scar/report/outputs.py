"""The files of each report target, as bytes by name, and how they reach a folder whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scar.report.figures import figure2, figure2_curves, png_bytes
from scar.report.frontier import frontier_figure
from scar.report.paired import paired_markdown
from scar.report.selection import Cells, select_cells
from scar.report.sweeps import sweep_csv, sweep_markdown
from scar.report.tables import table1_csv, table1_markdown
from scar.tracking.records import RunRecord


def table1_files(
    records: Sequence[RunRecord],
    *,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> dict[str, bytes]:
    """Table 1 and Figure 2, which rest on the same runs; a .json beside each names those runs."""
    which: dict[str, Any] = {"tasks": tasks, "methods": methods, "seeds": seeds}
    origin = _provenance(select_cells(records, **which))
    return {
        "table1.md": table1_markdown(records, **which).encode(),
        "table1.csv": table1_csv(records, **which).encode(),
        "table1.json": _json(origin),
        "figure2.png": png_bytes(figure2(records, **which)),
        "figure2.json": _json(origin | figure2_curves(records, **which)),
    }


def sweep_files(records: Sequence[RunRecord], *, name: str) -> dict[str, bytes]:
    """The tables of a sweep as markdown, its rows as CSV and its figure of reward against KL; a .json beside them names its
    runs."""
    return {
        f"{name}.md": (sweep_markdown(records) + paired_markdown(records)).encode(),
        f"{name}.csv": sweep_csv(records).encode(),
        f"{name}.png": png_bytes(frontier_figure(records)),
        f"{name}.json": _json({"records": [_identify(record) for record in records]}),
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write each file so that it holds either its old content or the whole new one; return their paths.

    Raises OSError, with what to do, if `folder` cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_replace(folder / name, content) for name, content in files.items()]
    except OSError as error:
        raise OSError(f"cannot write into {folder} ({error.strerror}); choose another folder (--results)") from error


def _provenance(cells: Cells) -> dict[str, Any]:
    """The records behind a table or figure: folder, fingerprint, commit and dirty flag of each, and what is missing."""
    return {
        "records": [_identify(record) for record in cells.records],
        "missing": [{"task": t, "method": m, "seeds": seeds} for (t, m), seeds in cells.missing().items()],
    }


def _identify(record: RunRecord) -> dict[str, Any]:
    names = ("task", "method", "seed", "model_seed", "scale", "fingerprint", "commit", "dirty", "device")
    return {"path": record.path.as_posix()} | {name: record.manifest[name] for name in names}


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def _replace(path: Path, content: bytes) -> Path:
    # The process id keeps two reports that run at once from writing into one temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
