"""Credit records on disk: the credit of given texts under several methods, computed once, drawn without any model.

A record is a folder with `manifest.json` (what was computed) and `credit.jsonl` (a row a response; `CreditRows` in
scar/commands/credit.py says which keys). It is written into `<folder>.partial` and renamed when it is whole; a row does
not depend on the others, so what an interrupted computation left is gone on with.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from scar.identity import credit_settings, old_name, old_needs
from scar.tracking.records import PARTIAL_SUFFIX, read_jsonl, write_json

CREDIT_VERSION = 2
"""2: settings by name (scar/identity.py). Version 1 is read too."""
ROWS = "credit.jsonl"


@dataclass(frozen=True)
class CreditRecord:
    """One finished record. `manifest` keys: credit_version, scale, task, source, methods (settings by label: scar/identity.py),
    seed, model_seed, models, device, fingerprint, config, commit, dirty, versions, started, finished, responses."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was computed; ValueError if the folder holds no credit record that this code reads."""
        file = self.path / "manifest.json"
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{file} cannot be read ({error}); give the folder of a credit record, as experiments/credit.py makes them"
            ) from error
        if manifest.get("credit_version") == 1:
            methods = {
                label: credit_settings(config, old_name, old_needs(config))
                for label, config in manifest["methods"].items()
            }
            manifest |= {"credit_version": CREDIT_VERSION, "methods": methods}
        if manifest.get("credit_version") != CREDIT_VERSION:
            raise ValueError(
                f"{file} has credit version {manifest.get('credit_version')}, this code reads {CREDIT_VERSION}; "
                "compute the record again with experiments/credit.py"
            )
        return manifest

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row a response."""
        return read_jsonl(self.path / ROWS)


def find_credit(root: Path, **wanted: Any) -> list[CreditRecord]:
    """All finished credit records under `root` whose manifest has the wanted values (a list: any of these), in a stable
    order."""
    values = {key: value if isinstance(value, list) else [value] for key, value in wanted.items()}
    records = [
        CreditRecord(file.parent)
        for file in sorted(root.rglob("manifest.json"))
        if not any(part.endswith(PARTIAL_SUFFIX) for part in file.parent.parts)
    ]
    return [r for r in records if all(r.manifest[key] in allowed for key, allowed in values.items())]


class CreditWriter:
    """Writes one record row by row; `done` rows are there already. As a context it keeps rows for another try, and leaves
    nothing where there are none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
        self._partial.mkdir(parents=True, exist_ok=True)
        kept = _whole_lines(self._partial / ROWS)
        (self._partial / ROWS).write_text("".join(kept), encoding="utf-8")
        self.done = len(kept)
        self._rows = open(self._partial / ROWS, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def __enter__(self) -> CreditWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()
        if error is not None and not self.done:
            shutil.rmtree(self._partial, ignore_errors=True)

    def append(self, row: dict[str, Any]) -> None:
        """Append one response's row."""
        self._rows.write(json.dumps(row, allow_nan=False) + "\n")
        self.done += 1

    def commit(self, manifest: dict[str, Any]) -> None:
        """Make the record a finished one."""
        self._rows.close()
        write_json(self._partial / "manifest.json", manifest | {"responses": self.done})
        if self._folder.exists():
            shutil.rmtree(self._folder)
        os.replace(self._partial, self._folder)


def _whole_lines(file: Path) -> list[str]:
    """The lines up to the first one that an interruption cut off."""
    if not file.exists():
        return []
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            json.loads(line)
        except ValueError:
            break
        if not line.endswith("\n"):
            break
        kept.append(line)
    return kept
