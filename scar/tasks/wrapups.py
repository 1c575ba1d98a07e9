"""Posts and summaries mined from film reviews: reviews that close with their author's own summary ("Overall, ...").

The idea is that of Webis-TLDR-17 (Völske et al. 2017), where Reddit authors wrote their own "TL;DR". All functions are
pure; frames are those of `ImdbTask.frame` (text, label, origin, split), and every row keeps the split of its review,
so what is mined from a held-out review is held out. Lengths are in words (runs of non-space characters).
"""

from __future__ import annotations

import re
from itertools import pairwise

import pandas as pd

MIN_POST_WORDS = 60
SUMMARY_WORDS = (5, 50)
LAST_SENTENCES = 3
COLUMNS = ["post", "summary", "label", "split", "authored"]

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
    """How many words a text has."""
    return len(text.split())


def wrapup(text: str) -> tuple[str, str] | None:
    """(post, summary) of a review whose author sums up in the last three sentences, else None.

    The summary runs from the first of those sentences that starts with a cue to the end of the review, without the cue:
    a cue would tell a reward model which text is a summary, and a policy could earn reward with the cue alone.
    """
    parts = sentences(text)
    for place in range(max(len(parts) - LAST_SENTENCES, 1), len(parts)):
        cue = _CUE.match(parts[place])
        if cue is None:
            continue
        parts[place] = parts[place][cue.end() :]
        return _checked(parts, place)
    return None


def closing(text: str) -> tuple[str, str] | None:
    """(post, closing) of any review: its last sentence, or as few last sentences as have 5 words; None if too short."""
    parts = sentences(text)
    for place in range(len(parts) - 1, 0, -1):
        if word_count(" ".join(parts[place:])) >= SUMMARY_WORDS[0]:
            return _checked(parts, place)
    return None


def _checked(parts: list[str], place: int) -> tuple[str, str] | None:
    """The post before `place` and the capitalised text from there on, when both have the right lengths."""
    post, summary = " ".join(parts[:place]), " ".join(parts[place:]).strip()
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
        found, authored = wrapup(text), True
        if found is None and with_closings:
            found, authored = closing(text), False
        if found is not None:
            rows.append((*found, label, split, authored))
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
        found = wrapup(text) or closing(text)
        rows.append((found[0] if found else _without_last(text), label, split))
    return pd.DataFrame(rows, columns=["post", "label", "split"])


def _without_last(text: str) -> str:
    shorter = " ".join(sentences(text)[:-1])
    return shorter if word_count(shorter) >= MIN_POST_WORDS else text
