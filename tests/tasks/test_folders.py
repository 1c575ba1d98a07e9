"""Real rows by path (task.data_dir) and the hub's comparisons: hand-made rows in each schema, and the real files where present."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scar.tasks.hh import REWARD_PROMPT, HelpfulFiles, HhTask
from scar.tasks.imdb import SPLITS, ImdbTask, hash_split
from scar.tasks.sources import OfficialTest, load_files
from scar.tasks.tldr import RedditFiles, RedditPosts, TldrTask
from tests.tasks.rows import json_lines, reddit_row

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

pytestmark = pytest.mark.usefixtures("datasets_cache")


class Films:
    """What a package source gives."""

    def identity(self) -> dict[str, Any]:
        return {"package": "films"}

    def load(self) -> pd.DataFrame:
        rows = [("A film.", 1, "imdb"), ("Another film.", 0, "imdb"), ("A sentence.", 1, "rotten_tomatoes")]
        return pd.DataFrame(rows, columns=["text", "label", "origin"]).assign(official_split=None)


def shared(*names: str) -> Path:
    folder = SHARED.joinpath(*names)
    if not folder.is_dir():
        pytest.skip(f"the maintainers' folder shared/data/{'/'.join(names)} is not beside the checkout")
    return folder


# IMDB's official test split beside the package's train split.


def test_official_test_reviews_are_the_test_split_less_those_of_train(tmp_path: Path) -> None:
    rows = [("A test film.", 0), ("A film.", 1), ("Last film.", 1)]
    pd.DataFrame(rows, columns=["text", "label"]).to_parquet(tmp_path / "imdb_test_3.parquet")
    task = ImdbTask(OfficialTest(Films(), str(tmp_path)), min_characters=0)  # type: ignore[arg-type]
    assert [p.body for p in task.prompts("test")] == ["A test film.", "Last film."]
    train = [p.body for split in ("train", "validation") for p in task.prompts(split)]
    assert sorted(train) == ["A film.", "Another film."]  # whatever their hash says, none is held out


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_test_reviews_are_held_out() -> None:
    rows = load_files(shared("imdb"), ("imdb_test*.parquet",), ["text", "label"])
    task = ImdbTask(OfficialTest(Films(), str(shared("imdb"))), min_characters=200)  # type: ignore[arg-type]
    assert len(rows) == 25_000
    assert sorted(rows["label"].unique()) == [0, 1]
    assert len(task.prompts("test")) > 24_000
    assert len(task.examples("train", origin="imdb")) + len(task.examples("validation", origin="imdb")) == 2


def test_a_folder_without_the_files_and_one_that_is_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no imdb_test\*\.parquet"):
        OfficialTest(Films(), str(tmp_path)).load()  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="does not exist; give one that has"):
        RedditFiles(str(tmp_path / "nowhere")).posts()
    json_lines(tmp_path / "tldr_test.jsonl.gz", [{"title": "no post"}])
    with pytest.raises(ValueError, match="it needs subreddit and title and post"):
        RedditFiles(str(tmp_path)).posts()


# Reddit posts.


def test_judged_posts_give_pairs_in_the_judges_order(tmp_path: Path) -> None:
    rows = [reddit_row(i, (None, "reference", "response_openai_1b3")[i % 3]) for i in range(60)]
    json_lines(tmp_path / "tldr_test_60.jsonl.gz", rows)
    source = RedditFiles(str(tmp_path))
    pairs = pd.concat([source.comparisons(split) for split in SPLITS])
    assert len(pairs) == 40
    for _, row in pairs.iterrows():
        number = int(row["prompt"].body.split()[1].rstrip("."))
        sides = [f" Reference {number}.", f" Model {number}."]
        assert [row["chosen"], row["rejected"]] == (sides if number % 3 == 1 else sides[::-1])
    shown = pairs["prompt"].iloc[0]
    assert shown.before.startswith("SUBREDDIT: r/cats\n\nTITLE: Title ")
    told = pd.concat([source.demonstrations(split) for split in SPLITS])
    assert sorted(told["response"]) == sorted(f" Reference {i}." for i in range(60))
    assert all(hash_split(p.body) == "test" for p in TldrTask(source).prompts("test"))


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_posts_give_a_thousand_pairs() -> None:
    source = RedditFiles(str(shared("tldr")))
    parts = {split: source.comparisons(split) for split in SPLITS}
    pairs = pd.concat(parts.values())
    assert len(pairs) == 1000
    assert len(parts["train"]) == pytest.approx(800, abs=60)
    reference = source.posts().set_index("post")["summary"]
    chosen_references = sum(row["chosen"] == " " + reference[row["prompt"].body] for _, row in pairs.iterrows())
    assert chosen_references == 360  # as its README counts
    assert sum(len(TldrTask(source).prompts(split)) for split in SPLITS) == 1945


def test_other_rows_are_other_data_wherever_they_lie(tmp_path: Path) -> None:
    rows = [reddit_row(i, "reference") for i in range(4)]
    for name, some in (("one", rows), ("two", rows), ("three", [*rows[:3], reddit_row(3, None)])):
        json_lines(tmp_path / name / "data" / "tldr_test.jsonl.gz", some)
    one, two, three = (RedditFiles(str(tmp_path / name / "data")).identity() for name in ("one", "two", "three"))
    assert one == two != three


def test_comparisons_of_the_hub_are_prompts_as_cut_there_and_summaries_without_their_end(tmp_path: Path) -> None:
    rows = [{"query": " SUBREDDIT: r/a\n\nTL;DR:", "chosen": " Good.<|endoftext|>", "rejected": " Bad.<|endoftext|>"}]
    pd.DataFrame(rows).to_parquet(tmp_path / "validation-00000-of-00001.parquet")
    found = RedditPosts("unused", str(tmp_path)).comparisons("validation").iloc[0]
    assert (found["prompt"].before, found["prompt"].body) == ("SUBREDDIT: r/a\n\nTL;DR:", "")
    assert (found["chosen"], found["rejected"]) == (" Good.", " Bad.")


# Helpful answers.


def test_single_turns_give_pairs_behind_both_prompts(tmp_path: Path) -> None:
    talk = "\n\nHuman: Ask {0}?\n\nAssistant: {1} {0}."
    rows = [{"chosen": talk.format(i, "Good"), "rejected": talk.format(i, "Bad")} for i in range(30)]
    longer = rows[0]["chosen"] + "\n\nHuman: And?\n\nAssistant: No."
    json_lines(tmp_path / "helpful-base.test.jsonl.gz", [*rows, {"chosen": longer, "rejected": longer}])
    source = HelpfulFiles(str(tmp_path))
    pairs = pd.concat([source.comparisons(split) for split in SPLITS])
    assert sorted(pairs["chosen"]) == sorted(f" Good {i}." for i in range(30))
    first = pairs.iloc[0]
    number = first["chosen"].split()[1].rstrip(".")
    assert first["rejected"] == f" Bad {number}."
    assert (first["prompt"].body, first["prompt"].reward) == (f"Ask {number}?", REWARD_PROMPT.format(f"Ask {number}?"))
    assert list(source.demonstrations("train").columns) == ["prompt", "response"]
    task = HhTask(source)
    assert sum(len(task.prompts(split)) for split in SPLITS) == 30
    assert task.left_out["several turns"] == 1


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_dialogues_give_single_turn_pairs_of_people() -> None:
    source = HelpfulFiles(str(shared("hh")))
    turns, left_out = source.turns()
    assert len(turns) + left_out["several turns"] == 2354
    assert len(turns) > 500
    for split in SPLITS:
        pairs = source.comparisons(split)
        assert not pairs["chosen"].str.contains("Human:").any()
        assert all(hash_split(prompt.body) == split for prompt in pairs["prompt"])
