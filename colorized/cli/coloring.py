"""The command that colors photographs."""

from __future__ import annotations

import math
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from colorized.cli.messages import Failure, complain, finite
from colorized.options import LIMITS

if TYPE_CHECKING:
    from colorized.batch.job import Settings
    from colorized.batch.plan import Result
    from colorized.batch.report import Report
    from colorized.progress import Progress


weights_option = click.option(
    "--weights",
    help="A .safetensors file, or of MLflow models:/colorized@champion or runs:/ID.",
    show_default="the released weights",
)


def _sampling(name: str, help_text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A sampling option; its default is in the weights file."""
    low, high = LIMITS[name]
    whole = name in ("steps", "seed")
    kind = click.IntRange(low, high) if whole else click.FloatRange(low, high)
    return click.option(
        f"--{name}", type=kind, callback=finite, help=help_text, show_default="the weights'"
    )


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="PHOTOGRAPHS...")
@click.option(
    "-o", "--out", required=True, help="Folder for the colored photographs; of one, also its file."
)
@_sampling("steps", "Sampling steps: more are slower.")
@_sampling("seed", "Another gives other plausible colors.")
@_sampling("saturation", "Chroma is multiplied by this.")
@_sampling("guidance", "Above 1, colors go more clearly with the picture.")
@_sampling("temperature", "Below 1, colors are likelier and vary less from seed to seed.")
@weights_option
@click.option(
    "--candidates",
    type=click.IntRange(1, 32),
    default=1,
    help="Colorings of each photograph, the most typical first.",
)
@click.option(
    "--hints",
    type=click.Path(path_type=Path),
    help="Known colors, as JSON or PNG; for one photograph.",
)
@click.option("--uncertainty", is_flag=True, help="Map where the candidates differ.")
@click.option(
    "--layer", is_flag=True, help="Also write a layer of the colors, to put over the scan."
)
@click.option(
    "--mark",
    type=click.Choice(["corner", "margin"]),
    help="Write into the picture that a machine colored it.",
)
@click.option("--device", default="cpu", help="cpu, cuda, cuda:1 or mps; or cuda:0,cuda:1.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes at work; 0 works in this one, without protection from bad files.",
    show_default="one a core, four a GPU",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=600,
    callback=finite,
    help="Most seconds for a photograph; 0: no limit.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=300_000_000,
    help="Larger photographs are refused.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--recolor", is_flag=True, help="Color photographs that are in color already.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="ray works on a cluster, with folders or s3://bucket/folder.",
)
@click.option("--address", help="Address of the Ray cluster.", show_default="a new one here")
@click.option(
    "--report/--no-report",
    default=None,
    help="Write a report beside the results.",
    show_default="for folders",
)
def colorize(
    inputs: tuple[str, ...],
    out: str,
    weights: str | None,
    candidates: int,
    hints: Path | None,
    uncertainty: bool,
    layer: bool,
    mark: Literal["corner", "margin"] | None,
    device: str,
    workers: int | None,
    timeout: float,
    max_pixels: int,
    overwrite: bool,
    recolor: bool,
    engine: Literal["local", "ray"],
    address: str | None,
    report: bool | None,
    **sampling: Any,
) -> None:
    """Color photographs at their own resolution.

    PHOTOGRAPHS are files, or folders of them. An output keeps its input's name and format; a
    format that cannot hold color becomes PNG, and a PDF a TIFF. Subfolders are kept. Photographs
    that are done or in color already are skipped, so the same command goes on after an
    interruption.
    """
    from colorized.batch import folder as batch
    from colorized.batch import plan
    from colorized.batch.job import FileDigest, Settings
    from colorized.batch.journal import Journal
    from colorized.batch.report import Report, ReportError, by_kind
    from colorized.model.header import sampling_defaults
    from colorized.text import line

    if uncertainty and candidates == 1:
        raise click.BadParameter("needs --candidates 2 or more", param_hint="--uncertainty")

    for given in inputs:
        if re.match(r"(https?|ftp|file)://", given):
            raise Failure(f"{given}: is a URL; download the photograph and name its file")

    def settings(path: Path, **known: Any) -> Settings:
        """For the weights in the file at `path`."""
        return Settings(
            sampling_defaults(path).override(**sampling), max_pixels, candidates,
            uncertainty=uncertainty, layer=layer, mark=mark,
            recolor=recolor, **known,
        )  # fmt: skip

    if not all((*inputs, out)):
        raise click.BadParameter("a name is empty")
    for option, asked in (("--workers", workers is not None), ("--report", report)):
        if engine == "ray" and asked:
            raise click.BadParameter("is not for --engine ray", param_hint=option)
    if engine != "ray" and address is not None:
        raise click.BadParameter("needs --engine ray", param_hint="--address")

    if engine == "ray":
        if hints is not None:
            raise Failure("--hints is for one photograph, --engine ray for many")
        _on_cluster(inputs, out, settings, weights, device, address, timeout, overwrite)
        return
    for url in (*inputs, out):
        if url.startswith("s3://"):
            raise Failure(f"{url}: only --engine ray reads and writes stores")
    paths = [Path(given) for given in inputs]
    if report is None:
        report = any(path.is_dir() for path in paths)
    found = plan.plan(paths, Path(out))
    known: dict[str, Any] = {}
    if hints:
        if len(found.jobs) != 1:
            raise Failure(f"--hints is for one photograph, not for {len(found.jobs)}")
        from colorized.inference.hints import read_hints

        known = {"hints": read_hints(hints), "hints_sha256": FileDigest.of(hints).sha256}
    total = len(found.jobs) + len(found.failed)
    with weights_file(weights) as (path, name), Journal(found.folder) as journal:
        for warning in journal.warnings:
            complain("warning", warning)
        work = batch.color(
            found, journal, settings(path, **known), path, name,
            device.split(","), workers, timeout, overwrite,
        )  # fmt: skip
        if work.done:
            complain("note", f"{work.done} of {total} photographs are done already")
        if work.renamed:
            complain("note", f"{work.renamed} keep the names that an earlier version gave them")
        if found.passed_over:
            kinds = by_kind(found.passed_over)
            complain("note", f"passed over, no pictures by their names: {kinds}")
        results = Report(journal, found.passed_over) if report else None
        full = False
        try:
            failed, in_color = _follow(work.results, results, total, work.done)
        except plan.DiskFull:
            full = True  # no room for a report either
            raise
        finally:
            if results is not None and not full:
                try:
                    results.write()
                except (ReportError, OSError) as error:
                    complain("warning", line(error))
    if in_color and total > 1:
        what = f"{in_color} of {total} photographs are in color already"
        complain("note", f"{what}; --recolor colors them")
    if failed:
        if total > 1:
            complain("error", f"{failed} of {total} photographs could not be colored")
        raise click.exceptions.Exit(1)


def _on_cluster(
    inputs: Sequence[str], out: str, settings: Callable[[Path], Settings], weights: str | None,
    device: str, address: str | None, timeout: float, overwrite: bool,
) -> None:  # fmt: skip
    from colorized.batch import ray
    from colorized.batch.job import FileDigest
    from colorized.batch.journal import FOLDER
    from colorized.storage import Store
    from colorized.text import printable

    tasks = ray.find(inputs, out)
    failed = 0
    with weights_file(weights) as (path, name), ray.known_results(out) as known:
        wanted = settings(path)
        facts = wanted.facts(FileDigest.of(path).sha256)
        store = Store(out)
        todo, done = ray.remaining(tasks, store, known, facts, overwrite, wanted.recolor)
        if done:
            complain("note", f"{done} of {len(tasks)} photographs are done already")
        if not todo:
            return
        lent = f"{FOLDER}/weights-{FileDigest.of(path).sha256}"
        asked = ray.Batch(
            store.url, wanted, facts, lent, name, device, timeout or math.inf, overwrite
        )
        # Ray prints messages on stdout, which is for results only.
        results = sys.stdout
        with (
            redirect_stdout(sys.stderr),
            _progress(len(tasks), done) as progress,
            ray.lending(store, lent, path.read_bytes()),
        ):
            for result in ray.color(todo, asked, address):
                progress.advance()
                for note in result.notes:
                    complain("warning", note)
                if result.error:
                    failed += 1
                    complain("error", result.error)
                elif result.target:
                    print(printable(store.path(result.target)), file=results, flush=True)
    if failed:
        complain("error", f"{failed} of {len(tasks)} photographs could not be colored")
        raise click.exceptions.Exit(1)


def _progress(total: int, done: int) -> Progress:
    """A bar, on a terminal only."""
    from colorized.progress import Progress

    shown = Progress("coloring", "photographs", total, seconds=threading.TIMEOUT_MAX)
    shown.begin(done)
    return shown


def _follow(
    work: Iterator[Result], results: Report | None, total: int, done: int
) -> tuple[int, int]:
    """Print each photograph's result; the numbers that failed and that are in color already."""
    from colorized.text import printable

    failed = in_color = 0
    with _progress(total, done) as progress:
        for result in work:
            if results is not None:
                results.add(result)
            progress.advance()
            for note in result.outcome.notes:
                complain("warning", note)
            if result.entry is not None:
                print(printable(result.job.target), flush=True)
            elif result.outcome.error:
                failed += 1
                complain("error", result.outcome.error)
            else:
                in_color += 1
                complain("note", result.outcome.passed_over)
    return failed, in_color


@contextmanager
def weights_file(given: str | None) -> Iterator[tuple[Path, str]]:
    """The file and the name of the weights of --weights, for the time of the context."""
    from colorized.model import released

    if given is not None and given.startswith(("models:/", "runs:/")):
        from colorized import tracking

        with tracking.Registry(Path.cwd()).weights(given) as path:
            yield path, given
        return
    path = released.RELEASED if given is None else Path(given)
    if not path.is_file():
        if given is None:
            raise Failure(f"the released weights are not at {path}: name a file with --weights")
        raise Failure(f"{path}: no such weights file")
    yield path, path.name
