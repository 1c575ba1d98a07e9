"""Files of reports: written whole, with the runs behind them beside their numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scar.files import atomic_file
from scar.tracking.records import RunRecord

Files = dict[str, bytes]
"""Contents by file name."""


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write each file so that it holds either its old content or the whole new one; return their paths.

    Raises OSError, with what to do, if `folder` cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with atomic_file(folder / name) as partial:
                partial.write_bytes(content)
    except OSError as error:
        raise OSError(f"cannot write into {folder} ({error.strerror}); choose another: results=FOLDER") from error
    return [folder / name for name in files]


def identities(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Of each record its folder, and what tells which run it is."""
    return [_identify(record) for record in records]


def _identify(record: RunRecord) -> dict[str, Any]:
    names = ("task", "method", "seed", "model_seed", "scale", "fingerprint", "commit", "dirty", "device")
    return {"path": record.path.as_posix()} | {name: record.manifest[name] for name in names}


def as_json(value: dict[str, Any]) -> bytes:
    """Indented JSON, NaN refused."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
