"""The summarization task: the exact prompt text, the hub's posts with their own splits, and film reviews as posts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from scar.interfaces import PromptText
from scar.models.loading import train_tokenizer
from scar.tasks.imdb import SPLITS
from scar.tasks.prompts import WholePrompt
from scar.tasks.sources import PackageSource
from scar.tasks.tldr import RedditPosts, ReviewPosts, TldrTask, prompt_of
from tests.smoke_scale import CONF


def post_rows(split: str, *posts: str) -> list[dict[str, Any]]:
    """Rows in the hub's schema, with the columns that nobody reads."""
    return [
        {
            "id": f"t3_{split}{n}",
            "subreddit": f"{split}_sub{n}",
            "title": f"Title {n} {{of}} {split}",
            "post": post,
            "summary": f" Summary {n}.<|endoftext|>",
            "query_token": [1, 2, 3],
            "reference_response_token_len": 3,
        }
        for n, post in enumerate(posts)
    ]


def reddit_folder(folder: Path, **rows: list[dict[str, Any]]) -> RedditPosts:
    """The hub's files of these splits on disk."""
    folder.mkdir()
    for split, of_split in rows.items():
        pd.DataFrame(of_split).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return RedditPosts(str(folder), comparisons_path=str(folder))


@pytest.fixture
def reddit(tmp_path: Path, datasets_cache: Path) -> RedditPosts:
    """Three splits; of eight posts three are blank."""
    assert str(tmp_path) in str(datasets_cache)
    return reddit_folder(
        tmp_path / "posts",
        train=post_rows("train", "One.\n\nTwo, café 🙂.", " \n\t", " leading space"),
        validation=post_rows("validation", "", "Held out {}."),
        test=post_rows("test", "First.", "Second.\n", "\n"),
    )


@pytest.fixture(scope="module")
def reviews() -> TldrTask:
    """A tenth of the configured package."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / "task" / "tldr.yaml"), resolve=True)
    assert isinstance(node, dict)
    settings = node["task"]["sources"]["package"]
    task = TldrTask(ReviewPosts(**{key: settings[key] for key in settings if key != "_target_"}))
    load = PackageSource.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackageSource, "load", lambda source: load(source).iloc[::10])
        assert len(task.frame)
    return task


def text_of(prompt: PromptText) -> str:
    return prompt.before + prompt.body + prompt.after


def test_prompt_text_by_hand() -> None:
    prompt = prompt_of("x", "t", "p")
    assert text_of(prompt) == "SUBREDDIT: r/x\n\nTITLE: t\n\nPOST: p\n\nTL;DR:"
    assert prompt.body == "p"  # and nothing else may be cut
    assert prompt.reward is None  # the reward model reads the same


def test_posts_of_the_hubs_files_become_prompts_of_their_own_split(reddit: RedditPosts) -> None:
    task = TldrTask(reddit)
    assert {split: [text_of(p) for p in task.prompts(split)] for split in SPLITS} == {
        "train": [
            "SUBREDDIT: r/train_sub0\n\nTITLE: Title 0 {of} train\n\nPOST: One.\n\nTwo, café 🙂.\n\nTL;DR:",
            "SUBREDDIT: r/train_sub2\n\nTITLE: Title 2 {of} train\n\nPOST:  leading space\n\nTL;DR:",
        ],
        "validation": [
            "SUBREDDIT: r/validation_sub1\n\nTITLE: Title 1 {of} validation\n\nPOST: Held out {}.\n\nTL;DR:"
        ],
        "test": [
            "SUBREDDIT: r/test_sub0\n\nTITLE: Title 0 {of} test\n\nPOST: First.\n\nTL;DR:",
            "SUBREDDIT: r/test_sub1\n\nTITLE: Title 1 {of} test\n\nPOST: Second.\n\n\nTL;DR:",
        ],
    }


@pytest.mark.usefixtures("datasets_cache")
def test_missing_columns_and_splits_are_named(tmp_path: Path) -> None:
    rows = [{"subreddit": "x", "title": "t", "document": "p", "summary": "s"}]
    with pytest.raises(ValueError, match=r"it needs subreddit and title and post and summary") as caught:
        reddit_folder(tmp_path / "columns", train=rows, validation=rows, test=rows).posts()
    assert "'document'" in str(caught.value)
    source = reddit_folder(tmp_path / "splits", train=post_rows("train", "p"), test=post_rows("test", "p"))
    with pytest.raises(ValueError, match=r"splits has no validation\*\.parquet"):
        source.posts()


def test_unknown_split_names_the_allowed_ones(reddit: RedditPosts) -> None:
    with pytest.raises(ValueError, match="split=valid; allowed: train, validation, test"):
        TldrTask(reddit).prompts("valid")


def test_a_long_post_is_cut_and_title_and_ending_stay() -> None:
    prompt = prompt_of("x", "A title", "\n".join(f"Line {n} of the post." for n in range(60)))
    tokenizer = train_tokenizer([text_of(prompt)], vocab_size=300)
    [ids] = WholePrompt(120, "cut").tokens([prompt], tokenizer, torch.Generator())
    text = tokenizer.decode(ids)
    assert len(ids) <= 120
    assert text.startswith("SUBREDDIT: r/x\n\nTITLE: A title\n\nPOST: Line 0 of the post.\nLine 1")
    assert text.endswith(" of the post.\n\nTL;DR:")  # a whole line before it


@pytest.mark.slow
def test_reviews_without_their_endings_become_posts(reviews: TldrTask) -> None:
    texts = set(reviews.source.reviews.frame["text"])
    frame = reviews.frame
    assert len(frame) > 2_000
    assert reviews.left_out == {"blank": 0}
    assert set(frame["subreddit"]) == {"movies"}
    assert set(frame["title"]) == {"Film review"}
    assert frame["post"].str.split().str.len().min() >= 60
    some = frame.iloc[::99]
    assert all(any(text.startswith(post[:200]) for text in texts) for post in some["post"])
    assert sum(post in texts for post in some["post"]) <= len(some) // 10  # only a review of one sentence stays whole
    prompt = reviews.prompts("test")[0]
    assert text_of(prompt).startswith("SUBREDDIT: r/movies\n\nTITLE: Film review\n\nPOST: ")
    assert text_of(prompt).endswith(f"{prompt.body}\n\nTL;DR:")


@pytest.mark.slow
def test_review_posts_keep_the_split_of_their_review(reviews: TldrTask) -> None:
    prompts = {split: reviews.prompts(split) for split in SPLITS}
    shares = {split: len(prompts[split]) / len(reviews.frame) for split in SPLITS}
    assert shares == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.025)
    splits_of_text = dict(zip(reviews.source.reviews.frame["text"], reviews.source.reviews.frame["split"], strict=True))
    for split in ("validation", "test"):
        for prompt in prompts[split][:20]:
            whole = [text for text in splits_of_text if text.startswith(prompt.body)]
            assert {splits_of_text[text] for text in whole} == {split}


# The maintainers' data: posts with the very prompts that were given to the models that they judged.


@pytest.fixture(scope="module")
def judged_posts() -> list[dict[str, Any]]:
    file = Path(__file__).resolve().parents[3] / "shared" / "data" / "tldr" / "tldr_test_1945_judged1000.jsonl.gz"
    if not file.is_file():
        pytest.skip(
            "the maintainers' file shared/data/tldr/tldr_test_1945_judged1000.jsonl.gz is not beside the checkout"
        )
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.usefixtures("datasets_cache")
def test_real_posts_give_exactly_the_published_prompts(tmp_path: Path, judged_posts: list[dict[str, Any]]) -> None:
    rows = [
        {
            "subreddit": row["subreddit"].removeprefix("r/"),
            "title": row["title"],
            "post": row["post"],
            "summary": row["reference"],
        }
        for row in judged_posts
    ]
    task = TldrTask(reddit_folder(tmp_path / "real", train=rows[:1], validation=rows[:1], test=rows))
    assert len(rows) == 1945
    assert [text_of(prompt) for prompt in task.prompts("test")] == [row["prompt"] for row in judged_posts]
    assert task.left_out == {"blank": 0}


@pytest.mark.slow
@pytest.mark.shared
def test_real_posts_fit_after_the_cut_and_are_cut_at_a_line(judged_posts: list[dict[str, Any]]) -> None:
    prompts = [prompt_of(row["subreddit"].removeprefix("r/"), row["title"], row["post"]) for row in judged_posts[:60]]
    tokenizer = train_tokenizer([text_of(prompt) for prompt in prompts], vocab_size=1000)
    cut = WholePrompt(256, "cut")
    bodies = [cut.cut(prompt, tokenizer) for prompt in prompts]
    shorter = [(prompt.body, body) for prompt, body in zip(prompts, bodies, strict=True) if body != prompt.body]
    assert len(shorter) > 10
    assert all(whole.startswith(body) for whole, body in shorter)
    lines = [whole[len(body)] == "\n" for whole, body in shorter if "\n" in body]
    assert lines
    assert all(lines)
    assert max(map(len, cut.tokens(prompts, tokenizer, torch.Generator()))) <= 256
