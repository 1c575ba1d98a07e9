"""How coalitions are scored: whole sequences, a shared prompt cache, or the fused trie; and which of them is used.

All give the same scores to rounding. `make_scorer` compares them on a small probe before a run trusts one.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from scar.coalitions.architectures import TRUNKS
from scar.coalitions.fused import FusedScorer
from scar.config import require
from scar.interfaces import CoalitionScorer
from scar.types import CoalitionRows

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "fused", "generic", "plain")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.15}
"""Largest allowed |difference| / (1 + |score|) to whole sequences, by the type in which the reward model is held; measured:
below 1e-5 in float32, below 0.1 in bfloat16 (random models). A wrong way to score is wrong by about 1."""


class SequenceScorer(Protocol):
    """A reward model around a Hugging Face model (scar/models/reward.py)."""

    space_id: int
    model: Any

    def score(self, ids: Tensor, mask: Tensor) -> Tensor:
        """f32[R]: the score read at each row's last real token."""
        ...

    def read(self, hidden: Tensor) -> Tensor:
        """Scores [...] of hidden states [..., H]."""
        ...


class PlainScorer:
    """Whole sequences through `RewardModel.score`: works for any reward model, bidirectional ones too."""

    def __init__(self, reward_model: SequenceScorer, *, device: torch.device) -> None:
        self.space_id = reward_model.space_id
        self._reward_model = reward_model
        self._device = device

    def score(self, batch: Sequence[CoalitionRows]) -> list[np.ndarray]:
        """See CoalitionScorer; rows of similar length share a forward pass."""
        texts = [
            np.concatenate([rows.prompt_ids, ids[:length]])
            for rows in batch
            for ids, length in zip(rows.ids, rows.lengths, strict=True)
        ]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        scores = np.empty(len(texts))
        for bucket in _length_buckets([len(texts[i]) for i in order]):
            members = order[bucket]
            ids = torch.zeros(len(members), len(texts[members[-1]]), dtype=torch.int64)
            mask = torch.zeros_like(ids, dtype=torch.bool)
            for row, i in enumerate(members):
                ids[row, : len(texts[i])] = torch.from_numpy(texts[i])
                mask[row, : len(texts[i])] = True
            scores[members] = self._reward_model.score(ids.to(self._device), mask.to(self._device)).double().cpu()
        return np.split(scores, np.cumsum([len(rows.ids) for rows in batch])[:-1])


def _length_buckets(lengths: list[int]) -> Iterator[slice]:
    """Runs of ascending lengths of which the longest is at most an eighth longer than the shortest."""
    start = 0
    for end in range(1, len(lengths) + 1):
        if end == len(lengths) or lengths[end] > lengths[start] * 9 / 8:
            yield slice(start, end)
            start = end


class CachedScorer:
    """Any causal Hugging Face model: each prompt's keys and values are computed once and shared by its coalitions.

    A prompt shorter than the response saves little: its coalitions are scored as whole sequences.
    """

    def __init__(self, reward_model: SequenceScorer, *, memory_bytes: int, device: torch.device) -> None:
        self.space_id = reward_model.space_id
        self._reward_model = reward_model
        self._model = reward_model.model
        self._memory_bytes = memory_bytes
        self._device = device
        self._plain = PlainScorer(reward_model, device=device)

    def score(self, batch: Sequence[CoalitionRows]) -> list[np.ndarray]:
        """See CoalitionScorer."""
        shares_prompt = [len(rows.prompt_ids) >= rows.ids.shape[1] and len(rows.ids) > 1 for rows in batch]
        rest = [rows for rows, shared in zip(batch, shares_prompt, strict=True) if not shared]
        plain = iter(self._plain.score(rest) if rest else [])
        return [
            self._score_behind(rows) if shared else next(plain)
            for rows, shared in zip(batch, shares_prompt, strict=True)
        ]

    @torch.no_grad()
    def _score_behind(self, rows: CoalitionRows) -> np.ndarray:
        """f64[M]: all rows of one prompt."""
        base, device = self._model.base_model, self._device
        prompt = torch.from_numpy(rows.prompt_ids)[None].to(device)
        prefix = base(input_ids=prompt, use_cache=True)
        layers = [(layer.keys, layer.values) for layer in prefix.past_key_values.layers]
        scores = np.empty(len(rows.ids))
        empty = rows.lengths == 0
        if empty.any():
            scores[empty] = float(self._reward_model.read(prefix.last_hidden_state[0, -1]))
        order = np.argsort(rows.lengths, kind="stable")
        order = order[~empty[order]]
        size = self._rows_per_chunk(len(rows.prompt_ids) + rows.ids.shape[1], layers)
        for start in range(0, len(order), size):
            index = order[start : start + size]
            scores[index] = self._score_chunk(rows.ids[index], rows.lengths[index], prompt.shape[1], layers)
        return scores

    def _rows_per_chunk(self, width: int, layers: list[tuple[Tensor, Tensor]]) -> int:
        """How many rows fit the memory bound: their copies of all keys and values, and the activations of their tokens."""
        keys = layers[0][0]
        config = self._model.config
        per_token = 4 * keys.element_size() * keys.shape[1] * keys.shape[3] * len(layers)
        per_token += 4 * 20 * config.hidden_size
        return max(1, self._memory_bytes // (width * per_token))

    def _score_chunk(
        self, ids: np.ndarray, lengths: np.ndarray, prompt_length: int, layers: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        width, count = int(lengths.max()), len(ids)
        tokens = torch.from_numpy(np.maximum(ids[:, :width], 0)).to(self._device)
        length = torch.from_numpy(lengths).to(self._device)
        # A fresh cache each time: the forward pass appends to it. `expand` shares the prompt until then.
        cache = DynamicCache([(k.expand(count, *k.shape[1:]), v.expand(count, *v.shape[1:])) for k, v in layers])
        positions = torch.arange(prompt_length, prompt_length + width, device=self._device)
        mask = torch.arange(prompt_length + width, device=self._device) < prompt_length + length[:, None]
        hidden = self._model.base_model(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=positions.expand(count, width),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return self._reward_model.read(hidden[torch.arange(count, device=self._device), length - 1]).double().cpu()


@dataclass(frozen=True)
class ScorerReport:
    """Which backend scores coalitions and how far it is from whole sequences in float32 on the start-up probe."""

    backend: str
    dtype: str
    largest_difference: float
    memory_mib: int

    def as_dict(self) -> dict[str, Any]:
        """For the manifest of a run."""
        return asdict(self)


def make_scorer(
    reward_model: SequenceScorer, *, backend: str, dtype: str, memory_mib: int, device: torch.device
) -> tuple[CoalitionScorer, ScorerReport]:
    """The scorer that `backend` names; "auto" is the fused one where the architecture is known, else the generic one.

    The scorer is compared with whole sequences on a probe. If it differs by more than rounding, a warning says so and the
    next simpler one is used. ValueError for settings that do not exist or do not go together.
    """
    require(backend in BACKENDS, f"coalitions.backend={backend}", ", ".join(BACKENDS))
    require(dtype in DTYPES, f"coalitions.dtype={dtype}", ", ".join(DTYPES))
    valid = isinstance(memory_mib, int) and not isinstance(memory_mib, bool) and memory_mib >= 1
    require(valid, f"coalitions.memory_mib={memory_mib}", "a whole number of MiB, 1 or more")
    if not hasattr(reward_model, "model"):  # any other reward model can only be asked for whole sequences
        fits = backend in ("auto", "plain") and dtype == "float32"
        require(fits, f"coalitions.backend={backend} dtype={dtype} for {type(reward_model).__name__}", "plain, float32")
        return PlainScorer(reward_model, device=device), ScorerReport("plain", dtype, 0.0, memory_mib)
    architecture = reward_model.model.config.model_type
    if backend == "fused":
        require(architecture in TRUNKS, f"coalitions.backend=fused for a {architecture} model", ", ".join(TRUNKS))
    memory_bytes = memory_mib * 2**20
    makers: dict[str, Callable[[SequenceScorer], CoalitionScorer]] = {
        "fused": lambda model: FusedScorer(
            TRUNKS[architecture](model.model.base_model),
            model.read,
            space_id=model.space_id,
            memory_bytes=memory_bytes,
            device=device,
        ),
        "generic": lambda model: CachedScorer(model, memory_bytes=memory_bytes, device=device),
        "plain": lambda model: PlainScorer(model, device=device),
    }
    first = {"auto": "fused" if architecture in TRUNKS else "generic"}.get(backend, backend)
    order = list(makers)
    weights_dtype = next(reward_model.model.base_model.parameters()).dtype
    probe = _probe(reward_model)
    truth = np.concatenate(PlainScorer(reward_model, device=device).score(probe))
    for name in order[order.index(first) :]:
        scorer = makers[name](reward_model)
        difference = _difference(scorer, probe, truth)
        if name == "plain" or difference <= TOLERANCES[weights_dtype]:
            if (
                DTYPES[dtype] != weights_dtype and dtype != "float32"
            ):  # the way is right; what narrower numbers cost is reported
                scorer = makers[name](_in_dtype(reward_model, dtype))
                difference = _difference(scorer, probe, truth)
            narrowest = dtype if weights_dtype == torch.float32 else str(weights_dtype).removeprefix("torch.")
            return scorer, ScorerReport(name, narrowest, difference, memory_mib)
        message = f"coalitions.backend={name} differs by {difference:.2g} from whole sequences on {architecture}"
        logger.warning("%s (allowed %.0e): using the next simpler one", message, TOLERANCES[weights_dtype])
    raise AssertionError("the plain backend is always accepted")


def _in_dtype(reward_model: SequenceScorer, dtype: str) -> SequenceScorer:
    """A copy whose trunk's weights are in a narrower type; its head and its rotary frequencies stay in float32."""
    narrow = copy.deepcopy(reward_model)
    for parameter in narrow.model.base_model.parameters():
        parameter.data = parameter.data.to(DTYPES[dtype])
    return narrow


def _probe(reward_model: SequenceScorer) -> list[CoalitionRows]:
    """A short and a longer prompt with coalitions of ragged responses, blanks included."""
    rng = np.random.default_rng(0)  # of its own: no stream of the run is touched
    vocabulary = int(reward_model.model.config.vocab_size)
    context = int(getattr(reward_model.model.config, "max_position_embeddings", 512) or 512)
    batch = []
    for prompt_length, width in (
        (min(3, context // 2), min(9, context // 2)),
        (min(40, context - context // 3), min(11, context // 3)),
    ):
        ids = np.tile(rng.integers(0, vocabulary, width), (6, 1))
        ids[rng.random(ids.shape) < 0.4] = reward_model.space_id
        lengths = np.maximum([width, width, width - 1, width - 4, 1, 0], 0)
        batch.append(CoalitionRows(rng.integers(0, vocabulary, prompt_length), ids, lengths))
    return batch


def _difference(scorer: CoalitionScorer, probe: list[CoalitionRows], truth: np.ndarray) -> float:
    """Largest |difference| / (1 + |score|) on the probe; infinite for a backend that cannot run this model."""
    try:
        scores = np.concatenate(scorer.score(probe))
    except (TypeError, AttributeError, RuntimeError, IndexError, ValueError) as error:
        logger.warning("coalition scorer %s cannot run this model: %s", type(scorer).__name__, error)
        return float("inf")
    return float((np.abs(scores - truth) / (1 + np.abs(truth))).max())
