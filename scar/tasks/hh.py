"""Helpful answers to one request (paper 4.1, Table 5).

At paper scale the requests are those of Anthropic's helpful-base data, from the hub. At local scale they are the
instruction rows and the ranked pairs of a source distribution on PyPI (scar/tasks/sdist.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from scar.interfaces import PromptText
from scar.tasks.imdb import SPLITS, hash_split
from scar.tasks.sdist import SdistSource, instructions, ranked_pairs
from scar.tasks.sources import load_split

BEFORE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n"
)
AFTER = "\n\n### Response:"
REWARD_PROMPT = "###Human: {} ###Assistant: "
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@dataclass(frozen=True)
class HelpfulBase:
    """Single-turn rows of `Anthropic/hh-rlhf`; its train split gives a tenth, by hash, for validation."""

    path: str
    data_dir: str

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return {"hub": self.path, "data_dir": self.data_dir}

    def turns(self) -> tuple[pd.DataFrame, dict[str, int]]:
        """Columns turn, split; and how many rows were left out for which reason.

        ABC's filter: conversations in which the human speaks exactly once.
        """
        parts = []
        for split in ("train", "test"):
            frame = load_split(self.path, split, ["chosen"], data_dir=self.data_dir)
            parts.append(frame.assign(official=split))
        frame = pd.concat(parts, ignore_index=True)
        single = frame["chosen"].str.count("Human:") == 1
        rows = frame[single]
        turn = rows["chosen"].str.partition(ASSISTANT)[0].str.removeprefix(HUMAN).str.strip()
        by_hash = turn.map(hash_split).map({"train": "train", "validation": "validation", "test": "train"})
        frame = pd.DataFrame({"turn": turn, "split": by_hash.mask(rows["official"] == "test", "test")})
        return frame, {"several turns": int((~single).sum())}


@dataclass(frozen=True)
class InstructionRows:
    """Instructions and ranked pairs of a source distribution, split by the hash of the request."""

    package: str
    version: str
    members: Mapping[str, str]
    instructions_member: str
    pairs_member: str
    cache: Path

    @property
    def _sdist(self) -> SdistSource:
        return SdistSource(self.package, self.version, dict(self.members), self.cache)

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return self._sdist.identity()

    def turns(self) -> tuple[pd.DataFrame, dict[str, int]]:
        """Columns turn, split; and how many rows were left out for which reason."""
        answers, left_out = self.answers()
        pairs, pairs_left_out = self.pairs()
        turns = pd.concat([answers[["turn", "split"]], pairs[["turn", "split"]]], ignore_index=True)
        repeated = turns["turn"].str.casefold().duplicated()
        return turns[~repeated].reset_index(drop=True), {
            f"{kind}: {reason}": count
            for kind, reasons in (("instructions", left_out), ("pairs", pairs_left_out))
            for reason, count in reasons.items()
        } | {"repeated turn": int(repeated.sum())}

    def answers(self) -> tuple[pd.DataFrame, dict[str, int]]:
        """Columns turn, answer, split."""
        rows = instructions(self._sdist.read(self.instructions_member))
        return rows.frame.assign(split=rows.frame["turn"].map(hash_split)), rows.left_out

    def pairs(self) -> tuple[pd.DataFrame, dict[str, int]]:
        """Columns turn, chosen, rejected, split."""
        rows = ranked_pairs(self._sdist.read(self.pairs_member))
        return rows.frame.assign(split=rows.frame["turn"].map(hash_split)), rows.left_out


@dataclass(frozen=True)
class HhTask:
    """Requests in the policy's instruction format; the reward model reads its own. `left_out` counts unused rows."""

    source: Any
    name: str = "hh"
    left_out: dict[str, int] = field(default_factory=dict)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All requests with text."""
        frame, left_out = self.source.turns()
        blank = frame["turn"] == ""
        self.left_out.update(left_out, blank=int(blank.sum()))
        return frame[~blank]

    def prompts(self, split: str) -> list[PromptText]:
        """Prompts of a split."""
        if split not in SPLITS:
            raise ValueError(f"split={split}; allowed: {', '.join(SPLITS)}")
        return [prompt_of(turn) for turn in self.frame["turn"][self.frame["split"] == split]]


def prompt_of(turn: str) -> PromptText:
    """The prompt of one request."""
    return PromptText(BEFORE, turn, AFTER, reward=REWARD_PROMPT.format(turn))
