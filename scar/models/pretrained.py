"""Pretrained language models that policies and reward models start from: on the hub, or in an installed package."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scar.config import fingerprint
from scar.models.cache import ModelCache
from scar.packages import PackageFile, require_installed

CONVERSION = 1
"""Raised when the conversion of packaged models changes what it produces."""


@dataclass(frozen=True)
class HubModel:
    """A checkpoint on the hub, or the folder `name`; `revision` a commit, None the newest. `shape` is its published
    configuration, which `make check` reads."""

    name: str
    revision: str | None
    shape: Mapping[str, Any]

    def identity(self) -> dict[str, Any]:
        """What a model that starts from it must name in its fingerprint."""
        return {"hub": self.name, "revision": self.revision}

    def find(self, cache: ModelCache) -> tuple[str, str | None]:
        """Name and revision for the functions of scar/models/loading.py."""
        return self.name, self.revision


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file of an installed package. Its weights are unpacked to float32 once and kept in the cache."""

    package: str
    version: str
    module: str
    member: str
    sha256: str
    shape: Mapping[str, Any]

    @property
    def _file(self) -> PackageFile:
        # Its dependencies build a C++ runtime that nothing here needs.
        options = "--no-deps"
        return PackageFile(self.package, self.version, self.module, self.member, self.sha256, pip_options=options)

    def identity(self) -> dict[str, Any]:
        """What a model that starts from it must name in its fingerprint."""
        return self._file.identity() | {"conversion": CONVERSION}

    def find(self, cache: ModelCache) -> tuple[str, str | None]:
        """The folder of the unpacked model, which is made when it is missing; see HubModel."""
        kind, name = "pretrained", fingerprint(self.identity())
        if not cache.has(kind, name):
            self._unpack(cache, kind, name)
        return str(cache.folder(kind, name)), None

    def _unpack(self, cache: ModelCache, kind: str, name: str) -> None:
        require_installed("gguf", extra="small", why=f"unpacking {self.member}")
        path = self._file.read()
        options = {"gguf_file": path.name}
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
        unpacked = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options)
        config = copy.deepcopy(unpacked.config)
        del config.quantization_config
        # The unpacked one still counts as quantised and cannot be saved.
        model = AutoModelForCausalLM.from_config(config)
        model.load_state_dict(unpacked.state_dict())
        parameters = sum(parameter.numel() for parameter in model.parameters())
        cache.save(kind, name, parts=[model, tokenizer], report=self.identity() | {"parameters": parameters})
