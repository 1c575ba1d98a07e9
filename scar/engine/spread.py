"""Models seen by a stage that knows nothing of processes: each call computes this process's rows and gathers those of all.

Everything else of an update (prompts, units, estimators, rewards, advantages) is small and is computed by every process
from the same numbers, so that every process holds the whole batch and no random draw depends on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from scar.interfaces import CoalitionScorer, Decoder, PolicyOutput
from scar.types import CoalitionRows, PromptBatch

Whole = Callable[[], AbstractContextManager[Any]]
"""Makes the context in which a model's weights are whole on this process."""


class SpreadDecoder:
    """Decodes this process's rows; `draw` and `append` see all."""

    def __init__(self, local: Decoder, rows: Tensor, ranks: Ranks, batch: int) -> None:
        self._local, self._rows = local, rows
        self._ranks, self._batch = ranks, batch

    def draw(self, noise: Tensor) -> Tensor:
        """See Decoder."""
        return self._ranks.gather(self._local.draw(noise[self._rows]), self._batch)

    def append(self, tokens: Tensor) -> None:
        """See Decoder."""
        self._local.append(tokens[self._rows])


class SpreadPolicy:
    """A policy without gradients. `whole` is around generation, which passes through all weights at every token;
    `evaluating` is around single passes."""

    def __init__(self, policy: Any, ranks: Ranks, *, whole: Whole, evaluating: Whole) -> None:
        self.eos_id, self.pad_id = policy.eos_id, policy.pad_id
        self.vocabulary = policy.vocabulary
        self._policy, self._ranks = policy, ranks
        self._whole, self._evaluating = whole, evaluating

    @contextmanager
    def decoder(self, prompts: PromptBatch, *, temperature: float | None = None) -> Iterator[SpreadDecoder]:
        """See Policy."""
        rows = self._ranks.share(len(prompts.texts))
        with self._whole(), self._policy.decoder(prompts.select(rows), temperature=temperature) as local:
            yield SpreadDecoder(local, rows, self._ranks, len(prompts.texts))

    def evaluate(self, prompts: PromptBatch, response_ids: Tensor, response_mask: Tensor) -> PolicyOutput:
        """See Policy."""
        rows, batch = self._ranks.share(len(response_ids)), len(response_ids)
        with self._evaluating():
            out = self._policy.evaluate(prompts.select(rows), response_ids[rows], response_mask[rows])
        outputs = (out.logprobs, out.entropy, out.values)
        return PolicyOutput(*(self._ranks.gather(values, batch) for values in outputs))


class SpreadRewardModel:
    """A reward model's three ways to read."""

    def __init__(self, model: Any, ranks: Ranks, *, reading: Whole) -> None:
        self.space_id, self.max_tokens = model.space_id, model.max_tokens
        self._model, self._ranks, self._reading = model, ranks, reading

    def _spread(self, read: str, ids: Tensor, mask: Tensor) -> Tensor:
        rows = self._ranks.share(len(ids))
        with self._reading():
            values = self._model(ids[rows], mask[rows], read)
        return self._ranks.gather(values, len(ids))

    def score(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See RewardModel."""
        return self._spread("score", ids, mask)

    def score_prefixes(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See RewardModel."""
        return self._spread("score_prefixes", ids, mask)

    def last_layer_attention(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See RewardModel."""
        return self._spread("last_layer_attention", ids, mask)


class SpreadScorer:
    """A coalition scorer: each process takes every n-th prompt with all its coalitions."""

    def __init__(self, scorer: CoalitionScorer, ranks: Ranks, *, whole: Whole) -> None:
        self.space_id = scorer.space_id
        self._scorer, self._ranks, self._whole = scorer, ranks, whole

    def score(self, batch: Sequence[CoalitionRows]) -> list[np.ndarray]:
        """See CoalitionScorer."""
        own_prompts = list(batch)[self._ranks.rank :: self._ranks.count]
        with self._whole():
            own_scores = self._scorer.score(own_prompts) if own_prompts else []
        scores: list[np.ndarray] = [np.empty(0)] * len(batch)
        for rank, rank_scores in enumerate(self._ranks.objects(own_scores)):
            scores[rank :: self._ranks.count] = rank_scores
        return scores


# The processes of one launch, and what they tell each other. torchrun and deepspeed name them in the environment.


def name_this_process(*, cuda: bool) -> None:
    """Without a launcher: one process, which then is the whole. On a GPU: this process's own is the current one."""
    if "WORLD_SIZE" not in os.environ:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        # Port 0: the store takes a free one as it binds. One that is looked for first can be taken in between.
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
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

    def gather(self, values: Tensor, rows: int) -> Tensor:
        """[rows, ...]: the shares of all processes, on every process."""
        parts = [torch.empty_like(values) for _ in range(self.count)]
        with _others():
            dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)[:rows]

    def objects(self, value: Any) -> list[Any]:
        """The values of all processes, in order."""
        values: list[Any] = [None] * self.count
        with _others():
            dist.all_gather_object(values, value)
        return values
