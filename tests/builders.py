"""Small rollouts, scores, reward models and games for tests, made of plain numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scar.config import PPOConfig
from scar.engine.single import TorchLearner
from scar.models.reading import as_sampled
from scar.ppo.updater import PPOUpdater
from scar.types import CoalitionPlan, CoalitionRows, PromptBatch, Rollout, Scores, Units

EOS, PAD, SPACE = 0, 1, 2
FIRST_CONTENT, FIRST_PROMPT = 10, 500


def pad_right(rows: Sequence[Sequence[float]], fill: float, dtype: torch.dtype, extra: int = 0) -> Tensor:
    width = max(len(row) for row in rows) + extra
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=dtype)


def rollout_of(
    contents: Sequence[Sequence[int]],
    finished: Sequence[bool],
    *,
    prompts: Sequence[Sequence[int]] | None = None,
    prompt_padding: int = 0,
    response_padding: int = 0,
    logprobs: Sequence[Sequence[float]] | None = None,
    ref_logprobs: Sequence[Sequence[float]] | None = None,
    values: Sequence[Sequence[float]] | None = None,
) -> Rollout:
    """A rollout with these content tokens (EOS is added where `finished`); log-probabilities and values default to 0."""
    if prompts is None:
        prompts = [[FIRST_PROMPT + 10 * row, FIRST_PROMPT + 10 * row + 1] for row in range(len(contents))]
    responses = [[*ids, EOS] if done else list(ids) for ids, done in zip(contents, finished, strict=True)]
    response_ids = pad_right(responses, PAD, torch.int64, response_padding)
    mask = pad_right([[1] * len(ids) for ids in responses], 0, torch.bool, response_padding)

    def floats(rows: Sequence[Sequence[float]] | None) -> Tensor:
        if rows is None:
            return torch.zeros(mask.shape)
        return pad_right(rows, 0.0, torch.float32, mask.shape[1] - max(len(row) for row in rows))

    flipped = [list(ids)[::-1] for ids in prompts]
    batch = PromptBatch(
        pad_right(flipped, PAD, torch.int64, prompt_padding).flip(1),
        pad_right([[1] * len(ids) for ids in flipped], 0, torch.bool, prompt_padding).flip(1),
        [f"prompt {ids}" for ids in prompts],
    )
    return Rollout(
        prompts=batch,
        response_ids=response_ids,
        response_mask=mask,
        logprobs=floats(logprobs),
        ref_logprobs=floats(ref_logprobs),
        values=floats(values),
        finished=torch.tensor(list(finished)),
        texts=[f"response {ids}" for ids in contents],
    )


def make_rollout(
    lengths: Sequence[int],
    *,
    finished: Sequence[bool] | None = None,
    prompt_lengths: Sequence[int] | None = None,
    prompt_padding: int = 0,
    response_padding: int = 0,
    logprobs: Sequence[Sequence[float]] | None = None,
    ref_logprobs: Sequence[Sequence[float]] | None = None,
    values: Sequence[Sequence[float]] | None = None,
) -> Rollout:
    """A rollout of responses of `lengths` tokens, EOS included where `finished`; every content and prompt id is unique."""
    finished = [False] * len(lengths) if finished is None else finished
    prompt_lengths = [2] * len(lengths) if prompt_lengths is None else prompt_lengths
    contents, prompts = [], []
    next_content, next_prompt = FIRST_CONTENT, FIRST_PROMPT
    for length, done, prompt_length in zip(lengths, finished, prompt_lengths, strict=True):
        count = length - int(done)
        contents.append(list(range(next_content, next_content + count)))
        prompts.append(list(range(next_prompt, next_prompt + prompt_length)))
        next_content, next_prompt = next_content + count, next_prompt + prompt_length
    return rollout_of(
        contents,
        finished,
        prompts=prompts,
        prompt_padding=prompt_padding,
        response_padding=response_padding,
        logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        values=values,
    )


def make_scores(
    rollout: Rollout, raw: Sequence[float], final: Sequence[float] | None = None, *, reads_eos: bool = False
) -> Scores:
    """Given scores; the reward model reads the response with EOS or without it."""
    return Scores(
        raw=torch.tensor(raw, dtype=torch.float32),
        final=torch.tensor(raw if final is None else final, dtype=torch.float32),
        replaced=torch.zeros_like(rollout.finished),
        inputs=as_sampled(rollout, reads_eos=reads_eos),
    )


class FakeScorer:
    """Scores coalition rows with a Python function of the present ids and keeps every row that it was asked for.

    `rows` holds the present ids, prompt included, in the order in which they were asked for.
    """

    space_id = SPACE

    def __init__(self, function: Callable[[list[int]], float]) -> None:
        self.function = function
        self.batches: list[list[CoalitionRows]] = []

    @property
    def calls(self) -> int:
        return len(self.batches)

    @property
    def rows(self) -> list[list[int]]:
        return [ids for batch in self.batches for rows in batch for ids in texts_of(rows)]

    def score(self, batch: Sequence[CoalitionRows]) -> list[np.ndarray]:
        self.batches.append(list(batch))
        return [np.array([self.function(ids) for ids in texts_of(rows)], dtype=np.float64) for rows in batch]


def texts_of(rows: CoalitionRows) -> list[list[int]]:
    """The present ids of each row, prompt included."""
    prompt = rows.prompt_ids.tolist()
    return [prompt + ids[:length] for ids, length in zip(rows.ids.tolist(), rows.lengths.tolist(), strict=True)]


class FakeRewardModel:
    """Scores the list of present ids with a Python function and keeps every row that it was asked for.

    `scorer` scores coalitions with the same function. `attention` is what `last_layer_attention` returns. Prefix scores
    off the mask are a large number, since nothing may depend on them.
    """

    space_id = SPACE

    def __init__(self, function: Callable[[list[int]], float], *, attention: Tensor | None = None) -> None:
        self.function = function
        self.scorer = FakeScorer(function)
        self.attention = attention
        self.rows: list[tuple[list[int], list[bool]]] = []
        self.calls = 0
        self.read_masks: list[Tensor] = []

    def score(self, ids: Tensor, mask: Tensor) -> Tensor:
        self.calls += 1
        self.rows += list(zip(ids.tolist(), mask.tolist(), strict=True))
        return torch.tensor([self.function(row[keep].tolist()) for row, keep in zip(ids, mask, strict=True)])

    def score_prefixes(self, ids: Tensor, mask: Tensor) -> Tensor:
        self.read_masks.append(mask)
        out = torch.full(ids.shape, 1e6)
        for r, c in mask.nonzero().tolist():
            out[r, c] = self.function(ids[r, : c + 1][mask[r, : c + 1]].tolist())
        return out

    def last_layer_attention(self, ids: Tensor, mask: Tensor) -> Tensor:
        self.read_masks.append(mask)
        if self.attention is not None:
            return self.attention
        return mask / (1.0 + ids % 7)

    def score_rollout(self, rollout: Rollout, *, reads_eos: bool = False) -> Scores:
        """The scores of whole responses, with nothing recorded."""
        inputs = as_sampled(rollout, reads_eos=reads_eos)
        ids, mask = inputs.sequence_ids(), inputs.sequence_mask()
        raw = torch.tensor([self.function(row[keep].tolist()) for row, keep in zip(ids, mask, strict=True)])
        return Scores(raw=raw, final=raw, replaced=torch.zeros_like(rollout.finished), inputs=inputs)


def lexicon(weights: dict[int, float], offset: float = 0.0) -> Callable[[list[int]], float]:
    """offset + the sum of the weights of the present tokens: an additive game."""
    return lambda ids: offset + sum(weights.get(token, 0.0) for token in ids)


def uneven(ids: list[int]) -> float:
    """A score with interactions of every order that depends on the order of the tokens, and is no multiple of them."""
    total = 0.3
    for place, token in enumerate(ids):
        total = float(np.sin(1.7 * total + 0.37 * token + 0.11 * place)) * 1.9 + 0.05 * (token % 5)
    return total


def hand_units(groups: Sequence[Sequence[int]], width: int, hierarchies: list[np.ndarray]) -> Units:
    """Units from the number of tokens of each unit of each response, at the start of the response."""
    count = torch.tensor([len(group) for group in groups])
    index = torch.full((len(groups), width), -1)
    end_step = torch.full((len(groups), int(count.max())), -1)
    for row, group in enumerate(groups):
        start = 0
        for unit, size in enumerate(group):
            index[row, start : start + size] = unit
            start += size
            end_step[row, unit] = start - 1
    return Units(unit_index=index, count=count, end_step=end_step, hierarchies=hierarchies)


def random_hierarchy(count: int, rng: np.random.Generator) -> np.ndarray:
    """A random binary tree over `count` leaves in any order: joins two random roots until one is left."""
    roots, rows = list(range(count)), []
    for node in range(count, 2 * count - 1):
        left = roots.pop(int(rng.integers(len(roots))))
        right = roots.pop(int(rng.integers(len(roots))))
        rows.append((left, right))
        roots.append(node)
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def check_hierarchy(hierarchy: np.ndarray, count: int, *, in_order: bool = True) -> None:
    """Assert that every node but the last is a child exactly once, children come first, and leaves read left to right."""
    assert hierarchy.dtype == np.int64
    assert hierarchy.shape == (max(count - 1, 0), 2)
    if count < 2:
        return
    assert sorted(hierarchy.ravel().tolist()) == list(range(2 * count - 2))
    leaves = {leaf: [leaf] for leaf in range(count)}
    for node, (left, right) in enumerate(hierarchy.tolist(), start=count):
        assert left < node
        assert right < node
        leaves[node] = leaves[left] + leaves[right]
    found = leaves[2 * count - 2]
    assert (found if in_order else sorted(found)) == list(range(count))


def chain(count: int) -> np.ndarray:
    """The most lopsided tree: (((0, 1), 2), 3) ..."""
    return np.array([[0 if k == 0 else count + k - 1, k + 1] for k in range(count - 1)], dtype=np.int64).reshape(-1, 2)


Worth = Callable[[frozenset[int]], float]
"""A game: the value of every coalition."""


def subsets(players: Sequence[int]) -> Iterator[frozenset[int]]:
    for size in range(len(players) + 1):
        yield from map(frozenset, itertools.combinations(players, size))


def random_game(count: int, rng: np.random.Generator) -> Worth:
    """An independent normal value for every coalition, the empty one included."""
    table = {coalition: float(rng.normal()) for coalition in subsets(range(count))}
    return table.__getitem__


def worths(game: Worth, coalitions: np.ndarray) -> np.ndarray:
    """v of the rows of b[M,n]."""
    return np.array([game(frozenset(np.flatnonzero(row).tolist())) for row in coalitions])


def solve(plan: CoalitionPlan, game: Worth) -> np.ndarray:
    """The unit values that a plan gives a game."""
    return plan.weights @ worths(game, plan.coalitions)


class TableGames:
    """The games of a batch from Python functions (see BatchGame); keeps the coalitions asked of each.

    A response of fewer than two units has the empty hierarchy and, by default, one unit.
    """

    def __init__(
        self, games: Sequence[Worth], hierarchies: Sequence[np.ndarray], counts: Sequence[int] | None = None
    ) -> None:
        self.hierarchies = list(hierarchies)
        self.counts = [len(hierarchy) + 1 for hierarchy in hierarchies] if counts is None else list(counts)
        self.asked: list[list[np.ndarray]] = [[] for _ in games]
        self.calls = 0
        self._games = games

    def evaluate(self, coalitions: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
        self.calls += 1
        for seen, masks in zip(self.asked, coalitions, strict=True):
            seen += [] if masks is None else list(masks)
        return [
            None if masks is None else worths(game, masks) for game, masks in zip(self._games, coalitions, strict=True)
        ]


def brute_force_shapley(count: int, game: Worth) -> np.ndarray:
    """Mean marginal contribution over all orders of arrival: the definition."""
    total = np.zeros(count)
    for order in itertools.permutations(range(count)):
        present: frozenset[int] = frozenset()
        for unit in order:
            total[unit] += game(present | {unit}) - game(present)
            present |= {unit}
    return total / math.factorial(count)


def owen_contexts(hierarchy: np.ndarray) -> list[list[frozenset[int]]]:
    """For each leaf every on/off choice of its path-sibling blocks: the coalitions that it joins."""
    count = len(hierarchy) + 1
    parent = {int(child): count + k for k, row in enumerate(hierarchy) for child in row}
    below = {leaf: frozenset([leaf]) for leaf in range(count)}
    for k, (left, right) in enumerate(hierarchy.tolist()):
        below[count + k] = below[left] | below[right]
    found = []
    for leaf in range(count):
        blocks, node = [], leaf
        while node in parent:
            left, right = hierarchy[parent[node] - count].tolist()
            blocks.append(below[right if node == left else left])
            node = parent[node]
        choices = itertools.product([False, True], repeat=len(blocks))
        found.append([frozenset().union(*itertools.compress(blocks, choice)) for choice in choices])
    return found


def closed_form_owen(hierarchy: np.ndarray, game: Worth) -> np.ndarray:
    """phi_i = 2^-d_i * sum over the choices C of i's path-sibling blocks of v(C + i) - v(C)
    (docs/decisions.md#the-shap-package)."""
    return np.array(
        [
            sum(game(context | {leaf}) - game(context) for context in contexts) / len(contexts)
            for leaf, contexts in enumerate(owen_contexts(hierarchy))
        ]
    )


def ppo_config(**changes: object) -> PPOConfig:
    """A valid PPOConfig with one episode an update; `changes` override."""
    settings_of_ppo: dict[str, object] = {
        "updates": 4,
        "batch_size": 1,
        "minibatch_size": 1,
        "microbatch_size": 1,
        "ppo_epochs": 1,
        "learning_rate": 1.0,
        "learning_rate_schedule": "constant",
        "adam_eps": 1.0,
        "weight_decay": 0.0,
        "kl_coef": 0.2,
        "kl_control": "fixed",
        "kl_target": 6.0,
        "kl_horizon": 10000.0,
        "kl_scale": 1.0,
        "gamma": 1.0,
        "gae_lambda": 0.95,
        "clip_range": 0.2,
        "value_clip_range": 0.2,
        "value_loss_coef": 0.1,
        "value_net": "shared",
        "max_grad_norm": None,
        "max_mean_ratio": None,
    }
    return PPOConfig(**(settings_of_ppo | changes))  # type: ignore[arg-type]


def updater_for(policy: Any, config: PPOConfig) -> PPOUpdater:
    """A PPO updater of `policy` in this process."""
    return PPOUpdater(TorchLearner(policy, config), config)
