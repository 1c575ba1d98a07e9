"""Summarization: write the TL;DR of a post (paper 4.1, Table 4).

At paper scale the posts are Reddit's, from the hub. At local scale they are film reviews without their endings, and the
summaries are those with which some authors close their reviews (scar/tasks/wrapups.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pandas as pd

from scar.interfaces import PromptText
from scar.tasks.imdb import SPLITS, ImdbTask, hash_split
from scar.tasks.sources import PackageSource, load_files, load_split, rows_digest
from scar.tasks.wrapups import closings, posts

BEFORE = "SUBREDDIT: r/{}\n\nTITLE: {}\n\nPOST: "
AFTER = "\n\nTL;DR:"
END_OF_TEXT = "<|endoftext|>"
"""Closes the summaries of the comparisons on the hub."""
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
    """The hub's posts (`vwxyzjn/summarize_from_feedback_tldr_3_filtered_...`), with its own three splits, and the human
    comparisons of summaries (`vwxyzjn/summarize_from_feedback_oai_preprocessing_...`). Revisions: None is the newest."""

    preferences: ClassVar[str] = "people's"

    path: str
    comparisons_path: str
    revision: str | None = None
    comparisons_revision: str | None = None

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        posts = {"hub": self.path, "revision": self.revision}
        return posts | {"comparisons": self.comparisons_path, "comparisons_revision": self.comparisons_revision}

    @cached_property
    def _posts(self) -> pd.DataFrame:
        parts = [load_split(self.path, split, HUB_COLUMNS, revision=self.revision) for split in SPLITS]
        return pd.concat(
            [part.assign(split=split) for part, split in zip(parts, SPLITS, strict=True)], ignore_index=True
        )

    def posts(self) -> pd.DataFrame:
        """Columns subreddit, title, post, summary, split."""
        return self._posts

    def demonstrations(self, split: str) -> pd.DataFrame:
        """Columns prompt, response: the authors' own summaries."""
        return _demonstrations(self._posts[self._posts["split"] == split])

    def comparisons(self, split: str) -> pd.DataFrame:
        """Columns prompt, chosen, rejected. The data set's queries are prompts that are cut already (N+)."""
        path, columns = self.comparisons_path, ["query", "chosen", "rejected"]
        rows = load_split(path, split, columns, revision=self.comparisons_revision)
        sides = {name: rows[name].str.removesuffix(END_OF_TEXT) for name in ("chosen", "rejected")}
        return pd.DataFrame({"prompt": [PromptText(query.strip(), "", "") for query in rows["query"]], **sides})


@dataclass(frozen=True)
class RedditFiles:
    """Posts and their summaries in the folder `path`, `tldr_*.jsonl.gz`: a reference by the author, and for some a model's
    summary and which of the two is `preferred` (a machine's judgement in OpenAI's test rows). Split by hash of the post."""

    preferences: ClassVar[str] = "a machine's"

    path: str

    def identity(self) -> dict[str, Any]:
        """What a model trained on this data must name in its fingerprint."""
        return {"rows": rows_digest(self._rows)}

    @cached_property
    def _rows(self) -> pd.DataFrame:
        columns = ["subreddit", "title", "post", "reference", "response_openai_1b3", "preferred"]
        rows = load_files(Path(self.path), ("tldr_*.jsonl.gz",), columns).fillna({"post": ""})
        subreddit = rows["subreddit"].str.removeprefix("r/")
        return rows.assign(subreddit=subreddit, summary=rows["reference"], split=rows["post"].map(hash_split))

    def posts(self) -> pd.DataFrame:
        """Columns subreddit, title, post, summary, split."""
        return self._rows[[*HUB_COLUMNS, "split"]]

    def demonstrations(self, split: str) -> pd.DataFrame:
        """Columns prompt, response: the authors' own summaries."""
        return _demonstrations(self._rows[self._rows["split"] == split])

    def comparisons(self, split: str) -> pd.DataFrame:
        """Columns prompt, chosen, rejected: the rows that were judged."""
        rows = self._rows[(self._rows["split"] == split) & self._rows["preferred"].notna()]
        first = rows["preferred"] == "reference"
        reference, other = rows["reference"], rows["response_openai_1b3"]
        chosen, rejected = " " + reference.where(first, other), " " + other.where(first, reference)
        return pd.DataFrame({"prompt": _prompts(rows), "chosen": chosen, "rejected": rejected})


def _prompts(rows: pd.DataFrame) -> list[PromptText]:
    return [prompt_of(*row) for row in zip(rows["subreddit"], rows["title"], rows["post"], strict=True)]


def _demonstrations(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"prompt": _prompts(rows), "response": " " + rows["summary"]})


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
        return _prompts(rows)


def prompt_of(subreddit: str, title: str, post: str) -> PromptText:
    """The prompt of one post."""
    return PromptText(BEFORE.format(subreddit, title), post, AFTER)
