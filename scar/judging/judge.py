"""Judges of pairs: an LLM behind an OpenAI-compatible service, or a reward model that no policy was trained against."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scar.judging.pairs import Answer, Pair

Advance = Callable[[int, int], None]
"""Told how many of how many answers are there."""


class Questions(Protocol):
    """How a pair is asked about, and how the answer is read (judge_prompts.py)."""

    top_logprobs: int | None

    def messages(self, pair: Pair) -> list[dict[str, str]]:
        """The chat that asks about a pair."""
        ...

    def read(self, text: str, logprobs: Mapping[str, float] | None) -> Answer:
        """What was answered; `choice` None where that cannot be told."""
        ...


@dataclass(frozen=True)
class Estimate:
    """What a judging will take: requests not answered yet, tokens (roughly: 4 letters each), US dollars."""

    requests: int
    cached: int
    input_tokens: int
    output_tokens: int
    dollars: float


class ChatJudge:
    """Asks a chat model about every pair.

    `price`: US dollars per million tokens, {input, output}; `output_tokens`: what an answer is expected to have, for the
    estimate only. A service that is busy, slow or broken is asked again `max_retries` times with growing pauses (the openai
    client's: 0.5 s doubling to 8 s, or what the service asks for); an answer that cannot be read, `attempts` times in all.
    """

    def __init__(
        self,
        *,
        name: str,
        label: str,
        model: str,
        base_url: str,
        key_variable: str,
        questions: Questions,
        temperature: float,
        max_tokens: int,
        output_tokens: int,
        attempts: int,
        max_retries: int,
        timeout_seconds: float,
        requests_per_minute: float,
        concurrency: int,
        price: Mapping[str, float],
        key: str,
        cache: AnswerCache,
    ) -> None:
        least = {"attempts": attempts, "concurrency": concurrency, "requests_per_minute": requests_per_minute}
        if wrong := {key: value for key, value in least.items() if value < 1}:
            raise ValueError(f"judge settings {wrong}; allowed: 1 or more")
        self.name, self.label = name, label
        self._model, self._base_url, self._key_variable, self._key = model, base_url, key_variable, key
        self._questions, self._cache = questions, cache
        self._sampling = {"temperature": temperature, "max_tokens": max_tokens}
        if questions.top_logprobs:
            self._sampling |= {"logprobs": True, "top_logprobs": questions.top_logprobs}
        self._output_tokens, self._attempts, self._price = output_tokens, attempts, price
        self._client_settings = {"max_retries": max_retries, "timeout": timeout_seconds}
        self._concurrency, self._pace = concurrency, _Pace(60 / requests_per_minute)

    def _request(self, pair: Pair) -> dict[str, Any]:
        return {"model": self._model, "messages": self._questions.messages(pair)} | self._sampling

    def estimate(self, pairs: Sequence[Pair]) -> Estimate:
        """What is still to be asked about `pairs`."""
        requests = [self._request(pair) for pair in pairs]
        new = [request for request in requests if self._cache.get(self._cache.key(request)) is None]
        letters = sum(len(message["content"]) for request in new for message in request["messages"])
        tokens = {"input": letters // 4, "output": len(new) * self._output_tokens}
        dollars = sum(self._price[side] * tokens[side] / 1e6 for side in tokens)
        return Estimate(len(new), len(requests) - len(new), tokens["input"], tokens["output"], dollars)

    def answer(self, pairs: Sequence[Pair], advance: Advance) -> list[Answer]:
        """The answers, in the order of `pairs`; every one is kept as it comes.

        Raises ConnectionError when the service refuses, or gives up answering after all retries.
        """
        by_number: dict[int, Answer] = {}
        with self._client() as client, ThreadPoolExecutor(self._concurrency) as pool:
            pending = {pool.submit(self._ask, client, pair): number for number, pair in enumerate(pairs)}
            try:
                for future in as_completed(pending):
                    by_number[pending[future]] = future.result()
                    advance(len(by_number), len(pairs))
            except BaseException:  # what has not begun is not paid for
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [by_number[number] for number in range(len(pairs))]

    @contextmanager
    def _client(self) -> Iterator[Any]:
        try:
            import openai
        except ImportError as error:
            raise ImportError("LLM judges need the openai package: pip install 'scar[judges]'") from error
        with openai.OpenAI(api_key=self._key, base_url=self._base_url, **self._client_settings) as client:
            try:
                yield client
            except openai.OpenAIError as error:
                raise ConnectionError(self._explain(error)) from None  # its context could hold the key

    def _explain(self, error: Exception) -> str:
        status = getattr(error, "status_code", None)
        what = f"{type(error).__name__}" + (f", status {status}" if status else "")
        todo = "answers so far are kept, and the same command goes on from there"
        if status in (401, 403):
            todo = f"check the key in {self._key_variable}"
        elif status in (400, 404, 422):
            todo = f"check judge.model={self._model} and judge.base_url"
        return f"judge {self.name} at {self._base_url} failed ({what}); {todo}"

    def _ask(self, client: Any, pair: Pair) -> Answer:
        request = self._request(pair)
        key = self._cache.key(request)
        stored = self._cache.get(key)
        if stored is None:
            stored = self._new_answer(client, request)
            self._cache.put(key, stored)
        return self._questions.read(stored["text"], stored["logprobs"])

    def _new_answer(self, client: Any, request: dict[str, Any]) -> dict[str, Any]:
        """The first answer that can be read, else the last one."""
        stored: dict[str, Any] = {"text": "", "logprobs": None}
        for _ in range(self._attempts):
            self._pace.wait()
            try:
                stored = _content(client.chat.completions.create(**request))
            except json.JSONDecodeError:  # half a reply: no answer that can be read
                continue
            if self._questions.read(stored["text"], stored["logprobs"]).choice is not None:
                break
        return stored


def _content(reply: Any) -> dict[str, Any]:
    """Text and first-token log-probabilities of a reply; a reply of another form has neither, so it is asked for again."""
    try:
        choice = reply.choices[0]
        text = choice.message.content or ""
        first = choice.logprobs.content[0] if choice.logprobs and choice.logprobs.content else None
        return {"text": text, "logprobs": {top.token: top.logprob for top in first.top_logprobs} if first else None}
    except (AttributeError, IndexError, TypeError):
        return {"text": "", "logprobs": None}


class _Pace:
    """Lets one request begin every `seconds`, whichever thread it is of."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._next, self._lock = seconds, 0.0, threading.Lock()

    def wait(self) -> None:
        """Wait for this request's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(self._next, now)
            self._next = turn + self._seconds
        time.sleep(turn - now)


Scorer = Callable[[Sequence[Mapping[str, Any]]], list[float]]
"""One score per row of samples.jsonl."""


class RewardModelJudge:
    """The better response is the one that a held-out reward model scores higher; equal scores are a tie. Costs nothing."""

    def __init__(self, *, name: str, label: str, scorer: Scorer, rows_a_batch: int) -> None:
        self.name, self.label, self._scorer, self._rows = name, label, scorer, rows_a_batch

    def estimate(self, pairs: Sequence[Pair]) -> Estimate:
        """Nothing to pay."""
        return Estimate(0, 0, 0, 0, 0.0)

    def answer(self, pairs: Sequence[Pair], advance: Advance) -> list[Answer]:
        """The answers, in the order of `pairs`."""
        answers: list[Answer] = []
        for start in range(0, len(pairs), self._rows):
            batch = pairs[start : start + self._rows]
            sides = [self._scorer([getattr(pair, side) for pair in batch]) for side in ("first", "second")]
            for first, second in zip(*sides, strict=True):
                choice = "C" if first == second else "A" if first > second else "B"
                answers.append(Answer(choice, scores=(first, second)))
            advance(len(answers), len(pairs))
        return answers


# Answers that were paid for, kept on disk as they come, so that nothing is paid twice.


class AnswerCache:
    """One JSON object a line in `file`, appended and flushed answer by answer; safe to use from several threads.

    A line that cannot be read (the program was killed while it wrote) is left out: that answer is asked for again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._answers: dict[str, dict[str, Any]] = {}
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self._answers[row["key"]] = row["answer"]
            except (ValueError, KeyError, TypeError):
                continue

    @staticmethod
    def key(request: Mapping[str, Any]) -> str:
        """The name of a request: everything that decides its answer."""
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer stored under `key`."""
        return self._answers.get(key)

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Store an answer, in memory and on disk."""
        line = json.dumps({"key": key, "answer": answer}, allow_nan=False) + "\n"
        with self._lock:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._file, "a", encoding="utf-8") as stream:
                stream.write("\n" + line if self._torn else line)
            self._torn = False
            self._answers[key] = answer
