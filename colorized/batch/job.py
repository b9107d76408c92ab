"""What is to be done to a photograph, and what became of it.

Plain values, which go between processes and machines; nothing heavy is imported for them.
"""

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
    """What a result follows from, beside the photograph and the weights.

    Attributes
    ----------
    sampling
        How the colors are drawn.
    max_pixels
        Larger photographs are refused before they are decoded.
    candidates
        How many colorings of each photograph.
    hints, hints_sha256
        Colors that are known, and the digest of the file that says them.
    uncertainty
        Whether to write a map of where the candidates disagree.
    layer
        Whether to write the colors alone, too.
    mark
        Where the picture says that a machine colored it, in words.
    recolor
        Whether photographs that are in color already are colored, too; of no consequence for
        others.
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
        """What decides the result, for a journal to compare: values of JSON."""
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
class Stamp:
    """A file as it was: its digest, and by what one sees quickly that it has not changed."""

    sha256: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, *, sync: bool = False) -> Stamp:
        """Of a file as it is; with `sync` it is on the disk afterwards."""
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if sync:
                os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        return cls(digest, status.st_size, status.st_mtime_ns)

    def fits(self, path: Path) -> bool:
        """Whether the file is still this one. One with other times is read."""
        status = os.stat(path)
        if status.st_size != self.size:
            return False
        return status.st_mtime_ns == self.mtime_ns or Stamp.of(path).sha256 == self.sha256


@dataclass(frozen=True)
class Outcome:
    """What became of one photograph.

    Attributes
    ----------
    files
        What was written, the colored photograph first, and now is on the disk; empty where there
        was an error.
    original
        The file that was read; None where it could not be.
    notes
        What a user should know, one line each, which names the photograph.
    error
        Why it could not be colored, one line that names it; empty where it was.
    passed_over
        Why it was left as it is, one line that names it: it is in color already.
    disk_full
        Whether that was because the disk, or the user's share of it, is full.
    size
        Width and height of the photograph in pixels; zeros where it could not be read.
    seconds
        How long it took.
    thumbnail
        A small JPEG file, the photograph before and after; empty where there is none.
    """

    files: tuple[tuple[Path, Stamp], ...] = ()
    original: Stamp | None = None
    notes: tuple[str, ...] = ()
    error: str = ""
    passed_over: str = ""
    disk_full: bool = False
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    thumbnail: bytes = b""
