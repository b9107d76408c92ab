"""Files and folders in → a plan of what is written where, checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colorized import photo


class BatchError(ValueError):
    """One line that names the file or folder in question."""


@dataclass(frozen=True)
class Job:
    """One photograph to color and the file that will hold the result."""

    source: Path
    target: Path


def plan(inputs: Sequence[Path], out: Path, overwrite: bool) -> list[Job]:
    """One job for each photograph among `inputs`, which are files or folders.

    A file goes to `out/name`; a folder's tree is kept below `out`. Files of a folder that are not
    pictures by their suffix are passed over.

    Raises
    ------
    BatchError
        An input is missing, a folder holds no pictures, two inputs would be written to one file,
        an original would be overwritten, or a target exists and `overwrite` is not set.
    """
    jobs: list[Job] = []
    for given in inputs:
        if given.is_dir():
            found = sorted(p for p in given.rglob("*") if p.is_file() and photo.is_picture_name(p))
            found = [p for p in found if not p.resolve().is_relative_to(out.resolve())]
            if not found:
                raise BatchError(f"{given}: holds no photographs")
            jobs += [
                Job(p, out / p.relative_to(given).parent / photo.output_name(p)) for p in found
            ]
        elif given.exists():
            jobs.append(Job(given, out / photo.output_name(given)))
        else:
            raise BatchError(f"{given}: no such file or folder")
    _check(jobs, overwrite)
    return jobs


def _check(jobs: Sequence[Job], overwrite: bool) -> None:
    originals = {job.source.resolve() for job in jobs}
    targets: dict[Path, Path] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in originals:
            raise BatchError(f"{job.target}: is an original; choose another folder with -o")
        if target in targets:
            raise BatchError(
                f"{job.target}: would hold both {targets[target]} and {job.source}; "
                "color them into two folders"
            )
        if job.target.exists() and not overwrite:
            raise BatchError(f"{job.target}: exists already; --overwrite replaces it")
        targets[target] = job.source
