"""Models that were trained here, kept by fingerprint.

A cached model is a folder `<cache>/<kind>-<fingerprint>` with the model's files, `report.json` (how good it is) and
`complete.json` (sha256 of every file). It is written elsewhere and renamed when whole, so a folder is a whole model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from scar.files import atomic_folder

COMPLETE = "complete.json"


class ModelCache:
    """Folders of trained models, named by fingerprint."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, kind: str, fingerprint: str) -> Path:
        """Where the model `kind` with this fingerprint lies or would lie."""
        return self.root / f"{kind}-{fingerprint}"

    def has(self, kind: str, fingerprint: str) -> bool:
        """Whether the whole model is there; a ValueError says which file of it is damaged."""
        folder = self.folder(kind, fingerprint)
        if not folder.exists():
            return False
        advice = f"delete the folder {folder} and make it again (`make models`)"
        try:
            digests = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
            broken = [name for name, digest in digests.items() if _sha256(folder / name) != digest]
        except (OSError, ValueError, AttributeError) as error:
            raise ValueError(f"the cached model {folder} is damaged ({error}); {advice}") from error
        if broken:
            raise ValueError(f"the cached model {folder} is damaged (changed: {', '.join(broken)}); {advice}")
        return True

    def save(self, kind: str, fingerprint: str, *, parts: list[Any], report: dict[str, Any]) -> Path:
        """Save objects with `save_pretrained` and their report; nothing is left behind when that fails. If another process was
        faster, its equal model stays."""
        folder = self.folder(kind, fingerprint)
        try:
            with atomic_folder(folder) as partial:
                for item in parts:
                    item.save_pretrained(partial)
                (partial / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
                digests = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
                (partial / COMPLETE).write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
        except SafetensorError as error:  # safetensors hides the OSError of a full disk
            raise OSError(f"cannot write the model {folder}: {error}") from error
        return folder

    def report(self, kind: str, fingerprint: str) -> dict[str, Any]:
        """The report saved with the model."""
        return json.loads((self.folder(kind, fingerprint) / "report.json").read_text(encoding="utf-8"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
