"""Reward models: sequence classifiers read at an explicit position, and their last-layer attention for ABC.

A row is ids plus a mask; a False column is not there at all (its neighbours' positions close up), so padding on either
side and deleted units need no special case. With two labels the score is logit[1] - logit[0], the log-odds of
"positive" (docs/decisions.md#imdb-score); with one label it is the logit itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from scar.models.policy import positions

SCORE_OFFSET = "score_offset"
"""Key of a model's config: what is taken off every score (tldr: the mean score of the train references,
docs/decisions.md#tldr-score)."""


class SequenceRewardModel(nn.Module):
    """A Hugging Face `...ForSequenceClassification` with one or two labels. `rows_a_batch` bounds memory."""

    def __init__(self, model: Any, *, space_id: int, rows_a_batch: int = 256) -> None:
        super().__init__()
        if model.config.num_labels not in (1, 2):
            raise ValueError(f"the reward model has {model.config.num_labels} labels; allowed: 1 or 2")
        if not isinstance(rows_a_batch, int) or rows_a_batch < 1:
            raise ValueError(f"models.reward.rows_a_batch={rows_a_batch}; allowed: 1 or more")
        self.model = model
        self.space_id = space_id
        self.rows_a_batch = rows_a_batch
        self.offset = float(getattr(model.config, SCORE_OFFSET, 0.0))
        self.eval()
        self.requires_grad_(False)

    @property
    def max_tokens(self) -> int:
        """The longest sequence that it reads."""
        return int(self.model.config.max_position_embeddings)

    def read(self, hidden: Tensor) -> Tensor:
        """Scores [...] of hidden states [..., H]; the head runs in float32."""
        logits = nn.functional.linear(hidden.float(), self.model.score.weight.float())
        return (logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]) - self.offset

    def as_value_net(self) -> tuple[nn.Module, nn.Linear]:
        """A trainable copy: trunk and head of a value function that starts by giving the scores of `read`."""
        weight = self.model.score.weight.detach().float()
        head = nn.utils.skip_init(nn.Linear, weight.shape[1], 1)
        with torch.no_grad():
            head.weight.copy_(weight if len(weight) == 1 else weight[1:] - weight[:1])
            head.bias.fill_(-self.offset)
        trunk = copy.deepcopy(self.model.base_model).float().requires_grad_(True)  # whatever it is held in here
        return trunk, head.to(weight.device)

    def _chunks(self, ids: Tensor, mask: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(ids), self.rows_a_batch):
            rows = slice(start, start + self.rows_a_batch)
            yield ids[rows], mask[rows]

    def _forward(self, ids: Tensor, mask: Tensor, **options: Any) -> Any:
        return self.model.base_model(
            input_ids=ids, attention_mask=mask.long(), position_ids=positions(mask), use_cache=False, **options
        )

    def forward(self, ids: Tensor, mask: Tensor, read: str) -> Tensor:
        """One of the three ways to read, by name, as engines call it."""
        ways = {way.__name__: way for way in (self.score, self.score_prefixes, self.last_layer_attention)}
        return ways[read](ids, mask)

    @torch.no_grad()
    def score(self, ids: Tensor, mask: Tensor) -> Tensor:
        """f32[R]: the score read at each row's last real token. Args: i64[R,L], b[R,L]."""
        scores = []
        for chunk_ids, chunk_mask in self._chunks(ids, mask):
            hidden = self._forward(chunk_ids, chunk_mask).last_hidden_state
            rows = torch.arange(len(hidden), device=hidden.device)
            scores.append(self.read(hidden[rows, last_real(chunk_mask)]))
        return torch.cat(scores)

    @torch.no_grad()
    def score_prefixes(self, ids: Tensor, mask: Tensor) -> Tensor:
        """f32[R,L]: the score read at every position; meaningful where the mask is True and the model is causal."""
        chunks = [self.read(self._forward(i, m).last_hidden_state) for i, m in self._chunks(ids, mask)]
        return torch.cat(chunks)

    @torch.no_grad()
    def last_layer_attention(self, ids: Tensor, mask: Tensor) -> Tensor:
        """f32[R,L]: attention of the last layer, mean over heads, from the position at which the score is read.

        Needs the eager attention (the fused kernels return no weights), so it is switched on for this call only.
        """
        usual = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")
        try:
            rows = []
            for chunk_ids, chunk_mask in self._chunks(ids, mask):
                attentions = self._forward(chunk_ids, chunk_mask, output_attentions=True).attentions
                if not attentions:
                    raise RuntimeError("the reward model returned no attention weights; ABC cannot be computed with it")
                last = attentions[-1].float().mean(1)
                rows.append(last[torch.arange(len(last), device=last.device), last_real(chunk_mask)])
            return torch.cat(rows) * mask
        finally:
            self.model.set_attn_implementation(usual)


def last_real(mask: Tensor) -> Tensor:
    """i64[R]: index of the last True column of each row. Raises ValueError for a row without one."""
    if not bool(mask.any(1).all()):
        raise ValueError("a sequence without any real token cannot be scored")
    width = mask.shape[1]
    return width - 1 - mask.flip(1).long().argmax(1)
