"""Where labelled texts come from: an installed data package or the Hugging Face hub.

A source gives a frame with the columns `text`, `label` (0 or 1), `origin` and `official_split` ("train", "test" or
None). Cleaning, deduplication and our own splits belong to the task.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

COLUMNS = ["text", "label", "origin", "official_split"]


@dataclass(frozen=True)
class PackageSource:
    """A CSV file (text, label, source) inside an installed data package, found without importing the package."""

    package: str
    version: str
    module: str
    member: str
    sha256: str

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return {"package": self.package, "version": self.version, "sha256": self.sha256}

    def load(self) -> pd.DataFrame:
        """Read the file; a clear error when the package is missing, of another version, or not as published."""
        install = f"install it with `python -m pip install {self.package}=={self.version}`"
        try:
            installed = importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError as error:
            raise FileNotFoundError(f"the data package {self.package} is not installed; {install}") from error
        if installed != self.version:
            raise ValueError(
                f"the data package {self.package} is {installed}, this task needs {self.version}; {install}"
            )
        try:
            data = self._path().read_bytes()
        except OSError as error:
            raise FileNotFoundError(
                f"the data package {self.package} lacks {self.member} ({error}); re{install}"
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.sha256:
            raise ValueError(
                f"{self._path()} is damaged (sha256 {digest[:12]}, expected {self.sha256[:12]}); re{install}"
            )
        frame = pd.read_csv(self._path()).rename(columns={"source": "origin"})
        return frame.assign(official_split=None)[COLUMNS]

    def _path(self) -> Path:
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"the data package {self.package} has no module {self.module}; reinstall it")
        return Path(spec.submodule_search_locations[0]) / self.member


def load_split(path: str, split: str, columns: Sequence[str], *, data_dir: str | None = None) -> pd.DataFrame:
    """The `columns` of one split of a hub data set.

    `path` is a hub name, or a folder with `<split>*.parquet` or `<split>*.jsonl.gz` in the same schema (below `data_dir`
    if one is given). FileNotFoundError says how to fetch what is not there; ValueError names missing columns.
    """
    from datasets import load_dataset

    folder = Path(path) / (data_dir or "")
    try:
        if Path(path).is_dir():
            kind, files = _local_files(folder, split)
            rows = load_dataset(kind, data_files={split: files}, split=split)
        else:
            rows = load_dataset(path, data_dir=data_dir, split=split)
    except OSError as error:  # ConnectionError and the hub's own errors are OSErrors
        raise FileNotFoundError(
            f"the data set {path} is neither a local folder nor in the local cache, and the hub cannot be reached "
            f"({type(error).__name__}); fetch it once with a network: `hf download --repo-type dataset {path}`"
        ) from error
    if set(columns) - set(rows.column_names):
        raise ValueError(f"{path} has the columns {rows.column_names}; it needs {' and '.join(columns)}")
    return rows.select_columns(list(columns)).to_pandas()


def _local_files(folder: Path, split: str) -> tuple[str, list[str]]:
    for kind, pattern in (("parquet", f"{split}*.parquet"), ("json", f"{split}*.jsonl.gz")):
        if found := sorted(str(path) for path in folder.glob(pattern)):
            return kind, found
    raise ValueError(f"the folder {folder} has no {split}*.parquet and no {split}*.jsonl.gz")


@dataclass(frozen=True)
class HubSource:
    """A hub data set with the columns text and label and the splits train and test (`stanfordnlp/imdb`)."""

    path: str
    origin: str = "imdb"

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return {"hub": self.path}

    def load(self) -> pd.DataFrame:
        """Load both splits; a clear error when the hub cannot be reached."""
        splits = [self._split(split) for split in ("train", "test")]
        return pd.concat(splits, ignore_index=True)[COLUMNS]

    def _split(self, split: str) -> pd.DataFrame:
        frame = load_split(self.path, split, ["text", "label"])
        return frame.assign(origin=self.origin, official_split=split)
