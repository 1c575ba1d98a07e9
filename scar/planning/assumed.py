"""What the planner assumes, in the words that its reports end with."""

from __future__ import annotations

from collections.abc import Iterator

from scar.planning.devices import Device
from scar.planning.formats import GB
from scar.planning.links import NODE, Network
from scar.planning.runs import UNIT_TOKENS, USUAL_TOKENS
from scar.planning.zero import PREFETCH_BUCKET, REDUCE_BUCKET, REUSE_DISTANCE

ERROR = (
    "Beside small models measured on a CPU (`make bench BENCH=planning`) memory is 0 to 6 % too high; time, with rates measured "
    "there, is 0.4 to 1.6 times what it was. No GPU has been measured: the shares below are assumptions."
)


def assumptions(device: Device) -> Iterator[str]:
    """Of every report."""
    lengths = ", ".join(f"{task} {prompt} + {response}" for task, (prompt, response) in USUAL_TOKENS.items())
    units = ", ".join(f"{tokens} a {unit}" for unit, tokens in UNIT_TOKENS.items())
    yield (
        "How: the run's own code is traced at full size on tensors that have shapes and no numbers. GB are 10^9 bytes. "
        f"{ERROR}\n"
    )
    yield (
        f"Memory: {device.reserve:.0%} of {device.memory_bytes / GB:.1f} GB are left to CUDA, cuBLAS and the allocator's "
        "holes. Batches are as wide as the config allows; SCAR's credit takes all of coalitions.memory_mib; evaluation "
        "counts with its own batch size.\n"
    )
    yield (
        f"Time: {device.product_share:.0%} of {device.narrow_rate / 1e12:.0f} (bfloat16) and {device.wide_rate / 1e12:.1f} "
        f"(float32) TFLOP/s in matrix products, {device.memory_share:.0%} of {device.memory_rate / 1e12:.2f} TB/s in all "
        f"else, an operation every {device.start_seconds * 1e6:.0f} microseconds at most; every response is sampled to the "
        f"longest length. Credit is of usual lengths (prompt + response tokens: {lengths}; else the config's own) and units "
        f"({units} tokens). Parsing on the CPU is not counted."
    )


def rank_assumptions(device: Device, network: Network) -> Iterator[str]:
    """Of a report on several GPUs, beside the others."""
    yield (
        f"\nZeRO: every batch is split over the {network.ranks} GPUs, so that a rank computes 1/{network.ranks} of its rows. As "
        "DeepSpeed 0.19 does with float32 parameters, it keeps another float32 copy of its part of what is trained (optimizer), "
        "at every stage; gradients are whole at stage 1 and a part at stages 2 and 3, where stage 3 keeps them between updates. "
        f"Buffers: a bucket of {REDUCE_BUCKET:.0e} gradients and a copy of what is in it (reduce_bucket_size: 2 GB however small "
        "the model); at stage 3 also gathered parameters: all of policy and value function to sample, else at most those of one "
        f"layer, {PREFETCH_BUCKET:.0e} fetched ahead and {REUSE_DISTANCE / 2:.0e} that are needed again soon "
        "(stage3_max_reuse_distance). Frozen models that are sharded too are gathered whole to score coalitions, else layer by "
        "layer. What loading and flattening models takes at the start is not counted. Sizes were compared with DeepSpeed on "
        "two CPU ranks only.\n"
    )
    yield (
        f"Exchange: rings of {network.rate / 1e9:.0f} GB/s a GPU, {device.link_share:.0%} of {device.link_rate / 1e9:.0f} GB/s "
        f"over NVLink in a node of {NODE}, or of {NODE} network cards of {device.network_rate / 1e9:.0f} GB/s where they are "
        "slower and there are several nodes. Stages 1 and 2 reduce gradients to every rank (stage 1 at each optimizer step, "
        "stage 2 at each backward pass) and gather new parameters; stage 3 gathers parameters in each forward and each backward "
        "pass and reduces gradients to their owners. Nothing is exchanged while something is computed, and starting takes no "
        "time. GPU-hours are hours times GPUs."
    )
