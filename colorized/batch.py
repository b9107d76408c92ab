"""Files and folders in → a plan of what is written where, checked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from colorized import photo


class BatchError(ValueError):
    """One line that names the file or folder in question."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{photo.printable(path)}: {problem}")


@dataclass(frozen=True)
class Job:
    """One photograph to color and the file that will hold the result."""

    source: Path
    target: Path


def plan(inputs: Sequence[Path], out: Path, overwrite: bool) -> list[Job]:
    """One job for each photograph among `inputs`, which are files or folders.

    A file goes to `out/name`; a folder's tree is kept below `out`. Of a folder are passed over:
    files that are not pictures by their suffix, hidden files and folders, links to folders, and
    `out` itself, where a second run would find the first one's results. A file given twice is
    one job.

    Raises
    ------
    BatchError
        An input is missing, a folder cannot be read or holds no pictures, two inputs would be
        written to one file, an original would be overwritten, a target exists and `overwrite` is
        not set, or a target's folder cannot be written.
    """
    jobs: dict[str, Job] = {}
    for given in inputs:
        for job in _jobs(given, out):
            target = os.path.realpath(job.target)
            known = jobs.setdefault(target, job)
            if os.path.realpath(known.source) != os.path.realpath(job.source):
                first, second = (photo.printable(j.source) for j in (known, job))
                raise BatchError(
                    job.target, f"would hold both {first} and {second}; color them into two folders"
                )
    originals = {os.path.realpath(job.source) for job in jobs.values()}
    for target, job in jobs.items():
        if target in originals:
            raise BatchError(job.target, "is an original; choose another folder with --out")
        if job.target.is_dir():
            raise BatchError(job.target, "is a folder")
        if os.path.lexists(job.target) and not overwrite:
            raise BatchError(job.target, "exists already; --overwrite replaces it")
    for folder in {job.target.parent: None for job in jobs.values()}:
        _check_writable(folder)
    return list(jobs.values())


def _jobs(given: Path, out: Path) -> Iterator[Job]:
    if not given.is_dir():
        if not given.exists():
            raise BatchError(given, "no such file or folder")
        yield Job(given, out / photo.output_name(given))
        return
    results = os.path.realpath(out)
    found = False
    for name, folders, files in os.walk(given, onerror=_unreadable):
        folder = Path(name)
        folders[:] = sorted(
            f for f in folders if f[0] != "." and os.path.realpath(folder / f) != results
        )
        for source in sorted(folder / f for f in files if f[0] != "."):
            if photo.is_picture_name(source):
                found = True
                yield Job(source, out / folder.relative_to(given) / photo.output_name(source))
    if not found:
        raise BatchError(given, "holds no photographs")


def _unreadable(error: OSError) -> NoReturn:
    raise BatchError(Path(error.filename), f"cannot be read: {error.strerror}") from error


def _check_writable(folder: Path) -> None:
    """That `folder` is one, or can be made, and can be written to; it is not made yet."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise BatchError(folder, "is not a folder; choose another with --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BatchError(folder, "cannot be written to; choose another folder with --out")
