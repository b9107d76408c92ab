"""The command line. Heavy imports happen inside the commands, so that --help is instant.

One line per result goes to stdout, to be piped; errors, warnings and, on a terminal, a progress
bar go to stderr. Usage errors exit with 2, failures with 1, an interrupt with 130.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.exceptions import TyperException

if TYPE_CHECKING:
    import torch

    from colorized.checkpoint import Weights

SAMPLER = "dpm_solver_pp_2m"

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Failure(ValueError):
    """One line for the user; the command cannot do what it was asked."""


def _version(asked: bool) -> None:
    if asked:
        print(f"colorized {importlib.metadata.version('colorized')}")
        raise typer.Exit


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise typer.BadParameter(f"must be finite, got {value}")
    return value


@app.callback()
def _commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which it is.")
    ] = False,
) -> None:
    """Color black-and-white photographs with a diffusion model."""


@app.command()
def colorize(
    inputs: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the colored photographs.")],
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps: more are slower.")] = 10,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Another gives other plausible colors.")
    ] = 0,
    saturation: Annotated[
        float, typer.Option(min=0, max=4, callback=_finite, help="Chroma is multiplied by this.")
    ] = 1.0,
    guidance: Annotated[
        float,
        typer.Option(
            min=0,
            max=10,
            callback=_finite,
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
    ] = 100_000_000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Color photographs at their own resolution.

    An output keeps its input's name and format; a format that cannot hold color becomes PNG. Of a
    folder the tree is kept.
    """
    from rich.console import Console
    from rich.progress import Progress

    from colorized import batch, devices, marks, photo
    from colorized.colorizer import Colorizer

    jobs = batch.plan(inputs, out, overwrite)
    loaded, name, weights_sha256 = _load(weights, devices.open_device(device))
    if steps > loaded.config.T:
        raise typer.BadParameter(
            f"must not exceed {loaded.config.T}, got {steps}", param_hint="--steps"
        )
    colorizer = Colorizer(loaded)
    failed = 0
    with Progress(
        console=Console(stderr=True),
        # A stream that was closed is None.
        disable=not (sys.stderr and sys.stderr.isatty()),
        redirect_stdout=bool(sys.stdout and sys.stdout.isatty()),
    ) as progress:
        for job in progress.track(jobs, description="coloring"):
            try:
                picture = photo.read_photo(job.source, max_pixels)
                ab = colorizer.colorize(
                    picture.lightness,
                    steps=steps,
                    seed=seed,
                    sampler=SAMPLER,
                    guidance=guidance,
                    saturation=saturation,
                )
                made = marks.Marks(
                    model=name,
                    weights_sha256=weights_sha256,
                    original_sha256=_sha256(job.source),
                    data_sha256=str(loaded.about.get("data_sha256", "")),
                    sampler=SAMPLER,
                    seed=seed,
                    steps=steps,
                    guidance=guidance,
                    saturation=saturation,
                )
                job.target.parent.mkdir(parents=True, exist_ok=True)
                xmp = marks.for_copy(made, picture, job.target)
                photo.write_photo(picture, ab, job.target, xmp)
            except (photo.PhotoError, OSError) as error:
                failed += 1
                _complain("error", _line(error))
            except (MemoryError, RuntimeError, ValueError) as error:
                failed += 1
                why = _line(error)
                # Where memory lacks, torch raises a RuntimeError that says so in many lines.
                if isinstance(error, MemoryError) or "allocate" in why:
                    why = f"too little memory on {device}; a smaller copy needs less"
                _complain("error", f"{photo.printable(job.source)}: {why}")
            else:
                for note in picture.notes:
                    _complain("warning", f"{photo.printable(job.source)}: {note}")
                print(photo.printable(job.target), flush=True)
    if failed:
        if len(jobs) > 1:
            _complain("error", f"{failed} of {len(jobs)} photographs could not be colored")
        raise typer.Exit(1)


@app.command()
def retrain(
    force: Annotated[
        bool, typer.Option("--force", help="Train, even if nothing changed since last time.")
    ] = False,
    stage_hours: Annotated[
        float, typer.Option(min=0, callback=_finite, help="A stage is ended after this long.")
    ] = 48.0,
) -> None:
    """Run the pipeline once, now, as the schedule does: a Prefect flow."""
    _enter_project()
    from pipelines import flows

    state = flows.retrain(force, stage_hours, return_state=True)
    if not state.is_completed():
        raise Failure(state.message or state.name)
    print(state.message)


@app.command()
def schedule(
    cron: Annotated[str, typer.Option(help='When to retrain: "0 3 * * 0" is Sundays at 3.')],
    name: Annotated[str, typer.Option(help="What Prefect calls it.")] = "weekly",
    timezone: Annotated[str, typer.Option(help="Of the hours in --cron.")] = "UTC",
    force: Annotated[
        bool, typer.Option("--force", help="Train, even if nothing changed since last time.")
    ] = False,
) -> None:
    """Retrain on a schedule, from this machine, until Ctrl-C."""
    _enter_project()
    from pipelines import flows

    try:
        flows.schedule(cron, name, timezone, force)
    except flows.BadSchedule as error:
        raise typer.BadParameter(str(error)) from error


def _enter_project() -> None:
    """Make `pipelines` importable: it belongs to the project's folder, not to the package."""
    if not Path("pipelines", "flows.py").is_file():
        raise Failure("run this in the project's folder")
    sys.path.insert(0, str(Path.cwd()))


@app.command()
def promote(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure and judge; change nothing.")
    ] = False,
) -> None:
    """Make the newly trained weights the champion, if they are better than it.

    Says whether they are, and why.
    """
    _enter_project()
    from pipelines import promote

    verdict = promote.promote(Path.cwd(), dry_run)
    promoted = "would be promoted" if dry_run else "promoted"
    print(f"{promoted if verdict.promoted else 'not promoted'}: {'; '.join(verdict.reasons)}")


@app.command()
def rollback() -> None:
    """Make the champion before this one the champion again."""
    _enter_project()
    from pipelines import promote

    now, before = promote.rollback(Path.cwd())
    print(f"champion: version {now.number}; previous: version {before.number}")


@app.command()
def lineage(
    photograph: Annotated[Path, typer.Argument(help="A photograph that was colored.")],
) -> None:
    """Say what colored a photograph: weights, training run, commit, data, parameters.

    Works in the project's folder, and with what MLFLOW_TRACKING_URI names.
    """
    from colorized import lineage

    for fact in lineage.trace(photograph, Path.cwd()):
        print(fact)


def _load(given: str | None, device: torch.device) -> tuple[Weights, str, str]:
    """The weights, their name, and the sha256 of their file."""
    from colorized import checkpoint, tracking

    if given is not None and given.startswith(("models:/", "runs:/")):
        with tracking.Registry(Path.cwd()).weights(given) as path:
            return checkpoint.load_weights(path, device), given, _sha256(path)
    path = checkpoint.RELEASED if given is None else Path(given)
    if given is None and not path.is_file():
        raise Failure(f"the released weights are not at {path}: name a file with --weights")
    return checkpoint.load_weights(path, device), path.name, _sha256(path)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Entry point: whatever goes wrong is said in one line on stderr."""
    try:
        # Without arguments: the help, which is still a usage error.
        if len(sys.argv) == 1:
            app(["--help"], standalone_mode=False)
            sys.exit(2)
        code = app(standalone_mode=False) or 0
    except TyperException as error:
        _die(" ".join(error.format_message().split()), error.exit_code)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        _die(_line(error), 1)
    if code == 130:
        _die("interrupted; no file is half-written", code)
    sys.exit(code)


def _line(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(text.split()) or type(error).__name__


def _complain(kind: str, message: str) -> None:
    print(f"{kind}: {message}", file=sys.stderr)


def _die(message: str, code: int) -> NoReturn:
    _complain("error", message)
    sys.exit(code)
