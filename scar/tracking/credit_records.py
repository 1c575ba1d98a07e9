"""Credit records on disk: the credit of given texts under several methods, computed once, drawn without any model.

A record is a folder with `manifest.json` (what was computed) and `credit.jsonl` (one row per response; `CreditRows` in
scar/commands/credit.py says which keys). It is written into `<folder>.partial` and renamed when it is whole; a row does
not depend on the others, so what an interrupted computation left is gone on with.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from scar.identity import credit_settings, name_now, old_name, old_needs
from scar.tracking.records import Record, RecordWriter, partial_folder, read_jsonl

CREDIT_VERSION = 2
"""2: settings by name (scar/identity.py). Version 1 is read too."""
ROWS = "credit.jsonl"


class CreditRecord(Record):
    """One finished record. `manifest` keys: credit_version, scale, task, source, methods (settings by label: scar/identity.py),
    seed, model_seed, models, device, fingerprint, config, commit, dirty, versions, started, finished, responses."""

    KIND, VERSION_KEY, VERSION = "credit record", "credit_version", CREDIT_VERSION
    AGAIN = "compute the record again with experiments/credit.py"
    UNREADABLE = "give the folder of a credit record, as experiments/credit.py makes them"

    def upgraded(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Version 1 as version 2 has it: settings by name, read off the configs that it holds. Methods have their names of now."""
        if manifest["credit_version"] not in (1, CREDIT_VERSION):  # refused by its reader
            return manifest
        methods = manifest["methods"]
        if manifest["credit_version"] == 1:
            methods = {label: credit_settings(config, old_name, old_needs(config)) for label, config in methods.items()}
            manifest |= {"credit_version": CREDIT_VERSION}
        return manifest | {"methods": _with_names_of_now(methods)}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row per response."""
        return [row | {"methods": _with_names_of_now(row["methods"])} for row in read_jsonl(self.path / ROWS)]


def _with_names_of_now(methods: dict[str, Any]) -> dict[str, Any]:
    return {name_now(label): value for label, value in methods.items()}


find_credit = CreditRecord.find


class CreditWriter(RecordWriter):
    """Writes one record row by row; `done` rows are there already. As a context it keeps rows for another try, and leaves
    nothing where there are none."""

    def __init__(self, folder: Path) -> None:
        kept = _whole_lines(partial_folder(folder) / ROWS)
        super().__init__(folder, rows=ROWS, kept=kept)
        self.done = len(kept)

    def __enter__(self) -> CreditWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self.discard if error is not None and not self.done else self.close)()

    def append(self, row: dict[str, Any]) -> None:
        """Append one response's row."""
        super().append(row)
        self.done += 1

    def commit(self, manifest: dict[str, Any]) -> None:
        """Make the record a finished one."""
        self.write("manifest.json", manifest | {"responses": self.done})
        self.finish()


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
