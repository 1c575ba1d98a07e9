"""Helpful answers to one request (paper 4.1, Table 5).

At paper scale the requests are those of Anthropic's helpful-base data, from the hub. At local scale they are the
instruction rows and the ranked pairs of a source distribution on PyPI (scar/tasks/sources.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pandas as pd

from scar.interfaces import PromptText
from scar.tasks.imdb import SPLITS, hash_split
from scar.tasks.sources import SdistSource, load_files, load_split, rows_digest


class Rows(NamedTuple):
    """Usable rows, and how many were left out for which reason."""

    frame: pd.DataFrame
    left_out: dict[str, int]


def instructions(records: Sequence[Mapping[str, str]]) -> Rows:
    """Alpaca records as (turn, answer): turn = instruction, then the input on its own line if there is one.

    Left out and counted: rows whose turn or answer is blank, and repeats of an earlier turn.
    """
    rows = [
        ("\n".join(part for part in (record["instruction"].strip(), record["input"].strip()) if part), record["output"])
        for record in records
    ]
    return _usable([(turn, answer.strip()) for turn, answer in rows], ["turn", "answer"])


def ranked_pairs(records: Sequence[Mapping[str, Any]]) -> Rows:
    """DPO records (ShareGPT format) of one human turn as (turn, chosen, rejected); a system prompt leads the turn.

    Left out and counted: conversations of several turns (the paper's hh keeps single-turn rows), blank texts, pairs of
    equal answers, repeated turns.
    """
    rows, several = [], 0
    for record in records:
        roles = [message["from"] for message in record["conversations"]]
        if roles not in (["human"], ["system", "human"]):
            several += 1
            continue
        turn = "\n".join(message["value"].strip() for message in record["conversations"]).strip()
        rows.append((turn, record["chosen"]["value"].strip(), record["rejected"]["value"].strip()))
    usable = _usable(rows, ["turn", "chosen", "rejected"])
    return Rows(usable.frame, {"several turns": several, **usable.left_out})


def first_answers(records: Sequence[Mapping[str, Any]], voted: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(turn, answer) of the first exchange of `records` (DPO) of several turns, whose answers were kept when the talk went
    on, and of `voted` ones (KTO) that went on or have a good vote; blank ones left out."""
    rows = [
        (talk[0]["value"], talk[1]["value"])
        for talk in (record["conversations"] for record in records)
        if len(talk) > 1 and talk[0]["from"] == "human"
    ]
    rows += [
        (talk[0]["content"], talk[1]["content"])
        for talk, label in ((record["messages"], record.get("label")) for record in voted)
        if talk[0]["role"] == "user" and (len(talk) > 2 or label)
    ]
    return [(turn.strip(), answer.strip()) for turn, answer in rows if turn.strip() and answer.strip()]


def _usable(rows: Sequence[tuple[str, ...]], columns: list[str]) -> Rows:
    kept: list[tuple[str, ...]] = []
    seen: set[str] = set()
    left_out: Counter[str] = Counter({"blank": 0, "equal answers": 0, "repeated turn": 0})
    for row in rows:
        if not all(row):
            left_out["blank"] += 1
        elif len(row) == 3 and row[1] == row[2]:
            left_out["equal answers"] += 1
        elif row[0].casefold() in seen:
            left_out["repeated turn"] += 1
        else:
            seen.add(row[0].casefold())
            kept.append(row)
    return Rows(pd.DataFrame(kept, columns=columns), dict(left_out))


BEFORE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n"
)
AFTER = "\n\n### Response:"
REWARD_PROMPT = "###Human: {} ###Assistant: "
INSTRUCTIONS, PAIRS, VOTES = "data/alpaca_en_demo.json", "data/dpo_en_demo.json", "data/kto_en_demo.json"
WEB, ENCYCLOPEDIA = "data/c4_demo.jsonl", "data/wiki_demo.txt"
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@dataclass(frozen=True)
class HelpfulBase:
    """Single-turn rows of `Anthropic/hh-rlhf`; its train split gives a tenth, by hash, for validation. `test_prompts`: see
    HubSource."""

    path: str
    data_dir: str
    revision: str | None = None
    test_prompts: int | None = None

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return {"hub": self.path, "data_dir": self.data_dir, "revision": self.revision}

    def turns(self) -> tuple[pd.DataFrame, dict[str, int]]:
        """Columns turn, split; and how many rows were left out for which reason.

        ABC's filter: conversations in which the human speaks exactly once.
        """
        parts = []
        for split in ("train", "test"):
            frame = load_split(self.path, split, ["chosen"], data_dir=self.data_dir, revision=self.revision)
            parts.append(frame.assign(official=split))
        frame = pd.concat(parts, ignore_index=True)
        single = _single_turn(frame)
        rows = frame[single]
        turn = _turn(rows)
        by_hash = turn.map(hash_split).map({"train": "train", "validation": "validation", "test": "train"})
        frame = pd.DataFrame({"turn": turn, "split": by_hash.mask(rows["official"] == "test", "test")})
        return frame, {"several turns": int((~single).sum())}


def _single_turn(rows: pd.DataFrame) -> pd.Series:
    """ABC's filter: the human speaks exactly once."""
    return rows["chosen"].str.count("Human:") == 1


def _turn(rows: pd.DataFrame) -> pd.Series:
    return rows["chosen"].str.partition(ASSISTANT)[0].str.removeprefix(HUMAN).str.strip()


@dataclass(frozen=True)
class HelpfulFiles:
    """Human comparisons in the folder `path`, `helpful-base*.jsonl.gz` in the schema of `Anthropic/hh-rlhf`: single turns,
    split by hash of the request."""

    preferences: ClassVar[str] = "people's"

    path: str

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return {"rows": rows_digest(self._rows)}

    @cached_property
    def _all(self) -> pd.DataFrame:
        return load_files(Path(self.path), ("helpful-base*.jsonl.gz",), ["chosen", "rejected"])

    @cached_property
    def _rows(self) -> pd.DataFrame:
        rows = self._all[_single_turn(self._all)]
        turn = _turn(rows)
        sides = {name: " " + rows[name].str.partition(ASSISTANT)[2].str.strip() for name in ("chosen", "rejected")}
        return pd.DataFrame({"turn": turn, **sides, "split": turn.map(hash_split)})

    def turns(self) -> tuple[pd.DataFrame, dict[str, int]]:
        """Columns turn, split; and how many rows were left out for which reason."""
        return self._rows[["turn", "split"]], {"several turns": len(self._all) - len(self._rows)}

    def demonstrations(self, split: str) -> pd.DataFrame:
        """Columns prompt, response: the answers that people chose."""
        rows = self.comparisons(split)
        return rows.rename(columns={"chosen": "response"})[["prompt", "response"]]

    def comparisons(self, split: str) -> pd.DataFrame:
        """Columns prompt, chosen, rejected."""
        rows = self._rows[(self._rows["split"] == split) & (self._rows["turn"] != "")]
        return rows.assign(prompt=rows["turn"].map(prompt_of))[["prompt", "chosen", "rejected"]]


@dataclass(frozen=True)
class InstructionRows:
    """Requests with answers, ranked pairs and plain texts of a source distribution (`llamafactory`), split by the hash of
    the request. Reading them once is a matter of milliseconds; the archive is downloaded once into `cache`."""

    package: str
    version: str
    members: Mapping[str, str]
    cache: Path

    @property
    def _sdist(self) -> SdistSource:
        return SdistSource(self.package, self.version, dict(self.members), self.cache)

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return self._sdist.identity()

    def turns(self) -> tuple[pd.DataFrame, dict[str, int]]:
        """Columns turn, split; and how many rows were left out for which reason."""
        frame, left_out = self.answers()
        return frame[["turn", "split"]], left_out

    def answers(self) -> tuple[pd.DataFrame, dict[str, int]]:
        """Columns turn, answer, split: the instruction rows, then the better answers of the ranked pairs, then the first
        answers of longer conversations and of those with a good vote, each request once."""
        sdist = self._sdist
        rows, left_out = instructions(sdist.read(INSTRUCTIONS))
        pairs, pairs_left_out = ranked_pairs(sdist.read(PAIRS))
        parts = [rows, pairs.rename(columns={"chosen": "answer"})[["turn", "answer"]]]
        parts.append(pd.DataFrame(first_answers(sdist.read(PAIRS), sdist.read(VOTES)), columns=["turn", "answer"]))
        frame = pd.concat(parts, ignore_index=True)
        repeated = frame["turn"].str.casefold().duplicated()
        frame = frame[~repeated].reset_index(drop=True)
        counts = {f"instructions: {reason}": count for reason, count in left_out.items()}
        counts |= {f"pairs: {reason}": count for reason, count in pairs_left_out.items()}
        return frame.assign(split=frame["turn"].map(hash_split)), counts | {"repeated turn": int(repeated.sum())}

    def pairs(self) -> pd.DataFrame:
        """Columns turn, chosen, rejected, split: the machine-ranked pairs."""
        frame = ranked_pairs(self._sdist.read(PAIRS)).frame
        return frame.assign(split=frame["turn"].map(hash_split))

    def plain_texts(self) -> list[str]:
        """Web pages and encyclopedia paragraphs, for the language model."""
        pages = [json.loads(line)["text"] for line in self._sdist.text(WEB).splitlines()]
        return pages + [paragraph for paragraph in self._sdist.text(ENCYCLOPEDIA).split("\n") if paragraph]


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
