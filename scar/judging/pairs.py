"""What a pairwise judge is asked and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

CHOICES = ("A", "B", "C")
"""The first response is better, the second is, neither is."""


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt in the order in which they are shown: rows of samples.jsonl."""

    first: Mapping[str, Any]
    second: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.first["prompt"] != self.second["prompt"]:
            raise ValueError("a pair is of one prompt; these are of two")


@dataclass(frozen=True)
class Answer:
    """`choice` of `CHOICES`, None where the answer could not be read; `text` as it came; `preference`: the probability that the
    first is better, where the judge gives one; `scores` of both, where it scores them."""

    choice: str | None
    text: str = ""
    preference: float | None = None
    scores: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.choice is not None and self.choice not in CHOICES:
            raise ValueError(f"choice {self.choice!r}; allowed: {', '.join(CHOICES)} or None")


class Judge(Protocol):
    """Compares two responses to one prompt; `label` is what tables call it."""

    name: str
    label: str

    def estimate(self, pairs: Sequence[Pair]) -> Any:
        """What judging `pairs` will take: requests, tokens, dollars (scar/judging/judge.py)."""
        ...

    def answer(self, pairs: Sequence[Pair], advance: Callable[[int, int], None]) -> list[Answer]:
        """The answer to each pair; `advance` is told how many of how many are there."""
        ...
