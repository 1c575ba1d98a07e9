"""Mining of posts and closing summaries from film reviews."""

from __future__ import annotations

import pandas as pd
import pytest

from scar.tasks.imdb import ImdbTask
from scar.tasks.tldr import closing, closings, posts, sentences, summaries, word_count, wrapup
from tests.tasks.test_sources import configured_package

BODY = "The film tells of a man who walks home at night. " * 6  # 66 words
BODY_TEXT = BODY.strip()


def frame_of(*texts: str, origin: str = "imdb") -> pd.DataFrame:
    rows = [(text, 1, origin, "train") for text in texts]
    return pd.DataFrame(rows, columns=["text", "label", "origin", "split"])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("Wait... what?! Yes", ["Wait...", "what?!", "Yes"]),
        (
            "Mr. Smith and J. R. Jones met Dr. No. They talked.",
            ["Mr. Smith and J. R. Jones met Dr. No.", "They talked."],
        ),
        ("It costs 3.50 today", ["It costs 3.50 today"]),
        ("", []),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


@pytest.mark.parametrize(
    ("ending", "summary"),
    [
        ("Overall, a fine film for all.", "A fine film for all."),
        ("So all in all a fine film for all.", "A fine film for all."),
        ("The bottom line is that it is a fine film.", "It is a fine film."),
        ("BOTTOM LINE: see it with your children.", "See it with your children."),
        ("To sum it up - see it with good friends.", "See it with good friends."),
        ("In the end... it is a fine film. See it.", "It is a fine film. See it."),
        ("Overall a mess. In short, see something else instead.", "A mess. In short, see something else instead."),
    ],
)
def test_summary_starts_after_its_cue_and_runs_to_the_end(ending: str, summary: str) -> None:
    assert wrapup(BODY + ending) == (BODY_TEXT, summary)


@pytest.mark.parametrize(
    "text",
    [
        BODY + "A fine film for all of us.",  # no cue
        BODY + "It is overall a fine film.",  # the cue does not start the sentence
        BODY + "Overalls are worn by the farmers here.",  # another word
        BODY + "Overall, a fine film. One. Two. Three.",  # four sentences from the end
        BODY + "Overall, it is fine.",  # three words
        BODY + "Overall, " + "very " * 49 + "fine film.",  # 51 words
        "A man walks. " * 19 + "Overall, a fine film for all.",  # a post of 57 words
        "Overall, a fine film for all of us and many more.",  # no post
    ],
)
def test_reviews_without_a_summary_of_the_right_kind(text: str) -> None:
    assert wrapup(text) is None


def test_closing_takes_as_few_last_sentences_as_have_five_words() -> None:
    assert closing(BODY + "Go and see it soon.") == (BODY_TEXT, "Go and see it soon.")
    assert closing(BODY + "a film to be seen. Go. 9/10.") == (BODY_TEXT, "A film to be seen. Go. 9/10.")
    assert closing(BODY + "very " * 51) is None
    assert closing("Too short. Much too short to be a post.") is None


def test_frames_keep_label_split_and_origin() -> None:
    summed, closed = BODY + "Overall, a fine film for all.", BODY + "Go and see it soon."
    frame = frame_of(summed, closed, "Short.").assign(split=["train", "test", "train"], label=[1, 0, 1])
    frame = pd.concat([frame, frame_of(BODY + "Overall, not a review at all.", origin="rotten_tomatoes")])
    assert summaries(frame).to_dict("records") == [
        {"post": BODY_TEXT, "summary": "A fine film for all.", "label": 1, "split": "train", "authored": True}
    ]
    assert closings(frame)[["summary", "label", "split", "authored"]].to_numpy().tolist() == [
        ["A fine film for all.", 1, "train", True],
        ["Go and see it soon.", 0, "test", False],
    ]
    assert posts(frame).to_numpy().tolist() == [[BODY_TEXT, 1, "train"], [BODY_TEXT, 0, "test"]]


def test_posts_lose_their_ending_where_sixty_words_remain() -> None:
    long_end, run_on = "very " * 60 + "good.", "and then " * 40
    frame = frame_of(BODY + long_end, run_on.strip(), "A man walks. " * 19 + "Go and see it soon.", "Short.")
    assert posts(frame)["post"].tolist() == [
        BODY_TEXT,
        run_on.strip(),  # one sentence: nothing to cut
        ("A man walks. " * 19 + "Go and see it soon."),  # 57 words would remain
    ]


@pytest.mark.slow
def test_mining_all_reviews() -> None:
    frame = ImdbTask(source=configured_package(), min_characters=200).frame
    authored, rows, prompts = summaries(frame), closings(frame), posts(frame)
    assert len(authored) == 1063
    assert authored["split"].value_counts().to_dict() == {"train": 847, "test": 110, "validation": 106}
    assert len(rows) == 22_354
    assert rows["authored"].sum() == len(authored)
    assert len(prompts) == 23_852
    assert authored["post"].map(word_count).min() >= 60
    assert authored["summary"].map(word_count).between(5, 50).all()
    assert (prompts.groupby("post")["split"].nunique() == 1).all()  # no post in two splits
