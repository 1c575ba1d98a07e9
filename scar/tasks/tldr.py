"""Summarization: write the TL;DR of a post (paper 4.1, Table 4).

At paper scale the posts are Reddit's, from the hub. At local scale they are film reviews without their endings, and the
summaries are those with which some authors close their reviews (scar/tasks/wrapups.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import pandas as pd

from scar.interfaces import PromptText
from scar.tasks.imdb import SPLITS, ImdbTask
from scar.tasks.sources import PackageSource, load_split
from scar.tasks.wrapups import closings, posts

BEFORE = "SUBREDDIT: r/{}\n\nTITLE: {}\n\nPOST: "
AFTER = "\n\nTL;DR:"
HUB_COLUMNS = ["subreddit", "title", "post", "summary"]


class PostSource(Protocol):
    """Gives posts."""

    def posts(self) -> pd.DataFrame:
        """Columns subreddit, title, post, split."""
        ...

    def identity(self) -> dict[str, Any]:
        """Name and version of the data."""
        ...


@dataclass(frozen=True)
class RedditPosts:
    """The hub's posts (`vwxyzjn/summarize_from_feedback_tldr_3_filtered_...`), with its own three splits."""

    path: str

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return {"hub": self.path}

    def posts(self) -> pd.DataFrame:
        """Columns subreddit, title, post, summary, split."""
        return pd.concat(
            [load_split(self.path, split, HUB_COLUMNS).assign(split=split) for split in SPLITS], ignore_index=True
        )


@dataclass(frozen=True)
class ReviewPosts:
    """Film reviews of a package without their endings, as posts; reviews have no titles, so all have `title`."""

    package: dict[str, str]
    subreddit: str
    title: str

    @cached_property
    def reviews(self) -> ImdbTask:
        """The reviews, cleaned and split by hash."""
        return ImdbTask(PackageSource(**self.package), min_characters=0)

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return self.reviews.source.identity()

    def posts(self) -> pd.DataFrame:
        """Columns subreddit, title, post, label, split."""
        return posts(self.reviews.frame).assign(subreddit=self.subreddit, title=self.title)

    def closings(self) -> pd.DataFrame:
        """Columns subreddit, title, post, summary, label, split, authored: posts with their endings, of which the authored
        ones are summaries (scar/tasks/wrapups.py)."""
        return closings(self.reviews.frame).assign(subreddit=self.subreddit, title=self.title)


@dataclass(frozen=True)
class TldrTask:
    """Prompts in the format of the TL;DR data; rows with an empty post are left out and counted in `left_out`."""

    source: Any
    name: str = "tldr"
    left_out: dict[str, int] = field(default_factory=dict)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All posts with text."""
        frame = self.source.posts().fillna({"post": ""})
        blank = frame["post"].str.strip() == ""
        self.left_out["blank"] = int(blank.sum())
        return frame[~blank]

    def prompts(self, split: str) -> list[PromptText]:
        """Prompts of a split, of which the post may be cut."""
        if split not in SPLITS:
            raise ValueError(f"split={split}; allowed: {', '.join(SPLITS)}")
        rows = self.frame[self.frame["split"] == split]
        return [prompt_of(*row) for row in zip(rows["subreddit"], rows["title"], rows["post"], strict=True)]


def prompt_of(subreddit: str, title: str, post: str) -> PromptText:
    """The prompt of one post."""
    return PromptText(BEFORE.format(subreddit, title), post, AFTER)
