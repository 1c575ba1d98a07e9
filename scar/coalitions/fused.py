"""The fused scorer: a forward pass over the trie of a batch's coalitions, behind prompts that are computed once.

Tokens of all stages lie flat in one matrix, so every projection is one product per layer; attention goes stage by
stage. A long prompt's keys and values are shared by all its coalitions (attended apart, merged by log-sum-exp); short
prompts are the trie's first stage. In the last layer only the tokens at which a score is read are finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from scar.coalitions.architectures import Trunk
from scar.coalitions.trie import Trie, build_trie, chunks, cut_columns, new_tokens, sort_rows
from scar.coalitions.trie_attention import SharedPrompts, attend_reads, attend_stages, lay_out
from scar.types import CoalitionRows

# Example: the trie of scar/coalitions/trie.py, 7 coalitions of "not really bad" behind "The film is", in a model of width H.
# `embed` gives the flat matrix [18,H]: rows 0-2 the prompt (positions 0-2), rows 3-10 stage 1 (positions 3-4, four times),
# rows 11-17 stage 2 (position 5). Each layer but the last projects all 18 rows at once and attends three times: 1 node of 3
# queries and 3 keys, 4 nodes of 2 and 5, 7 nodes of 1 and 6. The last layer finishes rows 11-17 alone, and `read` gives 7 scores.

SHORT_PROMPT = 32
"""Up to so many tokens a prompt is cheaper as the first stage of the trie than attended to apart."""
STAGE_TOKENS = 6
"""About so many columns per stage; more stages share more and make smaller attention calls."""
MAX_STAGES = 8
PROMPT_SHARE = 4
"""At most 1/4 of the memory goes to the keys and values of several long prompts; one alone may take more."""
CPU_CHUNK_BYTES = 96 * 2**20
"""More in one pass makes a CPU slower, not faster: tensors no longer fit its caches and are paged in anew each time."""
SLACK = 2
"""Resident memory grows by about twice what the live tensors take (`make bench BENCH=memory`)."""


class FusedScorer:
    """Scores coalitions with a trunk and a head; `memory_bytes` bounds what one pass holds beside the model."""

    def __init__(
        self, trunk: Trunk, read: Callable[[Tensor], Tensor], *, space_id: int, memory_bytes: int, device: torch.device
    ) -> None:
        self.space_id = space_id
        self._trunk, self._read = trunk, read
        self._device = device
        self._prompt_bytes = memory_bytes // PROMPT_SHARE
        self._chunk_bytes = memory_bytes - self._prompt_bytes
        self._usual_bytes = CPU_CHUNK_BYTES if device.type == "cpu" else None

    @torch.no_grad()
    def score(self, batch: Sequence[CoalitionRows]) -> list[np.ndarray]:
        """See CoalitionScorer. ValueError when the memory bound does not allow even one row."""
        nonempty = [i for i in range(len(batch)) if len(batch[i].ids)]
        order = sorted(nonempty, key=lambda i: (len(batch[i].prompt_ids), batch[i].ids.shape[1]))
        short = [i for i in order if len(batch[i].prompt_ids) <= SHORT_PROMPT]
        out: list[np.ndarray] = [np.empty(0)] * len(batch)
        for members, shared in [(short, False), *((group, True) for group in self._groups(batch, order[len(short) :]))]:
            group = [batch[i] for i in members]
            prompts = self._prefill([rows.prompt_ids for rows in group]) if shared else None
            for i, scores in zip(members, self._score_group(group, prompts) if group else [], strict=True):
                out[i] = scores
        return out

    def _groups(self, batch: Sequence[CoalitionRows], order: list[int]) -> Iterator[list[int]]:
        """Long prompts in ascending length whose keys and values are held together."""
        trunk = self._trunk
        per_token = 2 * trunk.layers * trunk.heads * trunk.head_dim * self._element_bytes + self._token_bytes
        group: list[int] = []
        for i in order:
            prompt_bytes, limit = len(batch[i].prompt_ids) * per_token, self._prompt_bytes + self._chunk_bytes
            if prompt_bytes > limit:
                message = f"a prompt of {len(batch[i].prompt_ids)} tokens needs {prompt_bytes} bytes"
                raise ValueError(f"{message}, the limit is {limit}; raise coalitions.memory_mib")
            if group and (len(group) + 1) * len(batch[i].prompt_ids) * per_token > self._prompt_bytes:
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    @property
    def _element_bytes(self) -> int:
        return 4  # of float32; with a narrower model the bound holds with room

    @property
    def _token_bytes(self) -> int:
        """Most bytes that one token's activations take while a layer is computed."""
        return SLACK * self._element_bytes * (8 * self._trunk.width + 2 * self._trunk.mlp_width)

    def _prefill(self, prompt_ids: list[np.ndarray]) -> SharedPrompts:
        """Run the prompts once; rows are padded on the right, where causal attention never looks."""
        trunk, device = self._trunk, self._device
        lengths = [len(ids) for ids in prompt_ids]
        batch, width = len(lengths), max(lengths)
        ids = np.zeros((batch, width), dtype=np.int64)
        for row, prompt in enumerate(prompt_ids):
            ids[row, : len(prompt)] = prompt
        positions = torch.arange(width, device=device).repeat(batch)
        x = trunk.embed(torch.from_numpy(ids.ravel()).to(device), positions)
        ends = torch.arange(batch, device=device) * width + torch.tensor(lengths, device=device) - 1
        keys, values = [], []
        for layer in range(trunk.layers):
            q, k, v = (tensor.view(batch, width, *tensor.shape[1:]) for tensor in trunk.project(layer, x, positions))
            keys.append(k.contiguous())
            values.append(v.contiguous())
            q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
            attended = scaled_dot_product_attention(q, k, v, scale=trunk.scale(layer), is_causal=True)
            attended = attended.transpose(1, 2).reshape(batch * width, -1)
            if layer == trunk.layers - 1:
                attended, x = attended[ends], x[ends]
            x = trunk.finish(layer, x, attended)
        return SharedPrompts(keys, values, lengths, self._read(trunk.close(x)).double().cpu())

    def _score_group(self, group: list[CoalitionRows], prompts: SharedPrompts | None) -> list[np.ndarray]:
        rows, prompt_ids = sort_rows(group), [coalitions.prompt_ids for coalitions in group]
        width = rows.ids.shape[1]
        cuts = cut_columns(width, max(2, min(MAX_STAGES, round(width / STAGE_TOKENS))))
        added, alone = (new_tokens(rows, cuts, alone=alone) for alone in (False, True))
        context = width
        if prompts is None:  # a prompt is computed again in every chunk that it occurs in
            lengths = np.array([len(ids) for ids in prompt_ids])
            context += int(lengths.max())
            added += (rows.first_difference == 0) * lengths[rows.owner]
            alone += lengths[rows.owner]
        costs, first_costs = (self._row_bytes(tokens, context) for tokens in (added, alone))
        scores = np.empty(len(rows.ids))
        for index in chunks(costs, first_costs, self._chunk_bytes, usual=self._usual_bytes):
            scores[index] = self._score_trie(
                build_trie(rows, index, cuts, prompt_ids, with_prompts=prompts is None), prompts
            ).numpy()
        as_given = np.empty(len(scores))
        as_given[rows.order] = scores
        return np.split(as_given, np.cumsum([len(coalitions.ids) for coalitions in group])[:-1])

    def _row_bytes(self, tokens: np.ndarray, context: int) -> np.ndarray:
        """Bytes that each row adds: activations of its new tokens, keys and values of all that its last token sees."""
        trunk = self._trunk
        keys_values = 2 * context * trunk.heads * trunk.head_dim * self._element_bytes
        return tokens * self._token_bytes + SLACK * keys_values

    def _score_trie(self, trie: Trie, prompts: SharedPrompts | None) -> Tensor:
        """f64[R]: the score of every row of a trie."""
        trunk, last = self._trunk, self._trunk.layers - 1
        scores = torch.empty(len(trie.owner), dtype=torch.float64)
        if prompts is not None:  # of rows without a token
            scores = prompts.scores[torch.from_numpy(trie.owner)]
        if not trie.stages:
            return scores
        dtype = next(trunk.model.parameters()).dtype
        layout = lay_out(trie, device=self._device, dtype=dtype)
        x = trunk.embed(layout.ids, layout.positions)
        for layer in range(last):
            x = trunk.finish(layer, x, attend_stages(trunk, layer, x, layout, prompts))
        attended = attend_reads(trunk, last, x, layout, prompts)
        tokens, rows = (torch.cat([getattr(reads, name) for reads in layout.reads]) for name in ("token", "row"))
        hidden = trunk.close(trunk.finish(last, x[tokens], attended))
        scores[rows.cpu()] = self._read(hidden).double().cpu()
        return scores
