"""The credit of single responses under several methods, in plain numbers and text that need no model to be shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from scar.credit.methods import readable_units
from scar.interfaces import CreditMethod, Scoring, Segmenter, Tokenizer
from scar.ppo.evaluation import rollout_of_samples
from scar.seeding import numpy_generator
from scar.segmentation.offsets import token_offsets
from scar.types import Credit, Rollout, Scores, Units

DIGITS = 7
"""Significant digits of stored numbers, those of float32."""


@dataclass(frozen=True)
class Assigner:
    """A credit method, the segmenter of one that needs units, and where its units come from parse trees, what finds those."""

    method: CreditMethod
    segmenter: Segmenter | None = None
    trees: Callable[[Rollout], list[list[Any]]] | None = None


@dataclass(frozen=True)
class CreditRows:
    """Makes the rows of a credit record. Estimators that sample draw from the stream (seed, "credit_record", number of the
    sample), so a row depends on nothing but its sample."""

    assigners: Mapping[str, Assigner]
    scoring: Scoring
    tokenizer: Tokenizer
    pad_id: int
    eos_id: int
    seed: int
    device: torch.device

    def row(self, number: int, sample: Mapping[str, Any]) -> dict[str, Any]:
        """The row of one sample (a row of samples.jsonl, whose `reward` may be None).

        Keys: number, prompt, reward_prompt, response, finished (the last token is EOS); reward (raw score), credited (what
        credit sums to: the raw score, 0 where a rule replaced it); tokens (each with text and its characters [start, end)
        of response: together they are the response, EOS has none); methods, by name: per_token, sum, queries, diagnostics,
        and for methods with units: units (tokens [start, end), text, value), hierarchy (rows that join two nodes), trees
        (nested lists: label, then subtrees or words; None where units are no spans). ValueError if the sample was scored
        by another reward model.
        """
        rollout = rollout_of_samples([sample], pad_id=self.pad_id, eos_id=self.eos_id, device=self.device)
        scores = self.scoring.score(rollout)
        raw = float(scores.raw[0])
        _check_reward(number, sample["reward"], raw)
        content = int(rollout.content_mask.sum())
        text, offsets = token_offsets(rollout.response_ids[0, :content].tolist(), self.tokenizer)
        offsets += [(len(text), len(text))] * bool(rollout.finished[0])
        return {
            "number": number,
            "prompt": sample["prompt"],
            "reward_prompt": sample["reward_prompt"],
            "response": text,
            "finished": bool(rollout.finished[0]),
            "reward": _rounded(raw),
            "credited": _rounded(float(scores.credited[0])),
            "tokens": [{"text": text[start:end], "start": start, "end": end} for start, end in offsets],
            "methods": {
                name: self._credit(number, assigner, rollout, scores, text, offsets)
                for name, assigner in self.assigners.items()
            },
        }

    def _credit(
        self,
        number: int,
        assigner: Assigner,
        rollout: Rollout,
        scores: Scores,
        text: str,
        offsets: list[tuple[int, int]],
    ) -> dict[str, Any]:
        units = None
        if assigner.segmenter is not None:
            units = readable_units(assigner.segmenter.segment(rollout), scores.inputs)
        stream = numpy_generator(self.seed, "credit_record", number)
        credit = assigner.method.assign(rollout, scores, units, generator=stream)
        found: dict[str, Any] = {
            "per_token": [_rounded(value) for value in credit.per_token[0].tolist()],
            "sum": _rounded(float(credit.per_token[0].double().sum())),
            "queries": int(credit.reward_queries[0]),
            "diagnostics": {key: _rounded(value) for key, value in credit.diagnostics.items()},
        }
        if units is not None:
            found |= {"units": _units(units, credit, text, offsets), "hierarchy": units.hierarchies[0].tolist()}
            found["trees"] = None if assigner.trees is None else [nested(tree) for tree in assigner.trees(rollout)[0]]
        return found


def _units(units: Units, credit: Credit, text: str, offsets: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """The token ranges of one response's units, with their text and value."""
    assert credit.unit_values is not None
    owners = units.unit_index[0].tolist()
    found = []
    for unit in range(int(units.count[0])):
        start, end = owners.index(unit), int(units.end_step[0, unit]) + 1
        words = text[offsets[start][0] : offsets[end - 1][1]]
        value = _rounded(float(credit.unit_values[0, unit]))
        found.append({"start": start, "end": end, "text": words, "value": value})
    return found


def nested(tree: Any) -> Any:
    """A parse tree as plain lists: its label, then its subtrees and words. A tree without labels gets empty ones."""
    if not isinstance(tree, list):
        return str(tree)
    label = tree.label() if hasattr(tree, "label") else ""
    return [label, *(nested(child) for child in tree)]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _check_reward(number: int, stored: float | None, found: float) -> None:
    if stored is not None and abs(stored - found) > 1e-2 * (1 + abs(stored)):
        raise ValueError(
            f"sample {number} was stored with reward {stored:.4g}, but the reward model here gives {found:.4g}: it is not "
            "the run's reward model; use the cache that the run used (paths.cache=...)"
        )
