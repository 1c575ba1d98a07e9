"""Texts with negation, contrast and repetition: where prefix differences and Shapley values of words part.

A word is compared with its five nearest words of the same source that hold no role in the case, in place (0 to 1 in the
response) plus | |Shapley| difference | over the mean |Shapley|: a word of large credit differs by more whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from experiments.studies.agreement.roles import CASES, Roles, is_word
from experiments.studies.agreement.splits import IN_GAME, PREFIX, Texts, left_to_right, prefix, sampled_reference
from scar.interfaces import Segmenter
from scar.tasks.prompts import left_pad
from scar.types import PromptBatch, Rollout

NEIGHBOURS = 5
LEAST_TOKENS = 8
EXAMPLE_WORDS = 20
"""Examples have at most so many units, to be readable."""


@dataclass(frozen=True)
class Row:
    """Words of one role: mean |Shapley| and mean |credit|, mean |credit - Shapley| of these words and of their nearest
    others, the excess with its standard error over texts; `overstated`: mean (credit - Shapley) in the direction of the
    Shapley value, over mean |Shapley| (negative: the word gets less than it is worth)."""

    case: str
    source: str
    role: str
    method: str
    texts: int
    words: int
    shapley: float
    credit: float
    difference: float
    nearest_others: float
    excess: float
    excess_se: float
    same_sign: float
    overstated: float
    reference: str


@dataclass(frozen=True)
class ExampleRow:
    """One word of an example (or its prompt, with v(all) as the role's remark)."""

    example: str
    word: str
    role: str
    prefix: float | None
    in_game: float | None
    shapley: float | None


@dataclass(frozen=True)
class Source:
    """Responses to look for cases in, and how they are cut into words and judged."""

    name: str
    rollout: Rollout
    segmenter: Segmenter
    tokenizer: Any
    judged: Callable[[Rollout], Texts]


@dataclass(frozen=True)
class Words:
    """The words of one text with their Shapley values f64[n], and credit f64[n] by method."""

    prompt: str
    score: float
    words: list[str]
    credit: dict[str, np.ndarray]
    shapley: np.ndarray

    def positions(self) -> np.ndarray:
        """f64[n] in 0..1."""
        return np.linspace(0, 1, len(self.words))


def case_tables(sources: Sequence[Source], *, per_case: int, permutations: int) -> dict[str, list[Any]]:
    """Tables of roles and of examples: the first `per_case` texts of each case and source, in the order of the source."""
    rows: list[Row] = []
    examples: list[ExampleRow] = []
    for source in sources:
        texts, reference = judged_words(source, per_case=per_case, permutations=permutations)
        for case, roles_of in CASES.items():
            roles = [roles_of(text.words) for text in texts]
            for method in (PREFIX, IN_GAME):
                rows += case_rows((case, source.name, method, reference), texts, roles)
        examples += source_examples(source.name, texts)
    return {"Words by role": rows, "Examples, the largest mean |prefix - Shapley| over the words with a role": examples}


def judged_words(source: Source, *, per_case: int, permutations: int) -> tuple[list[Words], str]:
    """The texts that are the first of a case, with both credits of their words; how the Shapley values were found."""
    units = source.segmenter.segment(source.rollout)
    words = [
        [source.tokenizer.decode(ids[index == unit].tolist()).strip().lower() for unit in range(count)]
        for ids, index, count in zip(source.rollout.response_ids, units.unit_index, units.count.tolist(), strict=True)
    ]
    rows_by_case = [[row for row, text in enumerate(words) if roles_of(text)][:per_case] for roles_of in CASES.values()]
    chosen = sorted(set().union(*rows_by_case))
    texts = source.judged(rows_of(source.rollout, chosen))
    units = source.segmenter.segment(texts.rollout)
    reference = sampled_reference(texts.game(units), permutations)
    return [
        Words(prompt, score, words[row], {PREFIX: by_prefix, IN_GAME: in_game}, phi)
        for prompt, score, row, by_prefix, in_game, phi in zip(
            texts.rollout.prompts.texts,
            texts.scores.raw.tolist(),
            chosen,
            prefix(texts).of_units(units),
            left_to_right(texts, units).of_units(units),
            reference.values,
            strict=True,
        )
        if phi is not None
    ], reference.method


def rows_of(rollout: Rollout, rows: Sequence[int]) -> Rollout:
    """The responses `rows`."""

    def cut(thing: Any) -> dict[str, Any]:
        values = {field.name: getattr(thing, field.name) for field in fields(thing)}
        return {
            name: value[list(rows)] if isinstance(value, torch.Tensor) else [value[row] for row in rows]
            for name, value in values.items()
            if isinstance(value, (torch.Tensor, list))
        }

    return replace(rollout, **cut(rollout), prompts=replace(rollout.prompts, **cut(rollout.prompts)))


def given_texts(encoded: Sequence[Sequence[int]], tokenizer: Any, *, prompt_tokens: int, most_tokens: int) -> Rollout:
    """Texts as if they had been sampled: their first tokens are the prompt. Only those of a fitting length; nobody sampled
    them, so log-probabilities and values are 0."""
    texts = [list(ids) for ids in encoded if prompt_tokens + LEAST_TOKENS <= len(ids) <= prompt_tokens + most_tokens]
    heads, rests = [ids[:prompt_tokens] for ids in texts], [ids[prompt_tokens:] for ids in texts]
    width = max(map(len, rests))
    ids = torch.tensor([rest + [tokenizer.pad_token_id] * (width - len(rest)) for rest in rests])
    mask = torch.arange(width) < torch.tensor([len(rest) for rest in rests])[:, None]
    prompt_ids, prompt_mask = left_pad(heads, pad_id=tokenizer.pad_token_id)
    zeros = torch.zeros(ids.shape)
    return Rollout(
        prompts=PromptBatch(prompt_ids, prompt_mask, [tokenizer.decode(head) for head in heads]),
        response_ids=ids,
        response_mask=mask,
        logprobs=zeros,
        ref_logprobs=zeros,
        values=zeros,
        finished=torch.zeros(len(ids), dtype=torch.bool),
        texts=[tokenizer.decode(rest) for rest in rests],
    )


def case_rows(names: tuple[str, str, str, str], texts: Sequence[Words], roles: Sequence[Roles]) -> Iterator[Row]:
    """One row per role; `names`: case, source, method, reference."""
    case, source, method, reference = names
    flat = [(row, index) for row, text in enumerate(texts) for index, word in enumerate(text.words) if is_word(word)]
    owner = np.array([row for row, _ in flat])
    role = np.array([roles[row].get(index, "") for row, index in flat])
    shapley, credit, positions = (
        np.array([values[row][index] for row, index in flat])
        for values in ([t.shapley for t in texts], [t.credit[method] for t in texts], [t.positions() for t in texts])
    )
    off, scale = np.abs(credit - shapley), np.abs(shapley).mean()
    others = np.flatnonzero(role == "")
    for name in sorted(set(role) - {""}):
        own = np.flatnonzero(role == name)
        apart = np.abs(positions[own][:, None] - positions[others])
        apart += np.abs(np.abs(shapley[own])[:, None] - np.abs(shapley[others])) / scale
        nearest = off[others[np.argsort(apart, axis=1)[:, :NEIGHBOURS]]].mean(1)
        by_text = np.array([(off[own] - nearest)[owner[own] == row].mean() for row in sorted(set(owner[own]))])
        direction = np.sign(shapley[own]) * (credit[own] - shapley[own])
        yield Row(
            case=case,
            source=source,
            role=name,
            method=method,
            texts=len(by_text),
            words=len(own),
            shapley=float(np.abs(shapley[own]).mean()),
            credit=float(np.abs(credit[own]).mean()),
            difference=float(off[own].mean()),
            nearest_others=float(nearest.mean()),
            excess=float(by_text.mean()),
            excess_se=float(by_text.std(ddof=1) / np.sqrt(len(by_text))) if len(by_text) > 1 else float("nan"),
            same_sign=float((np.sign(credit[own]) == np.sign(shapley[own])).mean()),
            overstated=float(direction.mean() / np.abs(shapley[own]).mean()),
            reference=reference,
        )


def source_examples(source: str, texts: Sequence[Words]) -> Iterator[ExampleRow]:
    """For each case the text (not shown before, not too long) with the largest disagreement at the words with a role."""
    shown: set[int] = set()
    for case, roles_of in CASES.items():
        sizes: dict[int, float] = {}
        for row, text in enumerate(texts):
            indices = list(roles_of(text.words))
            if indices and len(text.words) <= EXAMPLE_WORDS and row not in shown:
                sizes[row] = float(np.abs(text.credit[PREFIX] - text.shapley)[indices].mean())
        if not sizes:
            continue
        row = max(sizes, key=sizes.__getitem__)
        shown.add(row)
        yield from _example(f"{case}, {source}", texts[row], roles_of(texts[row].words))


def _example(title: str, text: Words, roles: Roles) -> Iterator[ExampleRow]:
    yield ExampleRow(title, f"[{text.prompt}]", f"prompt; score {text.score:+.2f}", None, None, None)
    values = zip(text.words, text.credit[PREFIX], text.credit[IN_GAME], text.shapley, strict=True)
    for index, (word, by_prefix, in_game, phi) in enumerate(values):
        yield ExampleRow(
            title, word.replace("|", "/"), roles.get(index, ""), float(by_prefix), float(in_game), float(phi)
        )
