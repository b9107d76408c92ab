"""How the commands speak: results on stdout, errors and warnings on stderr, one line each."""

from __future__ import annotations

import math
import sys
from typing import NoReturn

import typer


class Failure(ValueError):
    """One line for the user; the command cannot do what it was asked."""


def finite(value: float | None) -> float | None:
    """A callback for options that take a number."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"must be finite, got {value}")
    return value


def complain(kind: str, message: str) -> None:
    print(f"{kind}: {message}", file=sys.stderr)


def die(message: str, code: int) -> NoReturn:
    complain("error", message)
    sys.exit(code)
