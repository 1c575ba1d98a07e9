"""Models seen by a stage that knows nothing of processes: each call computes this process's rows and gathers those of all.

Everything else of an update (prompts, units, estimators, rewards, advantages) is small and is computed by every process
from the same numbers, so that every process holds the whole batch and no random draw depends on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from scar.engine.ranks import Ranks
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
    def decoder(self, prompts: PromptBatch) -> Iterator[SpreadDecoder]:
        """See Policy."""
        rows = self._ranks.share(len(prompts.texts))
        with self._whole(), self._policy.decoder(prompts.select(rows)) as local:
            yield SpreadDecoder(local, rows, self._ranks, len(prompts.texts))

    def evaluate(self, prompts: PromptBatch, response_ids: Tensor, response_mask: Tensor) -> PolicyOutput:
        """See Policy."""
        rows, batch = self._ranks.share(len(response_ids)), len(response_ids)
        with self._evaluating():
            out = self._policy.evaluate(prompts.select(rows), response_ids[rows], response_mask[rows])
        parts = (out.logprobs, out.entropy, out.values)
        return PolicyOutput(*(self._ranks.gather(part, batch) for part in parts))


class SpreadRewardModel:
    """A reward model's three ways to read."""

    def __init__(self, model: Any, ranks: Ranks, *, reading: Whole) -> None:
        self.space_id, self.max_tokens = model.space_id, model.max_tokens
        self._model, self._ranks, self._reading = model, ranks, reading

    def _spread(self, read: str, ids: Tensor, mask: Tensor) -> Tensor:
        rows = self._ranks.share(len(ids))
        with self._reading():
            found = self._model(ids[rows], mask[rows], read)
        return self._ranks.gather(found, len(ids))

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
        mine = list(batch)[self._ranks.rank :: self._ranks.count]
        with self._whole():
            found = self._scorer.score(mine) if mine else []
        scores: list[np.ndarray] = [np.empty(0)] * len(batch)
        for rank, part in enumerate(self._ranks.objects(found)):
            scores[rank :: self._ranks.count] = part
        return scores
