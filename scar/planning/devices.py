"""GPUs and the time that work takes on them: products, other memory traffic, and what starting an operation costs."""

from __future__ import annotations

from dataclasses import dataclass

from scar.planning.tracing import Cost


@dataclass(frozen=True)
class Device:
    """`memory_bytes` of memory of which a share `reserve` is left alone; FLOP/s of bfloat16 and float32 products, bytes/s of
    its memory, of its link to the host, and that it sends to other GPUs of its node and through its network card to other
    nodes, each with the share that is assumed to be reached; seconds that the host takes to start an operation."""

    name: str
    memory_bytes: float
    narrow_rate: float
    wide_rate: float
    memory_rate: float
    host_rate: float
    link_rate: float = 0.0
    network_rate: float = 0.0
    product_share: float = 0.55  # ours: of products of 1-7B models, in which the smaller ones reach less
    memory_share: float = 0.80  # ours
    link_share: float = 0.75  # ours
    start_seconds: float = 10e-6  # ours: PyTorch without compilation, transformers' own Python included
    reserve: float = 0.08  # ours: CUDA context, cuBLAS workspaces, holes between the allocator's blocks

    @property
    def usable_bytes(self) -> float:
        """What a run may hold."""
        return self.memory_bytes * (1 - self.reserve)

    def seconds(self, cost: Cost) -> float:
        """Products take as long as their FLOPs or their bytes, whichever is longer; all else moves bytes; the host starts
        operations beside that and is waited for where it takes longer."""
        flops = cost.narrow_flops / self.narrow_rate + cost.wide_flops / self.wide_rate
        bandwidth = self.memory_rate * self.memory_share
        products = max(flops / self.product_share, cost.product_bytes / bandwidth)
        return max(products + cost.other_bytes / bandwidth, cost.operations * self.start_seconds)

    def transfer_seconds(self, moved_bytes: float) -> float:
        """Time to bring bytes from the host or back to it."""
        return moved_bytes / self.host_rate


DEVICES = {
    # NVIDIA's datasheets of SXM, dense rates; of NVLink one of two directions. float32 without TensorFloat-32, which PyTorch
    # leaves off. PCIe 4.0 or 5.0 x16, pinned or not; the network is ours: 200 or 400 Gb/s a GPU, as in NVIDIA's own nodes.
    "a100-80gb": Device("A100 80 GB", 80 * 2**30, 312e12, 19.5e12, 2.039e12, 25e9, 300e9, 25e9),
    "h100-80gb": Device("H100 80 GB", 80 * 2**30, 989e12, 67e12, 3.35e12, 50e9, 450e9, 50e9),
}


def device(name: str) -> Device:
    """A device of DEVICES by name; ValueError says which there are."""
    if name not in DEVICES:
        raise ValueError(f"gpu={name}; allowed: {', '.join(DEVICES)}")
    return DEVICES[name]


# How long GPUs take to exchange tensors: rings over NVLink within a node, over one network card a GPU between nodes.


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
