"""What a config needs from the hub, fetched into the local cache, so that a machine without a network can run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from scar.commands.targets import plain
from scar.identity import data_source
from scar.packages import HUB, check_names

UNUSED = ("*.msgpack", "*.h5", "*.ot", "*.onnx", "onnx/*", "*.tflite", "coreml/*", "rust_model*")
"""Copies of the weights in formats that nothing here reads."""


@dataclass(frozen=True, order=True)
class Repository:
    """A model or data set (`kind`) of the hub, at a commit or (None) the newest; of `folder` within it, None for all."""

    kind: str
    name: str
    revision: str | None = None
    folder: str | None = None


def repositories(cfg: DictConfig) -> Iterator[Repository]:
    """All that this config loads from the hub; what is a folder on this machine is left out."""
    source = cfg.task.sources.hub if data_source(cfg.task) == "hub" else None
    for named in check_names(plain(cfg.models), None if source is None else plain(source)):
        data = named.key.startswith(HUB)
        folder = source.get("data_dir") if data and source is not None else None
        if not Path(named.name).exists():
            yield Repository("dataset" if data else "model", named.name, named.revision, folder)


def fetch(repository: Repository, download: Callable[..., str]) -> str:
    """Fetch one repository with `download` (`huggingface_hub.snapshot_download`); returns the folder in the cache.

    FileNotFoundError where the hub cannot be reached or refuses.
    """
    options: dict[str, Any] = {
        "repo_type": repository.kind,
        "revision": repository.revision,
        "ignore_patterns": list(UNUSED),
    }
    if repository.folder is not None:
        options["allow_patterns"] = [f"{repository.folder}/*"]
    try:
        return download(repository.name, **options)
    except OSError as error:  # no network, no such name, no access
        raise FileNotFoundError(f"the {repository.kind} {repository.name} cannot be fetched: {error}") from error
