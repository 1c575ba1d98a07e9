"""How long GPUs take to exchange tensors: rings over NVLink within a node, over one network card a GPU between nodes."""

from __future__ import annotations

from dataclasses import dataclass

from scar.planning.devices import Device

NODE = 8
"""GPUs of a node."""


@dataclass(frozen=True)
class Network:
    """`ranks` GPUs in rings in which each sends `rate` bytes/s. Starting an exchange takes no time, and none of it hides behind
    computing."""

    ranks: int
    rate: float

    @classmethod
    def of(cls, device: Device, gpus: int | str) -> Network:
        """The GPUs of whole nodes, or of a part of one; ValueError for any other number. Between nodes a ring goes over every
        card of a node, so that together they carry as many bytes as the links within it, or fewer."""
        ranks = int(gpus) if str(gpus).isdecimal() else 0
        if ranks < 1 or (ranks > NODE and ranks % NODE):
            raise ValueError(f"gpus={gpus}; allowed: 1 to {NODE}, or a multiple of {NODE} (nodes of {NODE} GPUs)")
        rate = device.link_rate if ranks <= NODE else min(device.link_rate, NODE * device.network_rate)
        return cls(ranks, rate * device.link_share)

    def gather_seconds(self, size: float) -> float:
        """All-gather of parts that are `size` bytes together, or reduce-scatter of `size` bytes: every rank sends all parts but
        one."""
        return size * (self.ranks - 1) / self.ranks / self.rate

    def reduce_seconds(self, size: float) -> float:
        """All-reduce of `size` bytes: reduce-scatter, then all-gather."""
        return 2 * self.gather_seconds(size)
