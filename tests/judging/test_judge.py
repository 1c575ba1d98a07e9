"""LLM judges against a local service: right, slow, busy, broken and nonsensical answers, and nothing paid twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scar.judging.judge import AnswerCache, ChatJudge, RewardModelJudge
from scar.judging.pairs import Pair
from scar.judging.prompts import Answers, Summaries
from tests.judging.chat_server import completion, failure, serve

KEY = "sk-secret-1234567890"


def row(prompt: str, response: str) -> dict[str, Any]:
    return {"prompt": prompt, "response": response}


PAIRS = [Pair(row(f"post {i}", f"good {i}"), row(f"post {i}", f"bad {i}")) for i in range(3)]
SETTINGS: dict[str, Any] = {
    "name": "gemini",
    "label": "a judge",
    "model": "a-judge",
    "key_variable": "JUDGE_KEY",
    "temperature": 0.0,
    "max_tokens": 64,
    "output_tokens": 50,
    "attempts": 2,
    "max_retries": 2,
    "timeout_seconds": 5.0,
    "requests_per_minute": 60_000,
    "concurrency": 1,
    "price": {"input": 1.0, "output": 10.0},
    "key": KEY,
}


def judge(url: str, folder: Path, **changed: Any) -> ChatJudge:
    settings = SETTINGS | {"base_url": url, "cache": AnswerCache(folder / "answers.jsonl")}
    return ChatJudge(**({"questions": Summaries(prompt_file=None)} | settings | changed))


def ignore(done: int, total: int) -> None:
    pass


def test_answers_come_in_the_order_of_the_pairs(tmp_path: Path) -> None:
    def better(request: dict[str, Any]) -> Any:  # the first summary is good; say A for posts 0 and 2, tie for 1
        return completion("because\n\n**C**" if "post 1" in request["messages"][0]["content"] else "because\nA")

    told: list[tuple[int, int]] = []
    with serve(better) as server:
        found = judge(server.url, tmp_path, concurrency=3).answer(PAIRS, lambda done, total: told.append((done, total)))
    assert [answer.choice for answer in found] == ["A", "C", "A"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    request = server.requests[0]
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("a-judge", 0.0, 64)
    assert server.keys == [f"Bearer {KEY}"] * 3


def test_what_was_answered_is_not_asked_or_paid_again(tmp_path: Path) -> None:
    with serve(completion("A"), completion("B"), failure(401)) as server:
        with pytest.raises(ConnectionError, match="check the key in JUDGE_KEY"):
            judge(server.url, tmp_path).answer(PAIRS, ignore)
        assert len(server.requests) == 3
    with serve(completion("C")) as server:
        again = judge(server.url, tmp_path)
        assert (again.estimate(PAIRS).requests, again.estimate(PAIRS).cached) == (1, 2)
        assert [answer.choice for answer in again.answer(PAIRS, ignore)] == ["A", "B", "C"]
        assert len(server.requests) == 1
        assert again.estimate(PAIRS).dollars == 0


@pytest.mark.parametrize(
    "faults",
    [
        [failure(429, **{"Retry-After": "0.01"}), failure(429, **{"retry-after-ms": "10"})],
        [failure(500, **{"retry-after-ms": "10"}), failure(503, **{"retry-after-ms": "10"})],
        [0.6],  # silence beyond the time-out below
    ],
    ids=["busy", "broken", "slow"],
)
def test_a_busy_broken_or_slow_service_is_asked_again(tmp_path: Path, faults: list[Any]) -> None:
    with serve(*faults, completion("B")) as server:
        (found,) = judge(server.url, tmp_path, timeout_seconds=0.3).answer(PAIRS[:1], ignore)
        assert found.choice == "B"
        assert len(server.requests) == len(faults) + 1


def test_a_service_that_stays_broken_ends_in_one_line_and_loses_nothing(tmp_path: Path) -> None:
    with serve(completion("A"), failure(500, **{"retry-after-ms": "1"})) as server:
        with pytest.raises(ConnectionError) as caught:
            judge(server.url, tmp_path).answer(PAIRS, ignore)
        assert len(server.requests) >= 4  # one answer, then one try and two retries
    message = str(caught.value)
    assert "judge gemini at http://127.0.0.1" in message
    assert "status 500" in message
    assert "answers so far are kept" in message
    assert "\n" not in message
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 400])
def test_what_cannot_get_better_is_not_tried_again(tmp_path: Path, status: int) -> None:
    with serve(failure(status)) as server:
        with pytest.raises(ConnectionError, match=f"status {status}.*check"):
            judge(server.url, tmp_path).answer(PAIRS[:1], ignore)
        assert len(server.requests) == 1


def test_nonsense_is_asked_again_and_then_counted_and_not_paid_for_again(tmp_path: Path) -> None:
    with serve(completion("I like both."), completion("who knows"), completion("A")) as server:
        (found,) = judge(server.url, tmp_path).answer(PAIRS[:1], ignore)
        assert (found.choice, found.text) == (None, "who knows")
        assert len(server.requests) == 2
        assert judge(server.url, tmp_path).answer(PAIRS[:1], ignore)[0].choice is None
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "reply",
    [
        (200, {"Content-Type": "application/json"}, b'{"id": "x", "object": "chat.completion", "choices": []}'),
        (200, {"Content-Type": "application/json"}, b'{"message": "another schema"}'),
        (200, {"Content-Type": "application/json"}, b'{"choices": [{"message": {"content": null}}]}'),
        (200, {"Content-Type": "text/html"}, b"<html>a proxy's page</html>"),
        (200, {"Content-Type": "application/json"}, b'{"choices": ['),
    ],
    ids=["no choice", "other schema", "null", "html", "half"],
)
def test_replies_of_another_form_are_unreadable_answers(tmp_path: Path, reply: Any) -> None:
    with serve(reply) as server:
        (found,) = judge(server.url, tmp_path).answer(PAIRS[:1], ignore)
        assert found.choice is None
        assert len(server.requests) == 2


def test_the_key_is_in_no_file_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with serve(completion("A"), failure(403)) as server, pytest.raises(ConnectionError) as caught:
        judge(server.url, tmp_path).answer(PAIRS[:2], ignore)
    written = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert written
    assert KEY not in written + str(caught.value) + repr(caught.value.__cause__) + caplog.text


def test_cost_counts_letters_answers_and_prices(tmp_path: Path) -> None:
    with serve(completion("A")) as server:
        asked = judge(server.url, tmp_path)
        letters = sum(len(Summaries(prompt_file=None).messages(pair)[0]["content"]) for pair in PAIRS)
        found = asked.estimate(PAIRS)
        assert server.requests == []
    assert (found.requests, found.input_tokens, found.output_tokens) == (3, letters // 4, 150)
    assert found.dollars == pytest.approx(letters // 4 / 1e6 + 150 * 10 / 1e6)


def test_other_settings_are_other_questions(tmp_path: Path) -> None:
    with serve(completion("A"), completion("B")) as server:
        judge(server.url, tmp_path).answer(PAIRS[:1], ignore)
        assert judge(server.url, tmp_path, temperature=0.5).answer(PAIRS[:1], ignore)[0].choice == "B"


def test_requests_keep_their_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("scar.judging.judge.time.monotonic", lambda: 100.0)
    monkeypatch.setattr("scar.judging.judge.time.sleep", waits.append)
    with serve(completion("A")) as server:
        judge(server.url, tmp_path, requests_per_minute=30).answer(PAIRS, ignore)
    assert [seconds for seconds in waits if seconds] == [2.0, 4.0]  # a start every two seconds; the clock stands still


def test_alpaca_eval_reads_the_probability_of_the_answer(tmp_path: Path) -> None:
    pair = Pair(row("\n\nHuman: Why?\n\nAssistant:", "one"), row("\n\nHuman: Why?\n\nAssistant:", "two"))
    questions = Answers(instruction=r"Human:\s*(.*?)\s*Assistant:")
    with serve(completion("m", {"m": -0.5, "M": -1.5, "x": -3.0}), completion("M")) as server:
        asked = judge(server.url, tmp_path, questions=questions, max_tokens=1)
        (found,) = asked.answer([pair], ignore)
        (plain,) = asked.answer([Pair(pair.second, pair.first)], ignore)
    assert found.choice == "A"
    assert found.preference == pytest.approx(1 / (1 + 2.718281828**-1))
    assert (plain.choice, plain.preference) == ("B", 0.0)
    request = server.requests[0]
    assert (request["logprobs"], request["top_logprobs"], request["max_tokens"]) == (True, 5, 1)
    assert "Instruction:\nWhy?\n" in request["messages"][1]["content"]
    assert json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[0])["answer"]["logprobs"]["m"] == -0.5


def test_reward_model_judge_compares_scores() -> None:
    scored: list[int] = []

    def scorer(rows: Any) -> list[float]:
        scored.append(len(rows))
        return [{"good": 1.0, "bad": -1.0, "same": 0.5}[r["response"].split()[0]] for r in rows]

    same = Pair(row("p", "same 1"), row("p", "same 2"))
    judge_ = RewardModelJudge(name="reward_model", label="gold", scorer=scorer, rows_a_batch=2)
    found = judge_.answer([PAIRS[0], Pair(PAIRS[1].second, PAIRS[1].first), same], ignore)
    assert [(answer.choice, answer.scores) for answer in found] == [
        ("A", (1.0, -1.0)),
        ("B", (-1.0, 1.0)),
        ("C", (0.5, 0.5)),
    ]
    assert scored == [2, 2, 1, 1]
    assert judge_.estimate(PAIRS).requests == 0
