"""A rank of DeepSpeed on a CPU that says which bytes it holds; tests/planning/test_zero_measured.py starts two of them.

Gradients that only autograd holds are not seen, so it looks when they are put aside or gone.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import deepspeed
import torch
from torch import nn

WIDTH, LAYERS, BUCKET_LAYERS, PASSES = 256, 8, 3, 2


def held_bytes() -> int:
    """Of all tensors that there are."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor) and not thing.is_meta]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def measure(stage: int) -> dict[str, int]:
    """Bytes at rest and after the backward passes of the second step, of two passes a step."""
    before = held_bytes()
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    zero = {"stage": stage, "reduce_bucket_size": BUCKET_LAYERS * WIDTH**2, "stage3_param_persistence_threshold": 0}
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": PASSES,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": zero,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(model.parameters()), config=config)
    found = {}
    for _ in range(2):
        for _ in range(PASSES):
            engine.backward(engine(torch.ones(1, WIDTH)).sum())
            found["learning"] = held_bytes() - before
            engine.step()
        found["at rest"] = held_bytes() - before
    engine.destroy()
    return found


if __name__ == "__main__":
    deepspeed.init_distributed(dist_backend="gloo")
    measured = {stage: measure(stage) for stage in (1, 2, 3)}
    if torch.distributed.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(measured), encoding="utf-8")
    torch.distributed.destroy_process_group()
