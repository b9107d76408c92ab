"""Jobs and outcomes: plain values that are sent between processes and machines."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from colorized.options import SamplingOptions

if TYPE_CHECKING:
    from colorized.inference.hints import Hints


@dataclass(frozen=True)
class Job:
    """One photograph to color and the file that will hold the result.

    `drawn_before` is a folder for what is drawn of a file of several pages, so that a batch that
    ends in the middle of one goes on with the next page.
    """

    source: Path
    target: Path
    drawn_before: Path | None = None


@dataclass(frozen=True)
class Settings:
    """What determines a result, beside the photograph and the weights.

    `max_pixels` bounds a photograph before it is decoded, `hints_sha256` is the digest of the file
    of `hints`, `mark` the place of the visible mark, and `recolor` says whether photographs in
    color are colored, too.
    """

    sampling: SamplingOptions
    max_pixels: int
    candidates: int = 1
    hints: Hints | None = None
    hints_sha256: str = ""
    uncertainty: bool = False
    layer: bool = False
    mark: Literal["corner", "margin"] | None = None
    recolor: bool = False

    def facts(self, weights_sha256: str) -> dict[str, Any]:
        """The values that determine the result, as JSON, for a journal to compare."""
        return {
            "weights": weights_sha256,
            **asdict(self.sampling),
            "candidates": self.candidates,
            "hints": self.hints_sha256,
            "uncertainty": self.uncertainty,
            "layer": self.layer,
            "mark": self.mark,
        }


@dataclass(frozen=True)
class FileDigest:
    """Digest of a file, with size and time for a quick check that it has not changed."""

    sha256: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, *, sync: bool = False) -> FileDigest:
        """Digest of a file; with `sync` the file is synced to disk."""
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if sync:
                os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        return cls(digest, status.st_size, status.st_mtime_ns)

    def fits(self, path: Path) -> bool:
        """Whether the file is unchanged; it is read only where its time differs."""
        status = os.stat(path)
        if status.st_size != self.size:
            return False
        return status.st_mtime_ns == self.mtime_ns or FileDigest.of(path).sha256 == self.sha256


@dataclass(frozen=True)
class Outcome:
    """Outcome of one photograph.

    `files` were written and synced, the colored photograph first. `notes`, `error` and
    `passed_over`, which says why it was skipped, are lines that name the photograph. `size` is its
    width and height in pixels, zeros where it could not be read, `thumbnail` a small JPEG file of
    it before and after, and `kept` says whether some of its pages kept their colors.
    """

    files: tuple[tuple[Path, FileDigest], ...] = ()
    original: FileDigest | None = None
    notes: tuple[str, ...] = ()
    error: str = ""
    passed_over: str = ""
    disk_full: bool = False
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    thumbnail: bytes = b""
    kept: bool = False
