"""Entries that wait for the store, in a file that is only ever appended to.

Each line is one JSON object. `{"sent": n}` notes that the n oldest entries before it were sent, so
a crash loses no entry, and at worst one is sent twice, which MLflow ignores. A process that appends
to the file holds an advisory lock on it. Files that an entry names are copied into a folder of the
same name, for the next training may replace them before they are sent.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import lock_descriptor

Entry = dict[str, Any]


class Queue:
    """A file of entries, which exists while any of them waits.

    Raises BlockingIOError: another process adds to the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self.entries: list[Entry] = []
        if path.exists():
            self._open()
            self.entries = read(path)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries to the file, and copies of the files they name to its folder."""
        copied: list[Entry] = []
        try:
            for entry in entries:
                kept = self._with_copy(entry)
                copied.append(kept)
            self._write(copied)
        except OSError:
            self._remove_copies(copied)
            raise
        self.entries += copied

    def sent(self, count: int) -> None:
        """Note that the `count` oldest entries were sent; an empty file is deleted."""
        gone, self.entries = self.entries[:count], self.entries[count:]
        if self.entries:
            self._write([{"sent": count}])
            self._remove_copies(gone)
        else:
            delete(self.path)
            self.close()

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _remove_copies(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if "file" in entry and _folder(self.path) in Path(entry["file"]).parents:
                shutil.rmtree(Path(entry["file"]).parent, ignore_errors=True)

    def _with_copy(self, entry: Entry) -> Entry:
        if "file" not in entry or not (source := Path(entry["file"])).exists():
            return entry
        self._open()  # alone
        folder = _folder(self.path)
        folder.mkdir(exist_ok=True)
        copy = Path(tempfile.mkdtemp(dir=folder)) / source.name
        try:
            if source.is_dir():
                shutil.copytree(source, copy)
            else:
                shutil.copyfile(source, copy)
        except OSError:
            shutil.rmtree(copy.parent, ignore_errors=True)
            raise
        return {**entry, "file": str(copy)}

    def _open(self) -> int:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            if not lock_descriptor(self._file, blocking=False):
                self.close()
                raise BlockingIOError(f"{self.path}: another process adds to it")
        return self._file

    def _write(self, entries: Sequence[Entry]) -> None:
        file = self._open()
        size = os.fstat(file).st_size
        # A process that was killed may have left half a line.
        whole = size == 0 or os.pread(file, 1, size - 1) == b"\n"
        text = "".join(json.dumps(self._movable(entry)) + "\n" for entry in entries)
        data = (text if whole else "\n" + text).encode()
        try:
            if os.write(file, data) < len(data):
                raise OSError(f"{self.path}: the disk is full")
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise

    def _movable(self, entry: Entry) -> Entry:
        """The entry with its file named from the folder of this one: both can be moved together."""
        if "file" not in entry:
            return entry
        return {**entry, "file": os.path.relpath(entry["file"], self.path.parent)}


def delete(path: Path) -> None:
    """Delete a file of entries, and the copies of theirs."""
    path.unlink(missing_ok=True)
    shutil.rmtree(_folder(path), ignore_errors=True)


def read(path: Path) -> list[Entry]:
    """The unsent entries of the file, without truncated lines; paths of files are absolute."""
    waiting: list[Entry] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                if "sent" in entry:
                    del waiting[: entry["sent"]]
                else:
                    if "file" in entry:
                        entry["file"] = str(path.parent.absolute() / entry["file"])
                    waiting.append(entry)
    return waiting


def _folder(path: Path) -> Path:
    return path.with_suffix("").absolute()
