"""Whether the names and revisions of hub models and data sets in a config can be right, without asking the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUB = "task.sources.hub"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
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
    found = list(_models(models, "models"))
    source = hub_source or {}
    for key, path in source.items():
        if key.endswith("path"):
            revision = key.replace("path", "revision")
            found.append(Named(f"{HUB}.{key}", path, f"{HUB}.{revision}", source.get(revision)))
    for one in found:
        _check(one)
    return found


def _models(node: Mapping[str, Any], key: str) -> Iterator[Named]:
    if node.get("name") is not None:
        yield Named(f"{key}.name", node["name"], f"{key}.revision", node.get("revision"))
    for name, inner in node.items():
        if isinstance(inner, Mapping):
            yield from _models(inner, f"{key}.{name}")


def _check(one: Named) -> None:
    named = isinstance(one.name, str) and (HUB_NAME.fullmatch(one.name) or Path(one.name).is_dir())
    if not named:
        raise ValueError(f"{one.key}={one.name}; allowed: owner/name as on the hub, or an existing folder")
    revision = one.revision
    if revision is None or (isinstance(revision, str) and COMMIT.fullmatch(revision)):
        return
    if not isinstance(revision, str) or ABBREVIATED.fullmatch(revision) or not BRANCH.fullmatch(revision):
        allowed = "null (the newest), a commit of 40 characters 0-9a-f, a branch or a tag"
        raise ValueError(f"{one.revision_key}={revision}; allowed: {allowed}")
