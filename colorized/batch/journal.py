"""The journal of a folder of results, by which an interrupted batch is resumed.

`OUT/.colorized/journal.jsonl` has a line for each photograph: its original, the settings, and the
digests of the files that were made of it. A result is made in a folder beside the journal. Then its
line is written and synced to disk, and only then the files are moved to their names. So a rerun
knows how far a batch came, wherever it was interrupted: a file with a name and digest of the
journal is a result; one without a line is a foreign file, and is not touched.

One process writes: it holds the lock beside the journal, which ends with the process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock

from colorized import atomic
from colorized.batch.job import FileDigest, Job
from colorized.text import printable

FOLDER = ".colorized"
"""The program's own folder inside a folder of results."""

SHARDS = "shards"
"""In it, the folder with the manifests of a cluster: more files of such lines."""

OTHER_SETTINGS = "was colored with other settings"

_FILE = "journal.jsonl"
_LOCK = "lock"
_STAGING = "making-"
_PAGES = "pages"


class BatchError(ValueError):
    """One line that names the file or folder in question."""

    def __init__(self, path: Path | None, problem: str) -> None:
        super().__init__(f"{printable(path)}: {problem}" if path else problem)


@dataclass(frozen=True)
class Entry:
    """A line of the journal: one photograph that was colored.

    `target` and all other `files` lie below the folder of results; `source` is the path of the
    original, `size` its width and height in pixels, `at` the time in seconds since 1970, and `kept`
    says whether pages that are in color already kept their colors.
    """

    target: str
    source: str
    original: FileDigest
    settings: Mapping[str, Any]
    files: Mapping[str, FileDigest]
    size: tuple[int, int]
    seconds: float
    notes: tuple[str, ...]
    at: float
    kept: bool = False

    def line(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode("ascii") + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Entry:
        """Raises ValueError, KeyError or TypeError where the line is not an entry."""
        values = json.loads(line)
        values["original"] = FileDigest(**values["original"])
        values["files"] = {name: FileDigest(**stamp) for name, stamp in values["files"].items()}
        width, height = values["size"]
        return cls(**{**values, "size": (width, height), "notes": tuple(values["notes"])})


@dataclass
class Journal:
    """The journal in `out`, locked while its context is entered.

    Attributes
    ----------
    known
        The last entry of each target.
    warnings
        Lines that could not be read, one line each.

    Raises
    ------
    BatchError
        On entering: another batch is writing to the folder.
    OSError
        On entering, or in `add`: the folder or the journal cannot be written.
    """

    out: Path
    known: dict[str, Entry] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.out / FOLDER
        self.staging = self.folder / f"{_STAGING}{uuid.uuid4().hex}"
        self._owned: dict[str, list[tuple[str, FileDigest]]] = {}

    def __enter__(self) -> Journal:
        self._made = [p for p in (self.folder, *self.out.parents, self.out) if not p.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(self.folder / _LOCK)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise BatchError(self.out, "another batch is writing to this folder") from error
        try:
            self._file = open(self.folder / _FILE, "a+b", buffering=0)
            self._read()
            # Of batches that were killed.
            for left in self.folder.glob(f"{_STAGING}*"):
                shutil.rmtree(left, ignore_errors=True)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        with contextlib.suppress(OSError):  # it is not there, or a file is to go on
            (self.folder / _PAGES).rmdir()
        empty = self._file.seek(0, os.SEEK_END) == 0
        self._file.close()
        if empty:
            # Nothing came of it: leave things as they were.
            (self.folder / _FILE).unlink(missing_ok=True)
        if empty and self._made:
            with contextlib.suppress(OSError):  # somebody else's file is in it
                (self.folder / _LOCK).unlink(missing_ok=True)
                for made in sorted(self._made, key=lambda p: len(p.parts), reverse=True):
                    made.rmdir()
        self._lock.release()

    def _read(self) -> None:
        self._file.seek(0)
        data = self._file.read()
        end = data.rfind(b"\n") + 1
        if end < len(data):  # the machine stopped while the line was written
            self._file.truncate(end)
        self._learn_all(self.folder / _FILE, data[:end])
        for path in sorted((self.folder / SHARDS).glob("*.jsonl")):
            self._learn_all(path, path.read_bytes())

    def _learn_all(self, path: Path, lines: bytes) -> None:
        for number, line in enumerate(lines.splitlines(), 1):
            try:
                self._learn(Entry.parse(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                self.warnings.append(
                    f"{printable(path)}: line {number} cannot be read and is passed over"
                )

    def _learn(self, entry: Entry) -> None:
        if entry.target not in self.known or self.known[entry.target].at <= entry.at:
            self.known[entry.target] = entry
        for name, stamp in entry.files.items():
            self._owned.setdefault(name, []).append((entry.target, stamp))

    def add(self, entry: Entry) -> None:
        """Write an entry, and sync it to disk."""
        end = self._file.seek(0, os.SEEK_END)
        line = memoryview(entry.line())
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            error.filename = error.filename or str(self.folder / _FILE)
            raise
        self._learn(entry)

    def relative(self, path: Path) -> str:
        """The name of a file of `out` in the journal."""
        return path.relative_to(self.out).as_posix()

    def conflict(self, source: Path, target: Path, settings: Mapping[str, Any]) -> tuple[bool, str]:
        """Whether a photograph is finished, and why its target must not be replaced unasked.

        Returns
        -------
        bool, str
            True and "" for one that is finished, False and "" for one to color, False and the
            reason for one that would replace a file.
        """
        entry = self.known.get(self.relative(target))
        if entry is None:
            if (owner := self.owner(target)) is not None:
                return False, f"belongs to the result {printable(owner)}"
            return False, "exists already" if os.path.lexists(target) else ""
        present = [name for name in entry.files if os.path.lexists(self.out / name)]
        if any(not self.owns(self.out / name, target) for name in present):
            return False, "was changed after it was colored"
        if present and dict(entry.settings) != dict(settings):
            return False, f"{OTHER_SETTINGS} ({_difference(entry, settings)})"
        try:
            same = entry.original.fits(source)
        except OSError:
            return False, ""  # reading will say what is wrong with it
        if present and not same:
            return False, f"its original {printable(source)} has changed since it was colored"
        done = same and all(
            name in present and stamp.fits(self.out / name) for name, stamp in entry.files.items()
        )
        return done, ""

    def owns(self, path: Path, target: Path) -> bool:
        """Whether the file at `path` is what was written there for `target`."""
        wanted = self.relative(target)
        stamps = [s for owner, s in self._owned.get(self.relative(path), ()) if owner == wanted]
        try:
            return path.is_file() and any(stamp.fits(path) for stamp in stamps)
        except OSError:
            return False

    def owner(self, path: Path) -> str | None:
        """The target of the result that a file belongs to; None where it is not of this journal."""
        owners = [owner for owner, _ in self._owned.get(self.relative(path), ())]
        return next((o for o in owners if self.owns(path, self.out / o)), None)

    def keeps_old_name(self, job: Job, old: Path) -> bool:
        """Whether the result of a job is not at its target but at `old`."""
        entry = self.known.get(self.relative(old))
        if entry is None or self.relative(job.target) in self.known:
            return False
        try:
            same = Path(entry.source).name == job.source.name and entry.original.fits(job.source)
        except OSError:
            return False
        return same and os.path.lexists(old)

    def drawn_before(self, target: Path, settings: Mapping[str, Any]) -> Path:
        """A folder for pages that are drawn of a photograph, with these settings."""
        key = json.dumps([self.relative(target), dict(settings)], sort_keys=True)
        return self.folder / _PAGES / hashlib.sha256(key.encode()).hexdigest()[:32]

    def publish(self, entry: Entry, staged: Iterable[tuple[Path, Path]]) -> None:
        """Add an entry, then move its files, (made, target), to their names."""
        self.add(entry)
        folders = set()
        for made, target in staged:
            target.parent.mkdir(parents=True, exist_ok=True)
            _move(made, target)
            folders.add(target.parent)
        for folder in folders:
            atomic.sync_folder(folder)


def _difference(entry: Entry, settings: Mapping[str, Any]) -> str:
    changed = [
        f"{name} {_short(entry.settings.get(name))}, now {_short(settings.get(name))}"
        for name in {**entry.settings, **settings}
        if entry.settings.get(name) != settings.get(name)
    ]
    return "; ".join(changed)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:8]}…" if len(text) == 64 else text


def _move(made: Path, target: Path) -> None:
    try:
        os.replace(made, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # The target's folder is another file system: the file is made whole there first.
        with atomic.replacing(target) as partial:
            shutil.copy2(made, partial)
