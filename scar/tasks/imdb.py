"""Sentiment control on film reviews: continue a review so that it is positive (paper 4.1, Table 3)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import pandas as pd

from scar.interfaces import PromptText

SPLITS = ("train", "validation", "test")


class Source(Protocol):
    """Gives labelled texts (scar/tasks/sources.py)."""

    def load(self) -> pd.DataFrame:
        """Columns text, label, origin, official_split."""
        ...

    def identity(self) -> dict[str, Any]:
        """Name and version of the data."""
        ...


def clean(text: str) -> str:
    """Turn `<br />` into a space and every run of white space into one space."""
    return " ".join(re.sub(r"<br\s*/?>", " ", text).split())


def hash_split(text: str) -> str:
    """The split of a text by its own hash: 80 % train, 10 % validation, 10 % test; equal texts always go together."""
    bucket = int(hashlib.sha256(text.casefold().encode()).hexdigest(), 16) % 10
    return {8: "validation", 9: "test"}.get(bucket, "train")


@dataclass(frozen=True)
class ImdbTask:
    """Film reviews with sentiment labels; prompts are the beginnings of reviews, the score is the raw sentiment logit.

    Without official splits (package source) texts are split 80/10/10 by their hash; with them (hub source) the official
    test split is the test split, less the texts that also occur in train, and a tenth of train is validation.
    """

    source: Source
    min_characters: int
    name: str = "imdb"

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Cleaned texts, each once, with `split`."""
        frame = self.source.load()
        frame = frame.assign(text=frame["text"].map(clean))
        frame = frame[frame["text"] != ""]
        # The same text under both labels teaches nothing, so its first occurrence decides; train comes before test.
        frame = frame[~frame["text"].str.casefold().duplicated()]
        split = frame["text"].map(hash_split)
        official = frame["official_split"]
        split = split.mask((official == "train") & (split == "test"), "train").mask(official == "test", "test")
        return frame.assign(split=split).reset_index(drop=True)

    def examples(self, split: str, *, origin: str | None = None) -> pd.DataFrame:
        """Rows (text, label, origin) of one split; `origin` "imdb" gives reviews, "rotten_tomatoes" sentences."""
        if split not in SPLITS:
            raise ValueError(f"split={split}; allowed: {', '.join(SPLITS)}")
        rows = self.frame[self.frame["split"] == split]
        return rows if origin is None else rows[rows["origin"] == origin]

    def prompts(self, split: str) -> list[PromptText]:
        """Reviews long enough to cut prompts from (paper's code base: more than 200 characters)."""
        if split not in self._prompts:
            reviews = self.examples(split, origin="imdb")["text"]
            long = reviews[reviews.str.len() > self.min_characters]
            self._prompts[split] = [PromptText("", text, "") for text in long]
        return list(self._prompts[split])

    @cached_property
    def _prompts(self) -> dict[str, list[PromptText]]:
        return {}
