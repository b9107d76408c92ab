"""What is said to people: one line each, whatever a name or an error holds."""

from __future__ import annotations

import os


def printable(path: str | os.PathLike[str]) -> str:
    """The path in one line, whatever its name holds."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(path))


def line(error: BaseException) -> str:
    """What an error says, in one line, with the file that it is about."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        name = printable(os.fsdecode(error.filename)) if error.filename else ""
        text = f"{name}: {error.strerror}" if name else error.strerror
    return " ".join(text.split()) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether this is an out-of-memory error: torch raises RuntimeErrors that say so in words."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("allocate" in text or "out of memory" in text)
    )
