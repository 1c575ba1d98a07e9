"""Files in place of stdout that cannot be written."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO


def _full() -> IO[str]:
    return open("/dev/full", "w", encoding="utf-8")


def _pipe() -> IO[str]:
    """A pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w", encoding="utf-8")


BROKEN: dict[str, Callable[[], IO[str]]] = {"full": _full, "pipe": _pipe}
REASONS = {"full": "No space left on device", "pipe": "Broken pipe"}
