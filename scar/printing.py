"""What scripts print. Where stdout is closed or full, nothing more is printed and what was computed stays: the script goes on,
and says so in one line at its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_failed: list[str] = []
"""Why stdout could not be written, if it could not."""


@contextmanager
def printing() -> Iterator[None]:
    """Inside, stdout is written; an error of that ends the printing and nothing else."""
    try:
        yield
        if sys.stdout is not None:  # it is None where it was closed before Python began
            sys.stdout.flush()
    except (OSError, SystemExit) as error:  # rich makes a SystemExit of a closed pipe
        stop_printing(error.__context__ if isinstance(error, SystemExit) and error.__context__ else error)


def say(text: str) -> None:
    """Print `text` as it is."""
    with printing():
        if sys.stdout is not None:
            sys.stdout.write(text)


def stop_printing(error: BaseException) -> None:
    """What is still buffered, and all that comes, goes to the null device: Python flushes once more when it ends."""
    _failed.append((error.strerror if isinstance(error, OSError) else None) or str(error))
    with suppress(OSError, ValueError):  # stdout may be no real file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def ended(status: int) -> int:
    """The exit status of a script that comes to its end with `status`: if not all could be printed, 1 in place of 0 and a line
    on stderr."""
    say("")  # what others have printed is written now
    if not _failed:
        return status
    sys.stderr.write(f"error: stdout could not be written ({_failed[0]}); what was made is kept\n")
    _failed.clear()
    return status or 1
