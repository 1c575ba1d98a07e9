"""Several processes played by threads of one: the same calls in the same order, without torch.distributed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from scar.engine.spread import Ranks

Result = TypeVar("Result")


class ThreadRanks(Ranks):
    """Shares as Ranks does; what others tell passes through a list that all threads see."""

    def __init__(self, rank: int, count: int, barrier: threading.Barrier, board: list[Any]) -> None:
        self.rank, self.count = rank, count
        self._barrier, self._board = barrier, board

    def objects(self, value: Any) -> list[Any]:
        self._board[self.rank] = value
        self._barrier.wait(timeout=60)
        found = list(self._board)
        self._barrier.wait(timeout=60)
        return found

    def gather(self, values: Tensor, rows: int) -> Tensor:
        return torch.cat(self.objects(values))[:rows]


def on_ranks(count: int, work: Callable[[Ranks], Result]) -> list[Result]:
    """What `work` gives on each of `count` processes."""
    barrier, board = threading.Barrier(count), [None] * count
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(work, ThreadRanks(rank, count, barrier, board)) for rank in range(count)]
        return [future.result() for future in futures]
