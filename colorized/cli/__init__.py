"""The command line. Heavy imports are inside the commands, so that --help is fast.

One line per result goes to stdout; errors, warnings and, on a terminal, a progress bar go to
stderr. Usage errors exit with 2, failures with 1, an interrupt with 130.
"""

from __future__ import annotations

import os
import shlex
import sys

import click

from colorized.cli import coloring, workflow
from colorized.cli.messages import die
from colorized.cli.web import web
from colorized.text import line


class _Commands(click.Group):
    def list_commands(self, _: click.Context) -> list[str]:
        return list(self.commands)  # in our order, not by name

    def invoke(self, context: click.Context) -> None:
        try:
            super().invoke(context)
        except KeyboardInterrupt:  # click itself would begin a new line on stderr
            context.exit(130)


def _version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    import hashlib
    import importlib.metadata

    import torch

    from colorized.model.released import RELEASED

    print(f"colorized {importlib.metadata.version('colorized')}")
    known = hashlib.sha256(RELEASED.read_bytes()).hexdigest() if RELEASED.is_file() else "missing"
    print(f"weights {known}")
    print(f"torch {torch.__version__}")
    print(f"device cpu ({torch.backends.cpu.get_cpu_capability()})")
    for i in range(torch.cuda.device_count()):
        print(f"device cuda:{i} ({torch.cuda.get_device_name(i)})")
    if torch.backends.mps.is_available():
        print("device mps")
    context.exit()


@click.group(cls=_Commands, context_settings={"show_default": True})
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    is_eager=True,
    expose_value=False,
    help="Version, weights, torch, devices.",
)
def app() -> None:
    """Color black-and-white photographs with a diffusion model."""


for command in (
    coloring.colorize,
    web,
    workflow.retrain,
    workflow.schedule,
    workflow.promote,
    workflow.rollback,
    workflow.clean,
    workflow.import_run,
    workflow.lineage,
):
    app.add_command(command)


def _forgotten_command(first: str) -> str | None:
    """A hint for the user if a photograph or folder was given in place of a command."""
    from colorized.text import printable

    if first in app.commands:
        return None
    if first.startswith("-") or not (os.path.exists(first) or os.path.splitext(first)[1]):
        return None
    asked = " ".join(shlex.quote(printable(argument)) for argument in sys.argv[1:])
    out = "" if {"-o", "--out"} & set(sys.argv) else " -o colored"
    return f"there is no command {printable(first)}; type: colorized colorize {asked}{out}"


def main() -> None:
    """Entry point: every error is one line on stderr."""
    try:
        # Without arguments: the help, which is still a usage error.
        if len(sys.argv) == 1:
            app(["--help"], standalone_mode=False)
            sys.exit(2)
        code = app(standalone_mode=False) or 0
    except click.ClickException as error:
        if (hint := _forgotten_command(sys.argv[1])) is not None:
            die(hint, error.exit_code)
        die(" ".join(error.format_message().split()), error.exit_code)
    except (OSError, ValueError, RuntimeError, MemoryError, ImportError) as error:
        die(line(error), 1)
    if code == 130:
        die("interrupted; no file is half-written", code)
    sys.exit(code)
