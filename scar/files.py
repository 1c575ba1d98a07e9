"""Files and folders that are there whole or not at all: written beside their path, flushed to the disk, renamed."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL_SUFFIX = ".partial"
"""Ends the name of a folder that is being written."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Context that gives a path to write to. At its end `path` has that content; after an error it has its old one."""
    partial = _beside(path)
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Context that gives an empty folder to write into. At its end that is `folder`, unless another process was faster, whose
    folder stays; after an error nothing is left."""
    partial = _beside(folder)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        try:
            _rename(partial, folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def finish_folder(partial: Path, folder: Path) -> None:
    """Give the whole folder `partial` its name `folder`, in place of what has that name."""
    if folder.exists():
        shutil.rmtree(folder)
    _rename(partial, folder)


def _beside(path: Path) -> Path:
    """Machines that share a disk give out equal process ids."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}{PARTIAL_SUFFIX}")


def _rename(partial: Path, folder: Path) -> None:
    for file in partial.rglob("*"):
        if file.is_file() and not file.is_symlink():
            with suppress(FileNotFoundError):  # W&B's process may still be tidying up
                _flush(file)
    os.replace(partial, folder)


def _flush(file: Path) -> None:
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())
