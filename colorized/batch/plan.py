"""The plan of a batch, checked before any work, and the work itself.

Photographs that are finished by the journal are skipped; a result is moved to its name only when
the journal has it.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from colorized import photo
from colorized.batch.job import Job, Outcome, Settings
from colorized.batch.journal import OTHER_SETTINGS, BatchError, Entry, Journal
from colorized.text import line, printable


class Pool(Protocol):
    """Protocol of a worker pool: see `workers`."""

    def run(self, jobs: Iterable[Job], settings: Settings) -> Iterator[tuple[Job, Outcome]]: ...


class DiskFull(OSError):
    """One line; the batch ends with it."""


@dataclass(frozen=True)
class Result:
    """Result of a photograph of the batch; `entry` is None where it was not colored."""

    job: Job
    outcome: Outcome
    entry: Entry | None


@dataclass
class Plan:
    """Plan of a batch into `folder`.

    `failed` are photographs that cannot be colored, such as the second of two with one target;
    `passed_over` are files of folders that are not pictures by their names.
    """

    folder: Path
    jobs: list[Job] = field(default_factory=list)
    failed: list[Result] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)

    def fail(self, job: Job, path: Path, problem: str) -> None:
        """Note that a job cannot be done because of a file or folder."""
        error = f"{printable(path)}: {problem}"
        self.failed.append(Result(job, Outcome(error=error), None))


def plan(inputs: Sequence[Path], out: Path, writable: bool = True) -> Plan:
    """Plan the targets of `inputs`, which are files or folders.

    A file goes to `out/name`; a folder's tree is kept below `out`. If there is one input, a file,
    and `out` is the name of a picture, the result is that file. Of a folder are passed over: files
    that are not pictures by their suffix, hidden files and folders, links to folders, and `out`
    itself, where a second run would find the first one's results. A file given twice is one job.
    With `writable`, folders of targets must be so.

    Raises
    ------
    BatchError
        An input is missing, a folder holds no pictures, `out` cannot be written, or none of the
        photographs can be colored; then it names the first.
    """
    found = Plan(out)
    if (file := named_file(inputs, out)) is not None:
        if not inputs[0].exists():
            raise BatchError(inputs[0], "no such file or folder")
        jobs, found.folder = [Job(inputs[0], file)], file.parent
    else:
        jobs = [job for given in inputs for job in jobs_of(given, out, found)]
    # Paths alone do not tell on a volume that ignores case, or one that is mounted twice.
    originals = {_identity(job.source) for job in jobs} - {None}
    for job, why in without_conflicts(
        jobs,
        source=lambda job: os.path.realpath(job.source),
        target=lambda job: os.path.realpath(job.target),
        name=lambda job: printable(job.source),
    ):
        if why:
            found.fail(job, job.target, why)
        elif job.target.is_dir():
            found.fail(job, job.target, "is a folder")
        elif _identity(job.target) in originals:
            found.fail(job, job.target, "is an original; choose another folder with --out")
        else:
            found.jobs.append(job)
    raise_if_all_failed(found.jobs, found.failed)
    if writable:
        _check_writable(found.folder)
        found.jobs = _writable(found)
        raise_if_all_failed(found.jobs, found.failed)
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    """What a file is on its disk, whatever its path; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def named_file(inputs: Sequence[Path], out: Path) -> Path | None:
    """`out` where it names the result of one file rather than a folder.

    Raises BatchError: it names one, but of a format without color, or there are several inputs.
    """
    if out.is_dir() or not photo.is_picture_name(out):
        return None
    if len(inputs) != 1 or inputs[0].is_dir():
        raise BatchError(out, "is the name of one photograph; name a folder for several")
    if photo.output_format(out) is None:
        raise BatchError(out, "its format cannot hold color; .png, .tif and .jpg can")
    return out


A = TypeVar("A")


def without_conflicts(
    items: Iterable[A],
    source: Callable[[A], str],
    target: Callable[[A], str],
    name: Callable[[A], str],
) -> Iterator[tuple[A, str]]:
    """Each item, and the reason why it conflicts with another; empty where it does not.

    Of several with one target the first has none. An item that is given twice comes once.

    Parameters
    ----------
    source, target
        Absolute paths or addresses of an item's original and result.
    name
        Its original in messages.
    """
    every = list(items)
    originals = {source(item) for item in every}
    first: dict[str, A] = {}
    for item in every:
        known = first.setdefault(target(item), item)
        if source(known) != source(item):
            both = f"{name(known)} and {name(item)}"
            yield item, f"would hold both {both}; color them into two folders"
        elif known is item:
            mine = target(item) in originals
            yield item, "is an original; choose another folder with --out" if mine else ""


def raise_if_all_failed(jobs: Sequence[Job], failed: Sequence[Result]) -> None:
    """Raises BatchError with the first failure where there is nothing else."""
    if failed and not jobs:
        others = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise BatchError(None, failed[0].outcome.error + others)


def jobs_of(given: Path, out: Path, found: Plan) -> Iterator[Job]:
    """The photographs of one file or folder; other files are noted in `found`.

    Raises BatchError: it is missing, or a folder that cannot be read or holds no pictures.
    """
    if not given.is_dir():
        if not given.exists():
            raise BatchError(given, "no such file or folder")
        yield Job(given, out / photo.output_name(given))
        return
    results = os.path.realpath(out)
    empty = True

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename)
        if folder == given:
            raise BatchError(given, f"cannot be read: {error.strerror}") from error
        job = Job(folder, out / folder.relative_to(given))
        found.fail(job, folder, f"cannot be read: {error.strerror}")

    for name, folders, files in os.walk(given, onerror=unreadable):
        folder = Path(name)
        folders[:] = sorted(
            f for f in folders if f[0] != "." and os.path.realpath(folder / f) != results
        )
        for source in sorted(folder / f for f in files if f[0] != "."):
            if photo.is_picture_name(source):
                empty = False
                yield Job(source, out / folder.relative_to(given) / photo.output_name(source))
            else:
                found.passed_over.append(source)
    if empty and not found.failed:
        raise BatchError(given, "holds no photographs")


def _writable(found: Plan) -> list[Job]:
    """The jobs whose target's folder can be written."""
    problems: dict[Path, BatchError | None] = {}
    kept = []
    for job in found.jobs:
        folder = job.target.parent
        if folder not in problems:
            try:
                problems[folder] = None
                _check_writable(folder)
            except BatchError as error:
                problems[folder] = error
        if (problem := problems[folder]) is None:
            kept.append(job)
        else:
            found.failed.append(Result(job, Outcome(error=str(problem)), None))
    return kept


def _check_writable(folder: Path) -> None:
    """That `folder` is one, or can be made, and can be written to; it is not made yet."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise BatchError(folder, "is not a folder; choose another with --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BatchError(folder, "cannot be written to; choose another folder with --out")


def with_known_names(jobs: Iterable[Job], journal: Journal) -> tuple[list[Job], int]:
    """The jobs, those of them under their old names whose results have such, and how many.

    Earlier versions gave results other names, such as `scan.tif` to that of `scan.pdf`. What was
    colored under such a name keeps it.
    """
    named, count = [], 0
    jobs = list(jobs)
    targets = {job.target for job in jobs}
    for job in jobs:
        old = job.target.with_name(_old_name(job.source))
        named_by_hand = job.target.name != photo.output_name(job.source)
        if named_by_hand or old in targets or not journal.keeps_old_name(job, old):
            old = job.target
        count += old != job.target
        named.append(Job(job.source, old))
    return named, count


def _old_name(source: Path) -> str:
    """The name that earlier versions gave the colored copy of a file."""
    if photo.output_format(source) is not None:
        return photo.output_name(source)
    suffix = Path(photo.output_name(source)).suffix
    return (source.stem if photo.is_picture_name(source) else source.name) + suffix


def remaining(
    jobs: Iterable[Job],
    journal: Journal,
    settings: Mapping[str, Any],
    overwrite: bool,
    recolor: bool = False,
) -> tuple[list[Job], list[Job], list[Result]]:
    """Divide jobs into those to color, those finished, and those that fail.

    With `recolor`, those of which pages kept their colors are not finished.

    What would replace a file that is not of this journal, that was changed, or that was made from
    another original cannot be done, unless `overwrite` is set.

    Raises
    ------
    BatchError
        `overwrite` is not set, and a result was made with other settings, or nothing else can be
        done. Names the first, and says how many there are.
    """
    todo: list[Job] = []
    done: list[Job] = []
    failed: list[Result] = []
    for job in jobs:
        is_done, why = journal.conflict(job.source, job.target, settings)
        if is_done and recolor:
            is_done = not journal.known[journal.relative(job.target)].kept
        if why and not overwrite:
            error = f"{printable(job.target)}: {why}; --overwrite replaces it"
            failed.append(Result(job, Outcome(error=error), None))
            if why.startswith(OTHER_SETTINGS):
                failed.insert(0, failed.pop())
        else:
            (done if is_done else todo).append(job)
    # Other settings are of the command, not of one photograph: nothing goes on with half of each.
    if failed and OTHER_SETTINGS in failed[0].outcome.error:
        raise_if_all_failed([], failed)
    raise_if_all_failed([*todo, *done], failed)
    return todo, done, failed


def color(
    jobs: Sequence[Job],
    pool: Pool,
    settings: Settings,
    facts: Mapping[str, Any],
    journal: Journal,
    overwrite: bool,
) -> Iterator[Result]:
    """Color photographs, and yield each when it has its name, or its error.

    `facts` determine the results, for the journal: see `Settings.facts`. Raises DiskFull: there is
    no room for a result, or for its line in the journal.
    """
    targets = {}
    staged = []
    for number, job in enumerate(jobs):
        # Two photographs may have one name, in two folders.
        file = journal.staging / str(number) / job.target.name
        drawn = journal.drawn_before(job.target, {**facts, "recolor": settings.recolor})
        staged.append(Job(job.source, file, drawn))
        targets[file] = job
    colored = 0
    for made, outcome in pool.run(staged, settings):
        job = targets[made.target]
        if made.drawn_before is not None and not outcome.error:
            shutil.rmtree(made.drawn_before, ignore_errors=True)
        # The staging folder is no place that a user knows.
        staged_in, folder = printable(made.target.parent), printable(job.target.parent)
        outcome = replace(outcome, error=outcome.error.replace(staged_in, folder))
        entry = None
        try:
            if outcome.error and outcome.disk_full:
                raise OSError(errno.ENOSPC, outcome.error)
            if not outcome.error and not outcome.passed_over:
                entry = _publish(job, outcome, facts, journal, overwrite)
                colored += 1
        except BatchError as error:
            outcome = replace(outcome, error=str(error))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    f"{printable(journal.out)}: the disk is full; {colored} of {len(jobs)} "
                    "photographs were colored, and the same command goes on with the others"
                ) from error
            outcome = replace(outcome, error=line(error))
        finally:
            shutil.rmtree(made.target.parent, ignore_errors=True)
        yield Result(job, outcome, entry)


def _publish(
    job: Job, outcome: Outcome, facts: Mapping[str, Any], journal: Journal, overwrite: bool
) -> Entry:
    assert outcome.original is not None
    moves = [(path, job.target.parent / path.name) for path, _ in outcome.files]
    for _, target in moves:
        # It may have come while the batch was at work.
        if not os.path.lexists(target) or journal.owns(target, job.target):
            continue
        if not overwrite:
            raise BatchError(target, "exists already; --overwrite replaces it")
        if (owner := journal.owner(target)) is not None:
            raise BatchError(target, f"belongs to the result {printable(owner)}")
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
        kept=outcome.kept,
    )
    journal.publish(entry, moves)
    return entry
