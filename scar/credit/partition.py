"""Owen values as the shap package cuts them off: its own tree over texts, and its best-first walk down a tree.

shap's PartitionExplainer opens the nodes of a tree in the order of what they change, and stops after `max_evals`
evaluations; what was not opened is shared out equally. So which coalitions are asked for depends on the values of those before
(docs/decisions.md#cut-off-owen-values). Responses of a batch walk in step, so that each round is one evaluation of the game.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, get_args

import numpy as np

from scar.credit.game import BatchGame
from scar.credit.plans import node_members, owen_plan
from scar.segmentation.hierarchies import coalition_count
from scar.types import CoalitionPlan, UnitValues

Tree = Literal["shap", "given"]


@dataclass(frozen=True)
class PartitionEstimator:
    """Owen values over shap's own tree of the units' texts (`hierarchy` "shap"), or over the units' hierarchy ("given"), cut
    off at `max_evals` evaluations, v(all) and v(empty) among them.

    `batch_size`: shap opens nodes until so many evaluations are asked for, then looks at their values; it decides which nodes
    are opened. A tree within `max_evals` gives the Owen values themselves, in one evaluation of the game.
    """

    name: ClassVar[str] = "partition"

    max_evals: int
    batch_size: int
    hierarchy: Tree

    def __post_init__(self) -> None:
        for key, least in (("max_evals", 4), ("batch_size", 1)):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"estimator.{key}={value}; allowed: a whole number, {least} or more")
        if self.hierarchy not in get_args(Tree):
            raise ValueError(f"estimator.hierarchy={self.hierarchy}; allowed: {' or '.join(get_args(Tree))}")

    def estimate(self, game: BatchGame, generator: np.random.Generator) -> Sequence[UnitValues | None]:
        """Unit values of every response; None for one with fewer than two units. Nothing is drawn."""
        walks = [self._walk(game, number) if count > 1 else None for number, count in enumerate(game.counts)]
        while True:
            asked = [None if walk is None else walk.ask() for walk in walks]
            if all(coalitions is None for coalitions in asked):
                return [None if walk is None else walk.unit_values() for walk in walks]
            for walk, values in zip(walks, game.evaluate(asked), strict=True):
                if walk is not None and values is not None:
                    walk.tell(values)

    def _walk(self, game: BatchGame, number: int) -> _Whole | _Walk:
        tree = game.hierarchies[number] if self.hierarchy == "given" else shap_tree(game.texts[number])
        if coalition_count(tree) <= self.max_evals:
            return _Whole(owen_plan(tree))
        return _Walk(tree, max_evals=self.max_evals, batch_size=self.batch_size)


class _Whole:
    """A tree that is walked to its end: all coalitions are known."""

    def __init__(self, plan: CoalitionPlan) -> None:
        self._plan = plan
        self._values: np.ndarray | None = None

    def ask(self) -> np.ndarray | None:
        return self._plan.coalitions if self._values is None else None

    def tell(self, values: np.ndarray) -> None:
        self._values = values

    def unit_values(self) -> UnitValues:
        v, weights = self._values, self._plan.weights
        assert v is not None
        return UnitValues(weights @ v, float(v[0]), -weights[:, 0], len(v) - 1)


@dataclass(frozen=True)
class _Gain:
    """What a node adds to those present in `context` b[n], v = `without`, and with it `joined`; it counts with `weight`."""

    node: int
    context: np.ndarray
    without: float
    joined: float
    weight: float


class _Walk:
    """The best-first walk down one response's tree, until the evaluations are used up."""

    def __init__(self, tree: np.ndarray, *, max_evals: int, batch_size: int) -> None:
        self._tree = tree
        self._count = len(tree) + 1
        self._members = node_members(tree)
        self._left = max_evals  # evaluations that may still be asked for
        self._batch_size = batch_size
        self._queue: list[tuple[float, int, _Gain]] = []  # the largest change first; of equals the one that came first
        self._pushed = 0
        self._open: list[_Gain] | None = None  # what was asked for; None: nothing yet
        self._credit = np.zeros(2 * self._count - 1)  # of nodes, to be shared out
        self._empty_share = np.zeros(2 * self._count - 1)
        self._empty = 0.0
        self._queries = 0

    def ask(self) -> np.ndarray | None:
        """The coalitions b[M,n] of the next round; None at the end of the walk."""
        if self._open is None:
            return np.stack([np.zeros(self._count, dtype=bool), np.ones(self._count, dtype=bool)])
        self._open = []
        while self._queue:
            if 2 * len(self._open) >= min(self._batch_size, self._left):
                break
            gain = heapq.heappop(self._queue)[2]
            if gain.node < self._count:
                self._settle(gain)
            else:
                self._open.append(gain)
        if not self._open:
            for _, _, gain in self._queue:
                self._settle(gain)
            self._queue.clear()
            return None
        return np.stack([gain.context | self._members[child] for gain in self._open for child in self._children(gain)])

    def tell(self, values: np.ndarray) -> None:
        """v f64[M] of the coalitions that were asked for."""
        self._left -= len(values)
        if self._open is None:
            self._open, self._queries, self._empty = [], 1, float(values[0])  # v(all) is known
            nobody = np.zeros(self._count, dtype=bool)
            self._push(_Gain(2 * self._count - 2, nobody, self._empty, float(values[1]), 1.0))
            return
        self._queries += len(values)
        for gain, (with_left, with_right) in zip(self._open, values.reshape(-1, 2).tolist(), strict=True):
            left, right = self._children(gain)
            context, weight = gain.context, gain.weight / 2
            self._push(_Gain(left, context, gain.without, with_left, weight))
            self._push(_Gain(right, context, gain.without, with_right, weight))
            self._push(_Gain(left, context | self._members[right], with_right, gain.joined, weight))
            self._push(_Gain(right, context | self._members[left], with_left, gain.joined, weight))

    def unit_values(self) -> UnitValues:
        """A node that was not opened shares its credit equally among its units."""
        below = np.stack(self._members)
        share = below / below.sum(1, keepdims=True)
        return UnitValues(
            values=self._credit @ share,
            empty=self._empty,
            empty_share=self._empty_share @ share,
            queries=self._queries,
            hierarchy="truncated",
        )

    def _children(self, gain: _Gain) -> tuple[int, int]:
        left, right = self._tree[gain.node - self._count].tolist()
        return left, right

    def _push(self, gain: _Gain) -> None:
        change = abs(gain.joined - gain.without) * gain.weight
        heapq.heappush(self._queue, (-change, self._pushed, gain))
        self._pushed += 1

    def _settle(self, gain: _Gain) -> None:
        self._credit[gain.node] += (gain.joined - gain.without) * gain.weight
        if not gain.context.any():
            self._empty_share[gain.node] += gain.weight


# The tree that shap's text masker makes: neighbours join one pair at a time, the pair with the highest score first.

OPENING, CLOSING = "(", ")"
JOINING = ("but", "and", "or")
ENDING = (".", "?", "!")
AFTER_NO_LETTER = re.compile(r".*\W$")
LETTER = re.compile(r"[A-Za-z]")


@dataclass
class _Piece:
    """A unit's text as the tree sees it, with ## in front inside a word; `matched`: no bracket, or one whose other half is in the
    same group."""

    text: str
    matched: bool


_Group = list[_Piece]


def shap_tree(texts: Sequence[str]) -> np.ndarray:
    """int64[n-1,2]: the tree over units that shap 0.51 gives their texts, n >= 1.

    Pieces of a word join first, then apostrophes; short groups join before long ones; groups that a comma, the end of a
    sentence or a bracket divides join late. Of equal scores the leftmost pair joins first.
    """
    groups = [[piece] for piece in _pieces(texts)]
    nodes = list(range(len(groups)))
    scores = [_join_score(*pair) for pair in pairwise(groups)]
    rows = []
    while scores:
        at = max(range(len(scores)), key=scores.__getitem__)
        first, last = groups[at], groups[at + 1]
        if first[0].text == OPENING and last[-1].text == CLOSING:
            first[0].matched = last[-1].matched = True
        rows.append((nodes[at], nodes[at + 1]))
        groups[at : at + 2] = [first + last]
        nodes[at : at + 2] = [len(texts) + len(rows) - 1]
        del scores[at]
        for pair in (at - 1, at):
            if 0 <= pair < len(scores):
                scores[pair] = _join_score(groups[pair], groups[pair + 1])
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _pieces(texts: Sequence[str]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for number, text in enumerate(texts):
        word = text.strip()
        inside = (
            number > 0
            and AFTER_NO_LETTER.match(texts[number - 1]) is None
            and LETTER.match(text) is not None
            and pieces[-1].text != ""
        )
        pieces.append(_Piece(f"##{word}" if inside else word, word not in (OPENING, CLOSING)))
    return pieces


def _join_score(first: _Group, second: _Group) -> int:
    """How readily two neighbours join. It is shap's, oddities included: a group that a bracket opens always pays 2."""
    start, end = first[0], first[-1]
    begin, stop = second[0], second[-1]
    score = -len(first) - len(second)
    score += 20 * begin.text.startswith("##")
    score += 15 * (begin.text == "'" and (len(second) == 1 or (len(second) == 2 and stop.text in ("t", "s"))))
    score += 15 * (end.text == "'" and begin.text in ("t", "s"))
    score -= 1000 * (_in_square_brackets(start) != _in_square_brackets(stop))
    score -= 100 * (begin.text == OPENING and not begin.matched)
    score -= 100 * (end.text == CLOSING and not end.matched)
    score -= 2 * (start.text == OPENING)
    score -= 2 * (end.text in JOINING or begin.text in JOINING)
    score -= 10 * (end.text == ",") + 20 * (end.text in ENDING)
    alone = len(second) == 1
    score -= (1 if alone else 10) * (begin.text == ",")
    score -= (1 if alone else 20) * (begin.text in ENDING)
    return score


def _in_square_brackets(piece: _Piece) -> bool:
    return piece.text.startswith("[") and piece.text.endswith("]")
