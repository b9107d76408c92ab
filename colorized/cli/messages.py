"""Errors and warnings of the commands, one line each on stderr."""

from __future__ import annotations

import math
import sys
from typing import NoReturn

import click


class Failure(ValueError):
    """One line that says why the command failed."""


def finite(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    """A callback for options that take a number."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"must be finite, got {value}")
    return value


def complain(kind: str, message: str) -> None:
    print(f"{kind}: {message}", file=sys.stderr)


def die(message: str, code: int) -> NoReturn:
    complain("error", message)
    sys.exit(code)
