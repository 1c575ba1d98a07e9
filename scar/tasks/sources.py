"""Where labelled texts come from: an installed data package, the Hugging Face hub, or files.

A source gives a frame with the columns `text`, `label` (0 or 1), `origin` and `official_split` ("train", "test" or
None). Cleaning, deduplication and our own splits belong to the task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scar.packages import PackageFile, not_on_hub

COLUMNS = ["text", "label", "origin", "official_split"]


@dataclass(frozen=True)
class PackageSource:
    """A CSV file (text, label, source) inside an installed data package (scar/packages.py)."""

    package: str
    version: str
    module: str
    member: str
    sha256: str

    @property
    def _file(self) -> PackageFile:
        return PackageFile(self.package, self.version, self.module, self.member, self.sha256)

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return self._file.identity()

    def load(self) -> pd.DataFrame:
        """Read the file; a clear error when the package is missing, of another version, or not as published."""
        frame = pd.read_csv(self._file.read()).rename(columns={"source": "origin"})
        return frame.assign(official_split=None)[COLUMNS]


def load_split(
    path: str, split: str, columns: Sequence[str], *, data_dir: str | None = None, revision: str | None = None
) -> pd.DataFrame:
    """The `columns` of one split of a hub data set, at a commit or (None) the newest.

    `path` is a hub name, or a folder with `<split>*.parquet` or `<split>*.jsonl.gz` in the same schema (below `data_dir`
    if one is given). FileNotFoundError says how to fetch what is not there; ValueError names missing columns.
    """
    from datasets import load_dataset

    if Path(path).is_dir():
        return load_files(Path(path) / (data_dir or ""), (f"{split}*.parquet", f"{split}*.jsonl.gz"), columns)
    try:
        rows = load_dataset(path, data_dir=data_dir, split=split, revision=revision)
    except OSError as error:  # ConnectionError and the hub's own errors are OSErrors
        raise FileNotFoundError(not_on_hub("data set", path, revision, error)) from error
    return _columns(rows, columns, path)


def load_files(folder: Path, patterns: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """The `columns` of the files in `folder` that fit the first of `patterns` that any fits; parquet or JSON lines.

    FileNotFoundError when the folder is not there, ValueError when it has no such file or a column is missing.
    """
    from datasets import load_dataset

    if not folder.is_dir():
        raise FileNotFoundError(f"the data folder {folder} does not exist; give one that has {' or '.join(patterns)}")
    for pattern in patterns:
        if files := sorted(str(path) for path in folder.glob(pattern)):
            kind = "parquet" if pattern.endswith(".parquet") else "json"
            return _columns(load_dataset(kind, data_files=files, split="train"), columns, str(folder))
    raise ValueError(f"the folder {folder} has no {' and no '.join(patterns)}")


def rows_digest(rows: pd.DataFrame) -> str:
    """sha256 of all values in their order: equal rows have one, wherever they lie."""
    return hashlib.sha256(rows.to_json(orient="values").encode()).hexdigest()


def _columns(rows: Any, columns: Sequence[str], path: str) -> pd.DataFrame:
    if set(columns) - set(rows.column_names):
        raise ValueError(f"{path} has the columns {rows.column_names}; it needs {' and '.join(columns)}")
    return rows.select_columns(list(columns)).to_pandas()


@dataclass(frozen=True)
class HubSource:
    """A hub data set with the columns text and label and the splits train and test (`stanfordnlp/imdb`)."""

    path: str
    revision: str | None = None
    origin: str = "imdb"

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return {"hub": self.path, "revision": self.revision}

    def load(self) -> pd.DataFrame:
        """Load both splits; a clear error when the hub cannot be reached."""
        splits = [self._split(split) for split in ("train", "test")]
        return pd.concat(splits, ignore_index=True)[COLUMNS]

    def _split(self, split: str) -> pd.DataFrame:
        frame = load_split(self.path, split, ["text", "label"], revision=self.revision)
        return frame.assign(origin=self.origin, official_split=split)


@dataclass(frozen=True)
class OfficialTest:
    """The texts of `package` as train data, and the official test split of IMDB from `path`: a folder with
    `imdb_test*.parquet` (columns text and label)."""

    package: PackageSource
    path: str

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return self.package.identity() | {"test": "official"}

    def load(self) -> pd.DataFrame:
        """Both; the package's reviews are the official train split."""
        train = self.package.load()
        train["official_split"] = train["origin"].map({"imdb": "train"}).astype(object)
        test = load_files(Path(self.path), ("imdb_test*.parquet",), ["text", "label"])
        test = test.assign(origin="imdb", official_split="test")
        return pd.concat([train, test], ignore_index=True)[COLUMNS]
