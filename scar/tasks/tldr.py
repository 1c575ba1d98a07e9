"""Summarization: write the TL;DR of a post (paper 4.1, Table 4).

At paper scale the posts are Reddit's, from the hub. At local scale they are film reviews without their endings, and the
summaries are those with which some authors close their reviews (scar/tasks/tldr.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from scar.interfaces import PromptText
from scar.tasks.imdb import SPLITS, ImdbTask, hash_split
from scar.tasks.sources import PackageSource, load_files, load_split, rows_digest

BEFORE = "SUBREDDIT: r/{}\n\nTITLE: {}\n\nPOST: "
AFTER = "\n\nTL;DR:"
END_OF_TEXT = "<|endoftext|>"
"""Closes the summaries of the comparisons on the hub."""
HUB_COLUMNS = ["subreddit", "title", "post", "summary"]


@dataclass(frozen=True)
class RedditPosts:
    """The hub's posts (`vwxyzjn/summarize_from_feedback_tldr_3_filtered_...`), with its own three splits, and the human
    comparisons of summaries (`vwxyzjn/summarize_from_feedback_oai_preprocessing_...`). Revisions: None is the newest.
    `test_prompts`: see HubSource."""

    preferences: ClassVar[str] = "people's"

    path: str
    comparisons_path: str
    revision: str | None = None
    comparisons_revision: str | None = None
    test_prompts: int | None = None

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
        ones are summaries (scar/tasks/tldr.py)."""
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


# Posts and summaries mined from film reviews: reviews that close with their author's own summary ("Overall, ...").
#
# The idea is that of Webis-TLDR-17 (Völske et al. 2017), where Reddit authors wrote their own "TL;DR". All functions are
# pure; frames are those of `ImdbTask.frame` (text, label, origin, split), and every row keeps the split of its review,
# so what is mined from a held-out review is held out. Lengths are in words (runs of non-space characters).


MIN_POST_WORDS = 60
SUMMARY_WORDS = (5, 50)
LAST_SENTENCES = 3
COLUMNS = ["post", "summary", "label", "split", "authored"]

# Unlike scar/text.py: no capital need follow, lines do not end a sentence, eight abbreviations are known
# (docs/decisions.md#sentences-of-training-texts).
# Looking back after the full stop, not before every character, keeps this fast.
_TITLES = "".join(rf"(?<!\b{word}\.)" for word in ("[A-Z]", "Mr", "Mrs", "Ms", "Dr", "St", "Jr", "vs"))
_BOUNDARY = re.compile(rf"[.!?]{_TITLES}[.!?\"')\]*]*\s+")
_CUE = re.compile(
    r"[\"'(*\s-]*(?:(?:so|and|but),? )?(?:overall|all in all|in short|in (?:conclusion|summary|a nutshell)|on the whole"
    r"|in the end|to conclude|to sum (?:it )?(?:all )?up|summing (?:it )?up|final verdict"
    r"|(?:the )?bottom line(?:,? is(?: that)?)?)\b[\s,:;.!*…\u2013\u2014-]*",
    re.IGNORECASE,
)


def sentences(text: str) -> list[str]:
    """Split at white space after `.`, `!` or `?` (with quotes or brackets closed), not after initials and titles."""
    starts = [0, *(match.end() for match in _BOUNDARY.finditer(text)), len(text)]
    parts = (text[start:end].strip() for start, end in pairwise(starts))
    return [part for part in parts if part]


def word_count(text: str) -> int:
    """How many words a text has; unlike those of scar/text.py, words are runs of non-space characters."""
    return len(text.split())


def wrapup(text: str) -> tuple[str, str] | None:
    """(post, summary) of a review whose author sums up in the last three sentences, else None.

    The summary runs from the first of those sentences that starts with a cue to the end of the review, without the cue:
    a cue would tell a reward model which text is a summary, and a policy could earn reward with the cue alone.
    """
    passages = sentences(text)
    for start in range(max(len(passages) - LAST_SENTENCES, 1), len(passages)):
        cue = _CUE.match(passages[start])
        if cue is None:
            continue
        passages[start] = passages[start][cue.end() :]
        return _checked(passages, start)
    return None


def closing(text: str) -> tuple[str, str] | None:
    """(post, closing) of any review: its last sentence, or as few last sentences as have 5 words; None if too short."""
    passages = sentences(text)
    for start in range(len(passages) - 1, 0, -1):
        if word_count(" ".join(passages[start:])) >= SUMMARY_WORDS[0]:
            return _checked(passages, start)
    return None


def _checked(passages: list[str], start: int) -> tuple[str, str] | None:
    """The post before sentence `start` and the capitalised text from there on, when both have the right lengths."""
    post, summary = " ".join(passages[:start]), " ".join(passages[start:]).strip()
    low, high = SUMMARY_WORDS
    if word_count(post) < MIN_POST_WORDS or not low <= word_count(summary) <= high:
        return None
    return post, summary[0].upper() + summary[1:]


def summaries(frame: pd.DataFrame) -> pd.DataFrame:
    """The reviews with an author-written summary, as (post, summary, label, split, authored=True)."""
    return _mined(frame, with_closings=False)


def closings(frame: pd.DataFrame) -> pd.DataFrame:
    """Summaries and, of reviews without one, the closing sentence (authored=False): more pairs of post and ending."""
    return _mined(frame, with_closings=True)


def _mined(frame: pd.DataFrame, *, with_closings: bool) -> pd.DataFrame:
    rows = []
    reviews = frame[frame["origin"] == "imdb"]
    for text, label, split in zip(reviews["text"], reviews["label"], reviews["split"], strict=True):
        mined, authored = wrapup(text), True
        if mined is None and with_closings:
            mined, authored = closing(text), False
        if mined is not None:
            rows.append((*mined, label, split, authored))
    return pd.DataFrame(rows, columns=COLUMNS)


def posts(frame: pd.DataFrame) -> pd.DataFrame:
    """Posts to be summarised, as (post, label, split): every review of 60 words or more without its ending.

    The ending is the author's summary or closing where there is one; else the last sentence goes if 60 words remain, and
    a review of one long sentence stays whole. Shorter reviews give no post.
    """
    rows = []
    reviews = frame[frame["origin"] == "imdb"]
    for text, label, split in zip(reviews["text"], reviews["label"], reviews["split"], strict=True):
        if word_count(text) < MIN_POST_WORDS:
            continue
        mined = wrapup(text) or closing(text)
        rows.append((mined[0] if mined else _without_last(text), label, split))
    return pd.DataFrame(rows, columns=["post", "label", "split"])


def _without_last(text: str) -> str:
    shorter = " ".join(sentences(text)[:-1])
    return shorter if word_count(shorter) >= MIN_POST_WORDS else text
