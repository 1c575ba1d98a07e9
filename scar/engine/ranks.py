"""The processes of one launch, and what they tell each other. torchrun and deepspeed name them in the environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def name_this_process(*, cuda: bool) -> None:
    """Without a launcher: one process, which then is the whole. On a GPU: this process's own is the current one."""
    if "WORLD_SIZE" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns at every start


@contextmanager
def _others() -> Iterator[None]:
    """Context of a message: the other processes must be there."""
    try:
        yield
    except RuntimeError as error:  # of the backend; its text is about sockets
        raise ConnectionError(
            "another process of this run has ended or cannot be reached; its own error says why"
        ) from error


class Ranks:
    """The processes, which all call the same functions in the same order. `rank` of `count`."""

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()

    def share(self, rows: int) -> Tensor:
        """i64[ceil(rows / count)]: which of `rows` rows this process computes. Where they do not come out even the last row is
        computed more than once, so that all processes make the same passes."""
        size = -(-rows // self.count)
        return (torch.arange(size) + self.rank * size).clamp(max=rows - 1)

    def gather(self, part: Tensor, rows: int) -> Tensor:
        """[rows, ...]: the shares of all processes, on every process."""
        parts = [torch.empty_like(part) for _ in range(self.count)]
        with _others():
            dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)[:rows]

    def objects(self, value: Any) -> list[Any]:
        """The values of all processes, in order."""
        found: list[Any] = [None] * self.count
        with _others():
            dist.all_gather_object(found, value)
        return found
