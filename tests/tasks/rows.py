"""Files and rows of data sets, written by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any


def json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def reddit_row(number: int, preferred: str | None) -> dict[str, Any]:
    texts = {"title": f"Title {number}", "post": f"Post {number}.", "reference": f"Reference {number}."}
    judged = {"response_openai_1b3": f"Model {number}.", "preferred": preferred, "explanation": None}
    return {"idx": number, "subreddit": "r/cats", **texts, **judged, "prompt": "unused"}
