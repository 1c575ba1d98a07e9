"""The helpfulness task: single-turn requests of the hub's files, and the rows of a source distribution, each turn once."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scar.interfaces import PromptText
from scar.models.loading import train_tokenizer
from scar.tasks.hh import HelpfulBase, HhTask, InstructionRows, prompt_of
from scar.tasks.imdb import SPLITS, hash_split
from scar.tasks.prompts import PromptBatches, WholePrompt
from tests.smoke_scale import composed
from tests.tasks.test_sdist import archive_of

BEFORE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n"
)


def single(turn: str, answer: str = "An answer.") -> dict[str, str]:
    """A conversation of one turn in Anthropic's format."""
    start = f"\n\nHuman: {turn}\n\nAssistant: "
    return {"chosen": start + answer, "rejected": start + "Another."}


def several(turn: str) -> dict[str, str]:
    row = single(turn)
    return {key: f"{text}\n\nHuman: And then?\n\nAssistant: That was it." for key, text in row.items()}


def helpful_folder(folder: Path, *, train: list[dict[str, str]], test: list[dict[str, str]]) -> HelpfulBase:
    """The hub's files on disk, below the folder of the subset."""
    below = folder / "helpful-base"
    below.mkdir(parents=True)
    for split, rows in {"train": train, "test": test}.items():
        with gzip.open(below / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return HelpfulBase(str(folder), "helpful-base")


def turns_of(task: HhTask, split: str) -> list[str]:
    return [prompt.body for prompt in task.prompts(split)]


def test_prompts_of_policy_and_reward_model_by_hand() -> None:
    prompt = prompt_of("How {many} are there?")
    whole = prompt.before + prompt.body + prompt.after
    assert whole == BEFORE + "How {many} are there?\n\n### Response:"
    assert prompt.reward == "###Human: How {many} are there? ###Assistant: "
    assert prompt.body == "How {many} are there?"


# Anthropic's files.


@pytest.mark.usefixtures("datasets_cache")
def test_conversations_in_which_the_human_speaks_once_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    source = helpful_folder(
        tmp_path / "hh",
        train=[
            single("First?"),
            several("Second?"),
            single("  Third, café 🙂?\n\n- with\n- lines \n"),
            single("Fourth?", answer="You said: Human: hello."),  # counted as a second turn, as ABC's code does
        ],
        test=[single("Fifth?"), several("Sixth?"), single("  "), single("Seventh?", answer="A.\n\nAssistant: B.")],
    )
    task = HhTask(source)
    train = turns_of(task, "train") + turns_of(task, "validation")
    assert sorted(train) == ["First?", "Third, café 🙂?\n\n- with\n- lines"]
    assert turns_of(task, "test") == ["Fifth?", "Seventh?"]
    assert task.left_out == {"several turns": 3, "blank": 1}
    assert task.prompts("test")[0] == prompt_of("Fifth?")


@pytest.mark.usefixtures("datasets_cache")
def test_validation_is_a_tenth_of_train_the_same_each_time_and_test_is_the_hubs_own(tmp_path: Path) -> None:
    train, test = ([f"{name} request {n}?" for n in range(1000)] for name in ("train", "test"))
    source = helpful_folder(tmp_path / "hh", train=[*map(single, train)], test=[*map(single, test)])
    task = HhTask(source)
    found = {split: turns_of(task, split) for split in SPLITS}
    assert found["test"] == test
    assert sorted(found["train"] + found["validation"]) == sorted(train)
    assert len(found["validation"]) == pytest.approx(100, abs=35)  # 3.7 standard deviations
    assert found["validation"] == [turn for turn in train if hash_split(turn) == "validation"]
    again = helpful_folder(tmp_path / "again", train=[*map(single, train[::-1])], test=[*map(single, test)])
    assert turns_of(HhTask(again), "validation") == found["validation"][::-1]


@pytest.mark.usefixtures("datasets_cache")
def test_subset_is_read_below_its_own_folder(tmp_path: Path) -> None:
    source = helpful_folder(tmp_path / "hh", train=[single("a")], test=[single("b")])
    assert source.identity() == {"hub": str(tmp_path / "hh"), "data_dir": "helpful-base", "revision": None}
    with pytest.raises(
        FileNotFoundError, match=r"harmless-base does not exist; give one that has train\*\.parquet or "
    ):
        HelpfulBase(str(tmp_path / "hh"), "harmless-base").turns()
    (tmp_path / "hh" / "harmless-base").mkdir()
    with pytest.raises(ValueError, match=r"harmless-base has no train\*\.parquet and no train\*\.jsonl\.gz"):
        HelpfulBase(str(tmp_path / "hh"), "harmless-base").turns()


# The rows of a source distribution.

INSTRUCTIONS = [
    {"instruction": f"Instruction {n}.", "input": f"input {n}" * (n % 2), "output": f"Answer {n}."} for n in range(60)
] + [
    {"instruction": "Ask me", "input": "", "output": "Fine."},
    {"instruction": " ", "input": "", "output": "A blank turn."},
    {"instruction": "INSTRUCTION 0.", "input": "", "output": "Again."},
]


def pair(turn: str, *, roles: tuple[str, ...] = ("human",), chosen: str = "Good.") -> dict[str, Any]:
    said = {"human": turn, "system": "Be kind.", "gpt": f" First answer to {turn}\n"}
    conversations = [{"from": role, "value": said[role]} for role in roles]
    return {"conversations": conversations, "chosen": {"value": chosen}, "rejected": {"value": "Bad."}}


def voted(turn: str, *, label: bool, turns: int = 1) -> dict[str, Any]:
    exchange = [{"role": "user", "content": turn}, {"role": "assistant", "content": f"Voted answer to {turn}"}]
    return {"messages": exchange * turns, "label": label}


PAIRS = [
    *[pair(f"Pair {n}?") for n in range(40)],
    pair("ask ME"),  # also an instruction, in other case
    pair("Pair 3?"),  # twice among the pairs
    pair("Long one?", roles=("human", "gpt", "human")),
    pair("Equal?", chosen="Bad."),
    pair("With a system prompt?", roles=("system", "human")),
]
VOTES = [
    voted("Good vote?", label=True),
    voted("Bad vote?", label=False),
    voted("Went on?", label=False, turns=2),
    voted("pair 5?", label=True),  # also a ranked pair
]
MEMBERS = {
    "data/alpaca_en_demo.json": json.dumps(INSTRUCTIONS).encode(),
    "data/dpo_en_demo.json": json.dumps(PAIRS).encode(),
    "data/kto_en_demo.json": json.dumps(VOTES).encode(),
    "data/c4_demo.jsonl": "".join(json.dumps({"text": f"Page {n},\nof café."}) + "\n" for n in range(3)).encode(),
    "data/wiki_demo.txt": b"A paragraph.\n\nAnother one.\n",
}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstructionRows:
    """A package "tiny" 1.0 that a pip without a network "downloads"."""
    archive = archive_of(MEMBERS)

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        (Path(command[command.index("-d") + 1]) / "tiny-1.0.tar.gz").write_bytes(archive)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in MEMBERS.items()}
    return InstructionRows("tiny", "1.0", digests, cache=tmp_path / "cache")


def test_every_kind_of_row_gives_each_turn_once(rows: InstructionRows) -> None:
    task = HhTask(rows)
    turns = [turn for split in SPLITS for turn in turns_of(task, split)]
    expected = [f"Instruction {n}." + f"\ninput {n}" * (n % 2) for n in range(60)]
    expected += ["Ask me", *[f"Pair {n}?" for n in range(40)], "Be kind.\nWith a system prompt?"]
    expected += ["Long one?", "Good vote?", "Went on?"]
    assert sorted(turns) == sorted(expected)
    assert len({turn.casefold() for turn in turns}) == len(turns)


def test_answers_are_the_better_first_or_well_voted_ones(rows: InstructionRows) -> None:
    frame, _ = rows.answers()
    assert frame.columns.tolist() == ["turn", "answer", "split"]
    answer = dict(zip(frame["turn"], frame["answer"], strict=True))
    assert answer["Instruction 1.\ninput 1"] == "Answer 1."
    assert answer["Ask me"] == "Fine."  # of the instruction, which comes first
    assert answer["Pair 3?"] == answer["Be kind.\nWith a system prompt?"] == "Good."
    assert answer["Long one?"] == "First answer to Long one?"
    assert answer["Good vote?"] == "Voted answer to Good vote?"
    assert answer["Went on?"] == "Voted answer to Went on?"
    assert "Bad vote?" not in answer


def test_what_is_left_out_is_counted_by_reason(rows: InstructionRows) -> None:
    task = HhTask(rows)
    task.prompts("train")
    task.prompts("test")
    assert {reason: count for reason, count in task.left_out.items() if count} == {
        "instructions: blank": 1,
        "instructions: repeated turn": 1,
        "pairs: several turns": 1,
        "pairs: equal answers": 1,
        "pairs: repeated turn": 1,
        "repeated turn": 2,  # "ask ME" and "pair 5?"
    }
    assert task.left_out["blank"] == 0


def test_a_turn_has_one_split_in_prompts_answers_and_pairs(rows: InstructionRows) -> None:
    task = HhTask(rows)
    for split in SPLITS:
        assert turns_of(task, split)
        assert all(hash_split(turn) == split for turn in turns_of(task, split))
    answers, _ = rows.answers()
    pairs = rows.pairs()
    assert pairs.columns.tolist() == ["turn", "chosen", "rejected", "split"]
    assert (answers["split"] == answers["turn"].map(hash_split)).all()
    assert (pairs["split"] == pairs["turn"].map(hash_split)).all()
    # "Ask me" is an instruction and "ask ME" a pair: the hash does not see the case.
    assert set(answers["split"][answers["turn"] == "Ask me"]) == set(pairs["split"][pairs["turn"] == "ask ME"])


def test_plain_texts_are_pages_and_paragraphs(rows: InstructionRows) -> None:
    assert rows.plain_texts() == [*[f"Page {n},\nof café." for n in range(3)], "A paragraph.", "Another one."]


def test_requests_above_the_bound_are_dropped_and_the_reward_text_stays_with_its_request() -> None:
    prompts = [prompt_of("please " * count) for count in (1, 2, 3, 400)]
    tokenizer = train_tokenizer([p.before + p.body for p in prompts], vocab_size=400)
    stream = PromptBatches(prompts, cut=WholePrompt(256, "drop"), tokenizer=tokenizer, batch_size=3, seed=1)
    assert stream.dropped == 1
    batch = stream.batch(0)
    assert batch.reward_texts is not None
    for text, reward in zip(batch.texts, batch.reward_texts, strict=True):
        turn = text.removeprefix(BEFORE).removesuffix("\n\n### Response:")
        assert reward == f"###Human: {turn} ###Assistant: "


# The official file in the maintainers' data folder.


@pytest.fixture(scope="module")
def official_file() -> Path:
    file = Path(__file__).resolve().parents[3] / "shared" / "data" / "hh" / "helpful-base.test.jsonl.gz"
    if not file.is_file():
        pytest.skip("the maintainers' file shared/data/hh/helpful-base.test.jsonl.gz is not beside the checkout")
    return file


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.usefixtures("datasets_cache")
def test_official_test_file_gives_its_single_turns_word_for_word(tmp_path: Path, official_file: Path) -> None:
    source = helpful_folder(tmp_path / "hh", train=[single("A request of train?")], test=[])
    (tmp_path / "hh" / "helpful-base" / "test.jsonl.gz").write_bytes(official_file.read_bytes())
    with gzip.open(official_file, "rt", encoding="utf-8") as lines:
        chosen = [json.loads(line)["chosen"] for line in lines]
    task = HhTask(source)
    prompts = task.prompts("test")
    assert (len(chosen), len(prompts)) == (2354, 694)
    assert composed("scale=paper", "task=hh").task.sources.hub.test_prompts == 694
    assert max(len(prompt.body) for prompt in prompts) == 278
    assert task.left_out == {"several turns": 2354 - 694, "blank": 0}
    kept = [text for text in chosen if text.count("Human:") == 1]
    for prompt, text in zip(prompts, kept, strict=True):
        assert text.startswith(f"\n\nHuman: {prompt.body}\n\nAssistant:")
        assert prompt == PromptText(BEFORE, prompt.body, "\n\n### Response:", f"###Human: {prompt.body} ###Assistant: ")
