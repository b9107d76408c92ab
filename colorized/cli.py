"""The command line. Heavy imports happen inside the commands, so that --help is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Color black-and-white photographs with a diffusion model, and say how well it does.",
)


@app.callback()
def _commands() -> None:
    """Color black-and-white photographs with a diffusion model."""


@app.command()
def colorize(
    inputs: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the colored photographs.")],
    steps: Annotated[int, typer.Option(min=1, help="Network evaluations a photograph.")] = 10,
    seed: Annotated[
        int, typer.Option(min=0, help="Another seed gives other plausible colors.")
    ] = 0,
    saturation: Annotated[
        float, typer.Option(min=0, max=4, help="Chroma is multiplied by this.")
    ] = 1.0,
    weights: Annotated[
        Path | None, typer.Option(help="A .safetensors file; default: the released weights.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")] = "cpu",
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger photographs are refused.")
    ] = 100_000_000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Color photographs at their own resolution; an output keeps its input's name and format."""
    from rich.progress import Progress

    from colorized import batch, checkpoint, devices, photo
    from colorized.colorizer import Colorizer

    jobs = batch.plan(inputs, out, overwrite)
    loaded = checkpoint.load_weights(weights or checkpoint.RELEASED, devices.open_device(device))
    if steps > loaded.config.T:
        raise typer.BadParameter(
            f"must not exceed {loaded.config.T}, got {steps}", param_hint="--steps"
        )
    colorizer = Colorizer(loaded)
    failed = 0
    with Progress(disable=not sys.stderr.isatty()) as progress:
        for job in progress.track(jobs, description="coloring"):
            try:
                picture = photo.read_photo(job.source, max_pixels)
                ab = colorizer.colorize(picture.lightness, steps=steps, seed=seed)
                job.target.parent.mkdir(parents=True, exist_ok=True)
                photo.write_photo(picture, ab * saturation, job.target)
            except (photo.PhotoError, OSError) as error:
                failed += 1
                progress.console.print(f"error: {_line(error)}", markup=False, soft_wrap=True)
                continue
            progress.console.print(str(job.target), markup=False, soft_wrap=True, highlight=False)
    if failed:
        raise Failure(f"{failed} of {len(jobs)} photographs could not be colored")


class Failure(ValueError):
    """The command ran and did not do all it was asked."""


def main() -> None:
    """Entry point: usage errors exit with 2, failures with 1, each in one line on stderr."""
    try:
        # Without arguments: the help, which is still a usage error.
        if len(sys.argv) == 1:
            app(["--help"], standalone_mode=False)
            sys.exit(2)
        sys.exit(app(standalone_mode=False) or 0)
    except TyperException as error:
        _die(" ".join(error.format_message().split()), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _die("stopped", 130)
    except (OSError, ValueError, MemoryError) as error:
        _die(_line(error), 1)


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _die(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
