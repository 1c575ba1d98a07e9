"""Files of reports: written whole, with the runs behind them beside their numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scar.tracking.records import RunRecord

Files = dict[str, bytes]
"""Contents by file name."""


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
