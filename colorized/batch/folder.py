"""Coloring of files and folders into a folder, as `colorized colorize` does it.

Finished photographs are skipped, so that the same call resumes an interrupted batch; files that are
not of the batch are not replaced unless asked. See docs/batch.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

from colorized import photo
from colorized.batch import plan
from colorized.batch.job import FileDigest, Settings
from colorized.batch.journal import Journal
from colorized.batch.plan import Result as Result
from colorized.batch.report import Report
from colorized.batch.workers import InProcess, WorkerPool, count, worker_specs
from colorized.model.header import sampling_defaults
from colorized.model.released import RELEASED

if TYPE_CHECKING:
    from colorized.api import Options


def colorize_folder(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    candidates: int = 1,
    uncertainty: bool = False,
    layer: bool = False,
    mark: Literal["corner", "margin"] | None = None,
    overwrite: bool = False,
    recolor: bool = False,
    report: bool = False,
    workers: int | None = 0,
    timeout: float = 600,
    max_pixels: int = photo.MAX_PIXELS,
    **options: Unpack[Options],
) -> Iterator[Result]:
    """Color the photographs of files and folders into `out`, and give each as it is done.

    Names, formats, trees and the files beside each photograph are those of the command.

    Parameters
    ----------
    weights, device, candidates, max_pixels, **options
        As in `Colorizer` and `Colorizer.colorize`; several devices with commas between.
    uncertainty, layer, mark, overwrite, recolor, report, timeout
        As the options of the command.
    workers
        Processes at work, None for one a core; 0 works in this one, without protection from files
        that crash a decoder. Other processes import the main module: guard what it runs with
        `if __name__ == "__main__"`.

    Yields
    ------
    Of each photograph `job.source` and `job.target`, and `outcome.error`, a line that is empty
    where it was colored, and `outcome.notes`. `outcome.passed_over` says of one that is in color
    already that it was left as it is. Those that were done before are not among them.

    Raises
    ------
    Error
        An input, an option or the folder cannot be used; what is wrong with one photograph is in
        its outcome.
    """
    from colorized.api import Error, failing, override  # loads torch, which `color` does not need

    given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    path = RELEASED if weights is None else Path(weights)
    with failing():
        if not all(os.fspath(name) for name in (*given, out)):
            raise Error("a name is empty")
        if uncertainty and candidates == 1:
            raise Error("uncertainty needs candidates, 2 or more")
        found = plan.plan([Path(name) for name in given], Path(out))
        sampling = override(sampling_defaults(path), **options)
        settings = Settings(
            sampling, max_pixels, candidates,
            uncertainty=uncertainty, layer=layer, mark=mark, recolor=recolor,
        )  # fmt: skip
        with Journal(found.folder) as journal:
            results = Report(journal, found.passed_over) if report else None
            devices = device.split(",")
            work = color(
                found, journal, settings, path, path.name, devices, workers, timeout, overwrite
            ).results
            try:
                for result in work:
                    if results is not None:
                        results.add(result)
                    yield result
            finally:
                if results is not None:
                    results.write()


@dataclass(frozen=True)
class Batch:
    """A running batch: `results` of all photographs but the `done` ones, finished already.

    `renamed` results keep the names that an earlier version gave them.
    """

    results: Iterator[Result]
    done: int
    renamed: int


def color(
    found: plan.Plan,
    journal: Journal,
    settings: Settings,
    weights: Path,
    name: str,
    devices: Sequence[str],
    workers: int | None,
    timeout: float,
    overwrite: bool,
) -> Batch:
    """Color the photographs of a plan that are not finished; failures come first.

    Raises BatchError as in `plan.remaining`. The iterator raises what `plan.color` does, and
    `WorkerError`.

    Parameters
    ----------
    weights, name
        Their file, and their name in marks.
    workers
        None for as many as the devices keep busy.
    timeout
        Seconds for a photograph, 0 for no limit.
    """
    sha256 = FileDigest.of(weights).sha256
    facts = settings.facts(sha256)
    jobs, renamed = plan.with_known_names(found.jobs, journal)
    todo, done, conflicts = plan.remaining(jobs, journal, facts, overwrite, settings.recolor)

    def work() -> Iterator[Result]:
        yield from (*found.failed, *conflicts)
        if not todo:
            return
        number = min(count(devices) if workers is None else workers, len(todo))
        specs = worker_specs(weights, sha256, name, devices, number)
        pool = WorkerPool(specs, timeout or math.inf) if number else InProcess(specs[0])
        with pool:
            pool.wait_until_ready()
            yield from plan.color(todo, pool, settings, facts, journal, overwrite)

    return Batch(work(), len(done), renamed)
