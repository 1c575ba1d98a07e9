"""Named random streams: every random draw of a run comes from a generator made here, never from a global one.

A stream is named by (seed, purpose, update), so adding draws for one purpose (say another Shapley estimator) leaves
every other stream (say the prompts) as it was, and a resumed run needs no generator state.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def stream_seed(seed: int, purpose: str, update: int = 0) -> int:
    """A 63-bit seed that depends on all three parts of the stream's name."""
    name = f"{seed}/{purpose}/{update}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, update: int = 0, *, device: str | torch.device = "cpu") -> torch.Generator:
    """The torch generator of stream (seed, purpose, update) on `device`."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, purpose, update))


def numpy_generator(seed: int, purpose: str, update: int = 0) -> np.random.Generator:
    """The NumPy generator of stream (seed, purpose, update)."""
    return np.random.default_rng(stream_seed(seed, purpose, update))
