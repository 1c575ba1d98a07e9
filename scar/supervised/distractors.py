"""Constructed preferences: the author's own text over a distractor. No human compared these texts.

PyPI has no human comparisons, so the local reward models of tldr and hh learn from pairs whose better text is known by
construction. Pairs are made only from the rows given: training pairs come from train rows, evaluation pairs from held-out
rows. Length decides nothing: corrupted texts and excerpts have (nearly) the word count of the own text, and texts of other
rows are drawn at random, so either is as likely the longer one; only such pairs of unequal length teach a reward model
how to compare lengths at all. `length_shares` reports what is left. All functions are pure; draws come from the NumPy
generator passed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from scar.tasks.tldr import sentences

COLUMNS = ["row", "chosen", "rejected", "kind"]
CANDIDATES = 24
"""So many places or other rows are looked at for a distractor."""
DRAWS = 4
"""So often is a distractor drawn for each that is wanted, at most."""
LOOP_WORDS = 6
"""A repeated phrase of the own text has 1 to so many words."""
CHANT_WORDS = 8
"""A repeated phrase of another text has 1 to so many words or marks."""

Generator = np.random.Generator
Distractor = Callable[[int, Generator], str | None]


def pairs(
    texts: Sequence[str],
    distractors: Mapping[str, Distractor],
    weights: Mapping[str, float],
    *,
    per_row: int = 1,
    generator: Generator,
) -> pd.DataFrame:
    """`row_pairs` of every text, as (row, chosen, rejected, kind)."""
    rows = [
        (row, text, rejected, kind)
        for row, text in enumerate(texts)
        for rejected, kind in row_pairs(row, text, distractors, weights, per_row=per_row, generator=generator)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def row_pairs(
    row: int,
    text: str,
    distractors: Mapping[str, Distractor],
    weights: Mapping[str, float],
    *,
    per_row: int,
    generator: Generator,
) -> list[tuple[str, str]]:
    """`per_row` distractors of one row as (rejected, kind), their kinds drawn in proportion to `weights`, no text twice.

    A drawn distractor that cannot be made of the row (None, or equal to the text) is drawn anew; a row gives fewer when
    `DRAWS` draws a pair do not find enough. Raises ValueError for an unknown kind, no positive weight or no pair.
    """
    unknown = set(weights) - set(distractors)
    if unknown or min(weights.values(), default=0) < 0 or sum(weights.values()) <= 0:
        raise ValueError(f"pair kinds {dict(weights)}; allowed: {', '.join(distractors)}, weights 0 or more, not all 0")
    if per_row < 1:
        raise ValueError(f"per_row={per_row}; allowed: 1 or more")
    kinds, shares = list(weights), np.array([*weights.values()], float) / sum(weights.values())
    found: dict[str, str] = {}
    for place in generator.choice(len(kinds), size=DRAWS * per_row, p=shares).tolist():
        rejected = distractors[kinds[place]](row, generator) if len(found) < per_row else None
        if rejected and rejected != text:
            found.setdefault(rejected, kinds[place])
    return list(found.items())


def summary_distractors(rows: pd.DataFrame) -> dict[str, Distractor]:
    """Distractors for rows (post, summary, label), by kind.

    other_same, other_opposite: another review's summary of the same or the other sentiment; sentence, lead: sentences of
    the post from anywhere or its first ones; shuffled, repeated: see `shuffled_words`, `looped`; chant: a phrase of
    another summary again and again; cut: a longer summary of the same sentiment stopped in mid-sentence at the own
    summary's length.
    """
    summaries, posts, labels = (rows[name].tolist() for name in ("summary", "post", "label"))
    by_label = {label: [i for i, other in enumerate(labels) if other == label] for label in set(labels)}
    opposite = {label: [i for i, other in enumerate(labels) if other != label] for label in set(labels)}
    return {
        "other_same": lambda row, generator: _other(row, summaries, by_label[labels[row]], generator),
        "other_opposite": lambda row, generator: _other(row, summaries, opposite[labels[row]], generator),
        "sentence": lambda row, generator: _excerpt(posts[row], summaries[row], generator),
        "lead": lambda row, generator: _excerpt(posts[row], summaries[row], None),
        "shuffled": lambda row, generator: shuffled_words(summaries[row], generator),
        "repeated": lambda row, generator: looped(summaries[row], generator),
        "chant": lambda row, generator: _chant(row, summaries, generator),
        "cut": lambda row, generator: _cut_other(row, summaries, by_label[labels[row]], generator),
    }


def answer_distractors(rows: pd.DataFrame) -> dict[str, Distractor]:
    """Distractors for rows (turn, answer), by kind.

    other: the answer to another instruction; sentences_shuffled: the sentences in another order; sentence_repeated: its
    first sentences, then one of them again and again; shuffled, repeated, chant: as for summaries.
    """
    answers = rows["answer"].tolist()
    everyone = list(range(len(answers)))
    return {
        "other": lambda row, generator: _other(row, answers, everyone, generator),
        "sentences_shuffled": lambda row, generator: shuffled_sentences(answers[row], generator),
        "sentence_repeated": lambda row, generator: repeated_sentence(answers[row], generator),
        "shuffled": lambda row, generator: shuffled_words(answers[row], generator),
        "repeated": lambda row, generator: looped(answers[row], generator),
        "chant": lambda row, generator: _chant(row, answers, generator),
    }


def _other(row: int, texts: Sequence[str], others: Sequence[int], generator: Generator) -> str | None:
    """A random other text that differs from `texts[row]`; None when a few draws find none."""
    for place in generator.integers(len(others), size=CANDIDATES).tolist() if others else []:
        if texts[others[place]] != texts[row]:
            return texts[others[place]]
    return None


def _excerpt(post: str, summary: str, generator: Generator | None) -> str:
    """Consecutive sentences of `post` (from its start without a generator) with about as many words as `summary`."""
    parts, wanted = sentences(post), len(summary.split())
    starts = [0] if generator is None else generator.permutation(len(parts))[:CANDIDATES].tolist()
    found = []
    for start in starts:
        lengths = np.cumsum([len(part.split()) for part in parts[start:]])
        best = int(np.abs(lengths - wanted).argmin())
        found.append((abs(int(lengths[best]) - wanted), " ".join(parts[start : start + best + 1])))
    # The nearest quarter, so that the choice is not always the same sentence.
    found.sort(key=lambda item: item[0])
    return found[0 if generator is None else int(generator.integers(max(len(found) // 4, 1)))][1]


def _words(text: str) -> list[str]:
    """Words with the white space behind them, so that corrupted texts keep their line breaks."""
    return re.findall(r"\S+\s*", text + " ")


def _passages(text: str) -> list[str]:
    """Sentences and lines with the white space behind them."""
    found = []
    for line, newlines in re.findall(r"([^\n]+)(\n*)", text):
        parts = sentences(line)
        found += [part + " " for part in parts[:-1]] + [part + (newlines or " ") for part in parts[-1:]]
    return found


def shuffled_words(text: str, generator: Generator) -> str:
    """The words of `text` in random order."""
    words = _words(text)
    return "".join(words[i] for i in generator.permutation(len(words))).strip()


def looped(text: str, generator: Generator) -> str:
    """`text` up to a random place, then a phrase of 1-6 words from there repeated to the same word count."""
    words = _words(text)
    start, size = int(generator.integers(max(len(words) // 2, 1))), int(generator.integers(1, LOOP_WORDS + 1))
    phrase = words[start : start + size]
    return "".join((words[:start] + phrase * len(words))[: len(words)]).strip()


def _chant(row: int, texts: Sequence[str], generator: Generator) -> str | None:
    """A phrase of 1-8 words or marks of another text, repeated to the word count of `texts[row]`."""
    source = _other(row, texts, range(len(texts)), generator)
    if source is None:
        return None
    parts = re.findall(r"\w[\w'-]*|[^\w\s]", source)
    start = int(generator.integers(max(len(parts) - 1, 1)))
    phrase = parts[start : start + int(generator.integers(1, CHANT_WORDS + 1))]
    wanted = len(texts[row].split())
    return re.sub(r" ([^\w\s])", r"\1", " ".join((phrase * wanted)[:wanted]))


def shuffled_sentences(text: str, generator: Generator) -> str | None:
    """The sentences and lines of `text` in random order; None with fewer than two."""
    parts = _passages(text)
    return "".join(parts[i] for i in generator.permutation(len(parts))).strip() if len(parts) > 1 else None


def repeated_sentence(text: str, generator: Generator) -> str | None:
    """`text` up to one of its first three sentences, then that sentence repeated to the same word count."""
    parts = _passages(text)
    if len(parts) < 2:
        return None
    last = int(generator.integers(min(3, len(parts) - 1)))
    wanted = len(text.split())
    return "".join(_words("".join(parts[:last] + [parts[last]] * wanted))[:wanted]).strip()


def _cut_other(row: int, texts: Sequence[str], others: Sequence[int], generator: Generator) -> str | None:
    """The first words of a longer text, as many as `texts[row]` has and not up to the end of a sentence."""
    wanted = len(texts[row].split())
    for place in generator.permutation(len(others))[: 4 * CANDIDATES]:
        words = texts[others[place]].split()
        if len(words) > wanted and not re.search(r"[.!?][\"')\]*]*$", words[wanted - 1]):
            return " ".join(words[:wanted])
    return None


def cut_together(
    rows: Sequence[Sequence[int]], *, min_tokens: int, max_tokens: int, one_length: bool, generator: Generator
) -> list[list[int]]:
    """Token rows cut to U{min_tokens..max_tokens} tokens, shorter ones left as they are.

    With `one_length` all get one length, at most that of the shortest row; else each draws its own, which as often makes
    the one longer as the other.
    """
    lengths = generator.integers(min_tokens, max_tokens + 1, size=len(rows)).tolist()
    if one_length:
        lengths = [min(lengths[0], *(len(row) for row in rows))] * len(rows)
    return [list(row[:length]) for row, length in zip(rows, lengths, strict=True)]


def blanked(row: Sequence[int], fraction: float, *, space_id: int, generator: Generator) -> list[int]:
    """`row` with int(fraction * length) of its tokens, in spans of 1-6, set to the space token (an absent unit)."""
    tokens, absent = np.array(row), np.zeros(len(row), bool)
    while (missing := int(fraction * len(row)) - int(absent.sum())) > 0:
        span = min(int(generator.integers(1, 7)), missing)
        start = int(generator.integers(len(row) - span + 1))
        absent[start : start + span] = True
    tokens[absent] = space_id
    return tokens.tolist()


def length_shares(chosen: Sequence[int], rejected: Sequence[int]) -> dict[str, float]:
    """Of pairs with these lengths, the shares where the chosen text is longer, shorter, and as long."""
    difference = np.asarray(chosen) - np.asarray(rejected)
    return {
        "longer": float((difference > 0).mean()),
        "shorter": float((difference < 0).mean()),
        "equal": float((difference == 0).mean()),
    }
