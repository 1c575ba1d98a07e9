"""What is installed and what is on the hub: files inside packages, checked before use; names of hub models and data sets."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants


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


# What to do when something of the hub is not on this machine: one message for models and data sets.


def not_on_hub(kind: str, name: str, revision: str | None, error: BaseException) -> str:
    """Why the `kind` ("model", "data set") `name` could not be loaded, and the command that fetches it."""
    command = "hf download" + (" --repo-type dataset" if kind == "data set" else "") + f" {name}"
    command += f" --revision {revision}" if revision else ""
    switch = (
        "HF_HUB_OFFLINE=1 forbids to ask the hub"
        if constants.HF_HUB_OFFLINE
        else "the hub cannot be reached or refuses"
    )
    return (
        f"the {kind} {name}{f' at {revision}' if revision else ''} is neither a local folder nor in the cache "
        f"{constants.HF_HUB_CACHE}, and {switch} ({_reason(error)}); fetch it once with a network: `{command}` "
        "(a gated or private one needs access on its page and `hf auth login`; HF_HOME chooses another cache)"
    )


def _reason(error: BaseException) -> str:
    """The innermost cause by type: it tells a gated repository from an unknown name and a missing network."""
    while error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__


# Whether the names and revisions of hub models and data sets in a config can be right, without asking the hub.


HUB = "task.sources.hub"
COMMIT = re.compile(r"[0-9a-f]{40}")
ABBREVIATED = re.compile(r"[0-9a-fA-F]{7,}")
BRANCH = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)


@dataclass(frozen=True)
class Named:
    """What a config asks the hub for: `name`, which stands at `key`, at `revision` (None: the newest)."""

    key: str
    name: str
    revision_key: str
    revision: str | None

    @property
    def state(self) -> str:
        """For a table: commit, branch, "newest" or "local folder"."""
        if Path(self.name).is_dir():
            return "local folder"
        return "newest" if self.revision is None else self.revision


def check_names(models: Mapping[str, Any], hub_source: Mapping[str, Any] | None) -> list[Named]:
    """Everything that `cfg.models` and `cfg.task.sources.hub` name; ValueError for a name or revision that cannot be."""
    names = list(_models(models, "models"))
    source = hub_source or {}
    for key, path in source.items():
        if key.endswith("path"):
            revision = key.replace("path", "revision")
            names.append(Named(f"{HUB}.{key}", path, f"{HUB}.{revision}", source.get(revision)))
    for named in names:
        _check(named)
    return names


def _models(node: Mapping[str, Any], key: str) -> Iterator[Named]:
    if node.get("name") is not None:
        yield Named(f"{key}.name", node["name"], f"{key}.revision", node.get("revision"))
    for name, inner in node.items():
        if isinstance(inner, Mapping):
            yield from _models(inner, f"{key}.{name}")


def _check(named: Named) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        if not (isinstance(named.name, str) and Path(named.name).is_dir()):
            validate_repo_id(named.name)
    except HFValidationError as error:
        allowed = "owner/name as on the hub, or an existing folder"
        raise ValueError(f"{named.key}={named.name}; allowed: {allowed} ({error})") from error
    revision = named.revision
    if revision is None or (isinstance(revision, str) and COMMIT.fullmatch(revision)):
        return
    if not isinstance(revision, str) or ABBREVIATED.fullmatch(revision) or not BRANCH.fullmatch(revision):
        allowed = "null (the newest), a commit of 40 characters 0-9a-f, a branch or a tag"
        raise ValueError(f"{named.revision_key}={revision}; allowed: {allowed}")
