"""Answers that were paid for, kept on disk as they come, so that nothing is paid twice."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class AnswerCache:
    """One JSON object a line in `file`, appended and flushed answer by answer; safe to use from several threads.

    A line that cannot be read (the program was killed while it wrote) is left out: that answer is asked for again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._answers: dict[str, dict[str, Any]] = {}
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self._answers[row["key"]] = row["answer"]
            except (ValueError, KeyError, TypeError):
                continue

    @staticmethod
    def key(request: Mapping[str, Any]) -> str:
        """The name of a request: everything that decides its answer."""
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer stored under `key`."""
        return self._answers.get(key)

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Store an answer, in memory and on disk."""
        line = json.dumps({"key": key, "answer": answer}, allow_nan=False) + "\n"
        with self._lock:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._file, "a", encoding="utf-8") as stream:
                stream.write("\n" + line if self._torn else line)
            self._torn = False
            self._answers[key] = answer
