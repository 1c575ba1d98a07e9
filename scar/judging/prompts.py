"""What LLM judges are asked, and how their answers are read.

The summary prompt has the criteria and the answer format of the paper's Appendix D, and the answer prompt the convention of
AlpacaEval's weighted annotators (outputs called m and M, one token, its probability), both in our words. Who has the
paper's own text gives it as a file: `judge.prompt_file`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from scar.judging.pairs import Answer, Pair

PLACEHOLDERS = ("original_document", "summary_A", "summary_B")

SUMMARY = """\
You compare two summaries of the same text, as a careful human reader would. Decide which one is better as a whole.

Look at five things:
1. Accuracy: does it say what the text says, without additions or distortions?
2. Coverage: does it hold the main points, without a serious gap?
3. Conciseness: is it short and free of repetition, and much shorter than the text?
4. Clarity: is it fluent, grammatical and easy to understand?
5. Coherence: do its sentences follow from each other, and does it stand on its own?

Text:
{original_document}

Summary A:
{summary_A}

Summary B:
{summary_B}

First give your reasoning: what the text is about, then A against B on each of the five points, with examples.
Then write, on a new line, "Overall Decision:" and your judgement as a whole.
Last, on a line of its own, write one letter and nothing else:
A if summary A is better, B if summary B is better, C if neither is clearly better.
"""

ANSWERS_SYSTEM = """\
You rank two answers of language models to one instruction by which of them people would prefer. You reply with the name of \
the better one, m or M, and with nothing else."""

ANSWERS = """\
Instruction:
{instruction}

Answer of model m:
{m}

Answer of model M:
{M}

Which model gave the better answer: m or M? Reply with that one letter."""


def read_template(file: str | None) -> str:
    """The text of `file` (None: `SUMMARY`); ValueError if it cannot be read or lacks a placeholder."""
    if file is None:
        return SUMMARY
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"judge.prompt_file={file} cannot be read ({error}); give a text file") from error
    if absent := [name for name in PLACEHOLDERS if f"{{{name}}}" not in text]:
        raise ValueError(
            f"judge.prompt_file={file} lacks {{{'}, {'.join(absent)}}}; it needs {{{'}, {'.join(PLACEHOLDERS)}}}"
        )
    return text


def fill(template: str, values: Mapping[str, str]) -> str:
    """`template` with each {name} replaced once; braces of the values stay as they are."""
    pattern = re.compile("|".join(re.escape(f"{{{name}}}") for name in values))
    return pattern.sub(lambda match: values[match[0][1:-1]], template)


def letter_of(text: str) -> str | None:
    """A, B or C from the last line that holds anything; None if it holds anything else ('**A**' and 'A.' are read)."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    match = re.fullmatch(r"""[*_'"`\[(\u2018\u201c]*([ABC])[*_'"`\])\u2019\u201d.]*""", lines[-1]) if lines else None
    return match[1] if match else None


def preference_for_m(logprobs: Mapping[str, float]) -> float | None:
    """P(m) against P(M) from the log-probabilities of the answer's first token; None if neither is among them."""
    weights = {name: sum(math.exp(v) for token, v in logprobs.items() if token.strip() == name) for name in ("m", "M")}
    total = sum(weights.values())
    return weights["m"] / total if total > 0 else None


class Summaries:
    """Asks for a comparison of two summaries that ends in A, B or C (`letter_of`)."""

    top_logprobs: int | None = None

    def __init__(self, *, prompt_file: str | None) -> None:
        self._template = read_template(prompt_file)

    def messages(self, pair: Pair) -> list[dict[str, str]]:
        """The chat that asks about `pair`."""
        texts = zip(PLACEHOLDERS, (pair.first["prompt"], pair.first["response"], pair.second["response"]), strict=True)
        return [{"role": "user", "content": fill(self._template, {name: text.strip() for name, text in texts})}]

    def read(self, text: str, logprobs: Mapping[str, float] | None) -> Answer:
        """What the judge chose."""
        return Answer(letter_of(text), text)


class Answers:
    """Asks which of two answers is better by one token, whose probability is the preference (AlpacaEval's convention)."""

    top_logprobs: int | None = 5

    def __init__(self, *, instruction: str) -> None:
        self._instruction = re.compile(instruction, re.DOTALL)

    def messages(self, pair: Pair) -> list[dict[str, str]]:
        """The chat that asks about `pair`; ValueError if its prompt is not of the task's form."""
        match = self._instruction.fullmatch(pair.first["prompt"].strip())
        if match is None:
            raise ValueError(
                f"judge.questions.instruction={self._instruction.pattern!r} does not match the prompt "
                f"{pair.first['prompt'][:80]!r}; it must match whole prompts, its group the instruction"
            )
        values = {"instruction": match[1], "m": pair.first["response"], "M": pair.second["response"]}
        question = fill(ANSWERS, {name: text.strip() for name, text in values.items()})
        return [{"role": "system", "content": ANSWERS_SYSTEM}, {"role": "user", "content": question}]

    def read(self, text: str, logprobs: Mapping[str, float] | None) -> Answer:
        """The first is m: A above one half, B below, C at it; without probabilities the letter itself decides."""
        preference = preference_for_m(logprobs) if logprobs else None
        if preference is None:
            choice = {"m": "A", "M": "B"}.get(text.strip())
            return Answer(choice, text, None if choice is None else float(choice == "A"))
        return Answer("A" if preference > 0.5 else "B" if preference < 0.5 else "C", text, preference)
