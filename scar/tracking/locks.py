"""One process at a time computes a run: a lock beside its folder, which the system drops when its holder ends, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # a system without POSIX locks: runs are not guarded there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Context in which no other process may compute the run of `folder`; BlockingIOError when one does."""
    path = folder.with_name(folder.name + ".lock")
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise BlockingIOError(
                    f"another process is computing the run {folder}; wait for it, or stop it and run again"
                ) from error
            except OSError:
                pass  # a file system without locks
        try:
            yield
        finally:
            with suppress(OSError):  # folders that hold a run by now stay
                os.unlink(path)
                for folder_made in made:
                    folder_made.rmdir()
