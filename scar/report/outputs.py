"""The files of tables and figures of runs, as bytes by name, and how they reach a folder whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scar.report.claims import reward_verdicts, verdicts_markdown
from scar.report.comparisons import comparisons_csv, comparisons_markdown
from scar.report.costs import costs_csv, costs_markdown
from scar.report.curves import FIGURES, curve_numbers
from scar.report.figures import figure2, figure2_curves
from scar.report.frontier import frontier_figure
from scar.report.judged import table2_csv, table2_markdown
from scar.report.paired import paired_markdown
from scar.report.selection import Cells
from scar.report.style import image_files
from scar.report.sweeps import sweep_csv, sweep_markdown
from scar.report.tables import table1_csv, table1_markdown
from scar.report.variants import Variants
from scar.tracking.judgements import JudgementRecord
from scar.tracking.records import RunRecord

Files = dict[str, bytes]
"""Contents by file name."""


def table1_files(cells: Cells) -> Files:
    """Table 1, Figure 2 and the comparisons of methods, which rest on the same runs; a .json beside each names those runs."""
    which: dict[str, Any] = {"tasks": cells.tasks, "methods": cells.methods, "seeds": cells.seeds}
    records, origin = cells.records, {"records": identities(cells.records), "missing": _missing(cells)}
    verdicts = verdicts_markdown(reward_verdicts(cells), title="Claims of Table 1 and Figure 2")
    return {
        "table1.md": table1_markdown(records, **which).encode(),
        "table1.csv": table1_csv(records, **which).encode(),
        "table1.json": as_json(origin),
        **image_files("figure2", figure2(records, **which)),
        "figure2.json": as_json(origin | figure2_curves(records, **which)),
        "comparisons.md": f"{verdicts}\n## Comparisons\n\n{comparisons_markdown(cells)}".encode(),
        "comparisons.csv": comparisons_csv(cells).encode(),
    }


def curve_files(name: str, found: Variants) -> Files:
    """Figure 3, 4 or 5 (`name` is a key of `FIGURES`), and a .json with its numbers and runs."""
    _, _, draw, x_of = FIGURES[name]
    origin = {"records": identities(found.records), "missing": found.missing, "curves": curve_numbers(found, x_of)}
    return image_files(name, draw(found)) | {f"{name}.json": as_json(origin)}


def cost_files(records: list[RunRecord], *, scale: str) -> Files:
    """What runs cost, and a .json with those runs."""
    return {
        "costs.md": costs_markdown(records, scale=scale).encode(),
        "costs.csv": costs_csv(records).encode(),
        "costs.json": as_json({"records": identities(records)}),
    }


def table2_files(judgements: Sequence[JudgementRecord], *, wanted_seeds: int) -> Files:
    """Table 2, and a .json with the judgements behind it."""
    names = ("task", "judge", "label", "method", "baseline", "seed", "runs")
    origin = [{"path": r.path.as_posix()} | {name: r.manifest[name] for name in names} for r in judgements]
    return {
        "table2.md": table2_markdown(judgements, wanted_seeds=wanted_seeds).encode(),
        "table2.csv": table2_csv(judgements).encode(),
        "table2.json": as_json({"judgements": origin}),
    }


def sweep_files(records: Sequence[RunRecord], *, name: str) -> Files:
    """The tables of a sweep as markdown, its rows as CSV and its figure of reward against KL; a .json beside them names its
    runs."""
    return {
        f"{name}.md": (sweep_markdown(records) + paired_markdown(records)).encode(),
        f"{name}.csv": sweep_csv(records).encode(),
        **image_files(name, frontier_figure(records)),
        f"{name}.json": as_json({"records": identities(records)}),
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write each file so that it holds either its old content or the whole new one; return their paths.

    Raises OSError, with what to do, if `folder` cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_replace(folder / name, content) for name, content in files.items()]
    except OSError as error:
        raise OSError(f"cannot write into {folder} ({error.strerror}); choose another: results=FOLDER") from error


def identities(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Of each record its folder, and what tells which run it is."""
    return [_identify(record) for record in records]


def _missing(cells: Cells) -> list[dict[str, Any]]:
    return [{"task": t, "method": m, "seeds": seeds} for (t, m), seeds in cells.missing().items()]


def _identify(record: RunRecord) -> dict[str, Any]:
    names = ("task", "method", "seed", "model_seed", "scale", "fingerprint", "commit", "dirty", "device")
    return {"path": record.path.as_posix()} | {name: record.manifest[name] for name in names}


def as_json(value: dict[str, Any]) -> bytes:
    """Indented JSON, NaN refused."""
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
