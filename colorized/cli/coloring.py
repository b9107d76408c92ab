"""The command that colors photographs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from colorized.cli.messages import Failure, complain, finite


def colorize(
    inputs: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the colored photographs.")],
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps: more are slower.")] = 10,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Another gives other plausible colors.")
    ] = 0,
    saturation: Annotated[
        float, typer.Option(min=0, max=4, callback=finite, help="Chroma is multiplied by this.")
    ] = 1.0,
    guidance: Annotated[
        float,
        typer.Option(
            min=0,
            max=10,
            callback=finite,
            help="Above 1, colors go more clearly with the picture; 1 takes half the time.",
        ),
    ] = 1.5,
    weights: Annotated[
        str | None,
        typer.Option(
            help="A .safetensors file, or of MLflow models:/colorized@champion or runs:/ID.",
            show_default="the released weights",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")] = "cpu",
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger photographs are refused.")
    ] = 300_000_000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Color photographs at their own resolution.

    An output keeps its input's name and format; a format that cannot hold color becomes PNG. Of a
    folder the tree is kept.
    """
    from rich.console import Console
    from rich.progress import Progress

    from colorized import batch, one, photo

    settings = one.Settings(steps, seed, guidance, saturation, max_pixels)
    jobs = batch.plan(inputs, out, overwrite)
    with weights_file(weights) as (path, name):
        model = one.load_model(path, name, device)
    if steps > model.T:
        raise typer.BadParameter(f"must not exceed {model.T}, got {steps}", param_hint="--steps")
    failed = 0
    with Progress(
        console=Console(stderr=True),
        # A stream that was closed is None.
        disable=not (sys.stderr and sys.stderr.isatty()),
        redirect_stdout=bool(sys.stdout and sys.stdout.isatty()),
    ) as progress:
        for job in progress.track(jobs, description="coloring"):
            outcome = one.colorize_file(job, model, settings)
            for note in outcome.notes:
                complain("warning", note)
            if outcome.error:
                failed += 1
                complain("error", outcome.error)
            else:
                print(photo.printable(job.target), flush=True)
    if failed:
        if len(jobs) > 1:
            complain("error", f"{failed} of {len(jobs)} photographs could not be colored")
        raise typer.Exit(1)


@contextmanager
def weights_file(given: str | None) -> Iterator[tuple[Path, str]]:
    """The file of the weights that --weights names, for a while, and their name."""
    from colorized import checkpoint, tracking

    if given is not None and given.startswith(("models:/", "runs:/")):
        with tracking.Registry(Path.cwd()).weights(given) as path:
            yield path, given
        return
    path = checkpoint.RELEASED if given is None else Path(given)
    if given is None and not path.is_file():
        raise Failure(f"the released weights are not at {path}: name a file with --weights")
    yield path, path.name
