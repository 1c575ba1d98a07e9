from __future__ import annotations

from pathlib import Path

import pytest

from scar.judging.pairs import Answer, Pair
from scar.judging.prompts import Answers, Summaries, fill, letter_of


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"),
        ("Because.\n\nOverall Decision: B is better.\n\nB\n \n", "B"),
        ("**C**", "C"),
        ("x\n'A'", "A"),
        ("x\n\u2018B\u2019", "B"),
        ("x\n(A).", "A"),
        ("A\nbut on second thought", None),
        ("The answer is A", None),
        ("AB", None),
        ("D", None),
        ("a", None),
        ("", None),
        ("\n\n", None),
    ],
)
def test_the_letter_is_alone_on_the_last_line(text: str, letter: str | None) -> None:
    assert letter_of(text) == letter


def test_texts_with_braces_stay_as_they_are() -> None:
    assert fill("{a}-{b}-{a}", {"a": "{b}", "b": "{a} {c}"}) == "{b}-{a} {c}-{b}"


def test_summary_question_holds_all_three_texts_where_they_belong() -> None:
    pair = Pair({"prompt": "the post", "response": " one "}, {"prompt": "the post", "response": " two"})
    (message,) = Summaries(prompt_file=None).messages(pair)
    text = message["content"]
    assert text.index("the post") < text.index("Summary A:\none") < text.index("Summary B:\ntwo")
    assert "{" not in text
    for criterion in ("Accuracy", "Coverage", "Conciseness", "Clarity", "Coherence"):
        assert criterion in text


def test_an_own_prompt_file_is_used_and_checked(tmp_path: Path) -> None:
    pair = Pair({"prompt": "d", "response": "x"}, {"prompt": "d", "response": "y"})
    file = tmp_path / "prompt.txt"
    file.write_text("{original_document}|{summary_A}|{summary_B}")
    assert Summaries(prompt_file=str(file)).messages(pair)[0]["content"] == "d|x|y"
    file.write_text("{original_document}|{summary_A}")
    with pytest.raises(ValueError, match=r"prompt_file=.* lacks \{summary_B\}; it needs \{original_document\}"):
        Summaries(prompt_file=str(file))
    with pytest.raises(ValueError, match=r"prompt_file=.*absent\.txt cannot be read"):
        Summaries(prompt_file=str(tmp_path / "absent.txt"))


def test_a_prompt_of_another_form_is_said() -> None:
    pair = Pair({"prompt": "POST: x", "response": "a"}, {"prompt": "POST: x", "response": "b"})
    with pytest.raises(ValueError, match="does not match the prompt 'POST: x'"):
        Answers(instruction=r"Human:\s*(.*?)\s*Assistant:").messages(pair)


def test_a_pair_is_of_one_prompt_and_an_answer_of_three_letters() -> None:
    with pytest.raises(ValueError, match="of one prompt"):
        Pair({"prompt": "a"}, {"prompt": "b"})
    with pytest.raises(ValueError, match="choice 'D'"):
        Answer("D")
