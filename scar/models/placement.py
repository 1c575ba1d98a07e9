"""Where models are while a stage does not need them: on the device, or (memory.offload) in the host's memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn


class HostParking:
    """Keeps modules on the host and brings them to `device` for the stages that need them: `needed` names the modules of a
    stage. A module that is needed within an enclosing stage already stays where it is."""

    def __init__(self, needed: Mapping[str, Sequence[nn.Module]], device: torch.device) -> None:
        self._needed = needed
        self._device = device
        for module in {id(module): module for modules in needed.values() for module in modules}.values():
            module.to("cpu")

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Context of a stage."""
        brought = [module for module in self._needed.get(stage, ()) if next(module.parameters()).device.type == "cpu"]
        try:
            for module in brought:
                module.to(self._device)
            yield
        finally:
            for module in brought:
                module.to("cpu")
