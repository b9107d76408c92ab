"""What is said to people: one line each, whatever a name or an error holds."""

from __future__ import annotations


def line(error: BaseException) -> str:
    """What an error says, in one line, with the file that it is about."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(text.split()) or type(error).__name__
