"""Files and folders in → a plan of what is written where, checked before any work is done.

Then the work itself: what the journal knows as done is passed over, and what is colored gets its
name only when the journal has it.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol

from colorized import photo
from colorized.batch.job import Job, Outcome, Settings
from colorized.batch.journal import Entry, Journal
from colorized.text import line


class BatchError(ValueError):
    """One line that names the file or folder in question."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{photo.printable(path)}: {problem}")


class Crew(Protocol):
    """Whoever colors photographs: see `workers`."""

    def run(self, jobs: Iterable[Job], settings: Settings) -> Iterator[tuple[Job, Outcome]]: ...


class DiskFull(OSError):
    """One line; the batch ends with it."""


@dataclass(frozen=True)
class Result:
    """A photograph of the batch, and what became of it: `entry` if it is in color now."""

    job: Job
    outcome: Outcome
    entry: Entry | None


def plan(inputs: Sequence[Path], out: Path) -> list[Job]:
    """One job for each photograph among `inputs`, which are files or folders.

    A file goes to `out/name`; a folder's tree is kept below `out`. Of a folder are passed over:
    files that are not pictures by their suffix, hidden files and folders, links to folders, and
    `out` itself, where a second run would find the first one's results. A file given twice is
    one job.

    Raises
    ------
    BatchError
        An input is missing, a folder cannot be read or holds no pictures, two inputs would be
        written to one file, an original would be overwritten, or a target's folder cannot be
        written.
    """
    jobs = checked(inputs, out)
    for folder in {job.target.parent: None for job in jobs}:
        _check_writable(folder)
    return jobs


def checked(inputs: Sequence[Path], out: Path) -> list[Job]:
    """As `plan`, whether the folders can be written aside."""
    jobs: dict[str, Job] = {}
    for given in inputs:
        for job in jobs_of(given, out):
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
    return list(jobs.values())


def jobs_of(given: Path, out: Path) -> Iterator[Job]:
    """The photographs of one file or folder; errors as in `plan`, of these alone."""
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


def remaining(
    jobs: Iterable[Job], journal: Journal, settings: Mapping[str, Any], overwrite: bool
) -> tuple[list[Job], list[Job]]:
    """Of `jobs`, those that are to be done, and those that are done already.

    Raises
    ------
    BatchError
        A file would be replaced, and `overwrite` is not set: it is not of this journal, was
        changed, or was made with other settings or from another original. Names the first, and
        says how many there are.
    """
    todo: list[Job] = []
    done: list[Job] = []
    conflicts = []
    for job in jobs:
        is_done, why = journal.conflict(job.source, job.target, settings)
        (done if is_done else todo).append(job)
        if why:
            conflicts.append((job, why))
    if conflicts and not overwrite:
        job, why = conflicts[0]
        others = f" and {len(conflicts) - 1} more" if len(conflicts) > 1 else ""
        raise BatchError(job.target, f"{why}; --overwrite replaces it{others}")
    return todo, done


def color(
    jobs: Sequence[Job],
    crew: Crew,
    settings: Settings,
    facts: Mapping[str, Any],
    journal: Journal,
    overwrite: bool,
) -> Iterator[Result]:
    """Color photographs, and give each back when it has its name, or its error.

    Parameters
    ----------
    facts
        What of the settings and the weights decides the results, for the journal.

    Raises
    ------
    DiskFull
        There is no room for a result, or for its line in the journal.
    """
    targets = {}
    staged = []
    for number, job in enumerate(jobs):
        # Two photographs may have one name, in two folders.
        staged.append(Job(job.source, journal.staging / str(number) / job.target.name))
        targets[staged[-1].target] = job
    colored = 0
    for made, outcome in crew.run(staged, settings):
        job = targets[made.target]
        outcome = _renamed(outcome, made.target, job.target)
        entry = None
        try:
            if outcome.error and outcome.disk_full:
                raise OSError(errno.ENOSPC, outcome.error)
            if not outcome.error:
                entry = _publish(job, outcome, facts, journal, overwrite)
                colored += 1
        except BatchError as error:
            outcome = replace(outcome, error=str(error))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    f"{photo.printable(journal.out)}: the disk is full; {colored} of {len(jobs)} "
                    "photographs were colored, and the same command goes on with the others"
                ) from error
            outcome = replace(outcome, error=line(error))
        finally:
            shutil.rmtree(made.target.parent, ignore_errors=True)
        yield Result(job, outcome, entry)


def _renamed(outcome: Outcome, made: Path, target: Path) -> Outcome:
    """What was said of the file where it was made, said of the one it becomes."""
    if not outcome.error:
        return outcome
    folder, name = photo.printable(made.parent), photo.printable(target.parent)
    return replace(outcome, error=outcome.error.replace(folder, name))


def _publish(
    job: Job, outcome: Outcome, facts: Mapping[str, Any], journal: Journal, overwrite: bool
) -> Entry:
    assert outcome.original is not None
    moves = [(path, job.target.parent / path.name) for path, _ in outcome.files]
    for _, target in moves:
        # It may have come while the batch was at work.
        if os.path.lexists(target) and not overwrite and not journal.owns(target, job.target):
            raise BatchError(target, "exists already; --overwrite replaces it")
    entry = Entry(
        target=journal.relative(job.target),
        source=os.path.abspath(job.source),
        original=outcome.original,
        settings=dict(facts),
        files={
            journal.relative(target): stamp
            for (_, target), (_, stamp) in zip(moves, outcome.files, strict=True)
        },
        size=outcome.size,
        seconds=round(outcome.seconds, 3),
        notes=outcome.notes,
        at=time.time(),
    )
    journal.publish(entry, moves)
    return entry
