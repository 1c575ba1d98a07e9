"""Files inside installed Python packages, found without importing the package and checked before they are used."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def require_installed(module: str, *, extra: str, why: str) -> None:
    """FileNotFoundError with the command that installs it, unless the optional package `module` is there."""
    if importlib.util.find_spec(module) is None:
        install = f"install it with `python -m pip install 'scar[{extra}]'`"
        raise FileNotFoundError(f"{why} needs the package {module}, which is not installed; {install}")


@dataclass(frozen=True)
class PackageFile:
    """`member` of the module `module` that the distribution `package` of `version` installs. `pip_options` belong between
    `pip install` and the name."""

    package: str
    version: str
    module: str
    member: str
    sha256: str
    pip_options: str = ""

    def identity(self) -> dict[str, Any]:
        """What a model that rests on this file must name in its fingerprint."""
        return {"package": self.package, "version": self.version, "sha256": self.sha256}

    def read(self) -> Path:
        """The file; FileNotFoundError or ValueError when the package is missing, of another version, or not as published."""
        options = f"{self.pip_options} " if self.pip_options else ""
        install = f"install it with `python -m pip install {options}{self.package}=={self.version}`"
        try:
            installed = importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError as error:
            raise FileNotFoundError(f"the data package {self.package} is not installed; {install}") from error
        if installed != self.version:
            raise ValueError(
                f"the data package {self.package} is {installed}, this task needs {self.version}; {install}"
            )
        path = self._path()
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise FileNotFoundError(
                f"the data package {self.package} lacks {self.member} ({error}); re{install}"
            ) from error
        if digest != self.sha256:
            raise ValueError(f"{path} is damaged (sha256 {digest[:12]}, expected {self.sha256[:12]}); re{install}")
        return path

    def _path(self) -> Path:
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"the data package {self.package} has no module {self.module}; reinstall it")
        return Path(spec.submodule_search_locations[0]) / self.member
