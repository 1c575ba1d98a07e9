"""GPUs and the time that work takes on them: products, other memory traffic, and what starting an operation costs."""

from __future__ import annotations

from dataclasses import dataclass

from scar.planning.tracing import Cost


@dataclass(frozen=True)
class Device:
    """`memory_bytes` of memory of which a share `reserve` is left alone; FLOP/s of bfloat16 and float32 products and bytes/s of
    its memory, each with the share that is assumed to be reached; bytes/s of its link to the host; seconds that the host takes
    to start an operation."""

    name: str
    memory_bytes: float
    narrow_rate: float
    wide_rate: float
    memory_rate: float
    host_rate: float
    product_share: float = 0.55  # chosen by us: of products of 1-7B models, in which the smaller ones reach less
    memory_share: float = 0.80  # chosen by us
    start_seconds: float = 10e-6  # chosen by us: PyTorch without compilation, transformers' own Python included
    reserve: float = 0.08  # chosen by us: CUDA context, cuBLAS workspaces, holes between the allocator's blocks

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
    # NVIDIA's datasheets of SXM, dense rates. float32 without TensorFloat-32, which PyTorch leaves off. PCIe 4.0 or 5.0 x16,
    # pinned or not.
    "a100-80gb": Device("A100 80 GB", 80 * 2**30, 312e12, 19.5e12, 2.039e12, 25e9),
    "h100-80gb": Device("H100 80 GB", 80 * 2**30, 989e12, 67e12, 3.35e12, 50e9),
}


def device(name: str) -> Device:
    """A device of DEVICES by name; ValueError says which there are."""
    if name not in DEVICES:
        raise ValueError(f"gpu={name}; allowed: {', '.join(DEVICES)}")
    return DEVICES[name]


NODE = 8
"""GPUs of a node."""


def gpu_count(count: object) -> int:
    """GPUs of one run; ValueError unless they are a part of a node or whole nodes."""
    if type(count) is not int or count < 1 or (count > NODE and count % NODE):
        raise ValueError(f"gpus={count}; allowed: 1 to {NODE}, or a multiple of {NODE} (nodes of {NODE} GPUs)")
    return count
