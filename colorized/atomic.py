"""Atomic writes: a file or folder is written beside its target, then moved into place."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A free path in the folder of `target`, for a file that takes its place after the block.

    It is synced to disk first; when the block raises, it is removed and the target stays.
    """
    # A name of its own: two processes may write one target, and a longer name may be too long.
    partial = target.parent / f".{uuid.uuid4().hex}.partial"
    try:
        yield partial
        _sync(partial)
        os.replace(partial, target)
        sync_folder(target.parent)
    finally:
        with suppress(OSError):  # it was moved, or its folder is no folder
            partial.unlink()


def write(target: Path, data: bytes | str) -> None:
    """Write a whole file, and the folders above it; text as UTF-8, its line ends as they are."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place after the block, or is removed.

    What a killed process left of it is removed first.
    """
    partial, old = (target.with_name(f"{target.name}{end}.partial") for end in ("", ".old"))
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        if target.exists():  # moved and then removed: never half of it under its name
            os.replace(target, old)
        os.replace(partial, target)
        sync_folder(target.parent)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """The names in a folder, to disk; some network file systems cannot, and need not."""
    with suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
