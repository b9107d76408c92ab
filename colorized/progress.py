"""Progress on stderr: a bar on a terminal, a line every half a minute in a log file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

T = TypeVar("T")
SECONDS = 30.0
"""Between two lines of a log, and before the first."""


class Progress:
    """Progress of `total` units of work: how many are done, the rate, the time left.

    As a context manager it is shown until the block ends, however long a unit takes.

    Parameters
    ----------
    what
        Names the work in a word or two.
    unit
        Of what is counted, such as "crops".
    total
        None where it is not known.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        total: float | None,
        seconds: float | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self.what, self.unit, self.total = what, unit, total
        self.stream = stream or sys.stderr
        self._seconds = SECONDS if seconds is None else seconds
        self._done = self._first = 0.0
        self._note = ""
        self._began = time.monotonic()
        self.begun = False
        """Whether `begin` or `update` was called."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        if self.stream and self.stream.isatty():  # one that was closed is None
            self._bar = Bar(
                TextColumn(self.what),
                BarColumn(),
                TextColumn("{task.fields[count]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(file=self.stream),
                redirect_stdout=bool(sys.stdout and sys.stdout.isatty()),
            )
            self._bar.add_task("", total=self.total, completed=int(self._done), count=self._count())
            self._bar.start()
        else:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()
        else:
            self._thread.join()

    @property
    def done(self) -> float:
        """How many units are done."""
        return self._done

    def begin(self, done: float) -> None:
        """Set how many units were done before; they do not count for the rate."""
        self.begun = True
        self._first = self._done = done
        self._began = time.monotonic()

    def update(self, done: float, note: str = "") -> None:
        """Set how many units are done; `note` is shown with it."""
        self.begun = True
        self._done, self._note = done, note
        if self._bar is not None:
            task = self._bar.tasks[0]
            self._bar.update(task.id, completed=done, count=self._count())

    def advance(self, units: float = 1) -> None:
        """Add units that are done."""
        self.update(self._done + units, self._note)

    def line(self) -> str:
        """A line of the log: `coloring: 120 of 234 crops, 3.2 a second, 0:35 left`."""
        return f"{self.what}: {self._count()}{self._left()}"

    def _count(self) -> str:
        of = "" if self.total is None else f" of {self.total:.0f}"
        elapsed = time.monotonic() - self._began
        rate = (self._done - self._first) / elapsed if elapsed > 0 else 0.0
        speed = ""
        if rate > 0:
            speed = f", {rate:.3g} a second" if rate >= 1 else f", {1 / rate:.3g} s each"
        return f"{self._done:.0f}{of} {self.unit}{speed}{self._note}"

    def _left(self) -> str:
        done = self._done - self._first
        if self.total is None or done <= 0:
            return ""
        left = (time.monotonic() - self._began) / done * (self.total - self._done)
        minutes, seconds = divmod(round(max(0.0, left)), 60)
        hours, minutes = divmod(minutes, 60)
        return f", {f'{hours}:{minutes:02}' if hours else minutes}:{seconds:02} left"

    def _speak(self) -> None:
        while not self._ended.wait(self._seconds):
            print(self.line(), file=self.stream, flush=True)


def track(items: Iterable[T], what: str, unit: str, total: float | None = None) -> Iterator[T]:
    """The items, with their progress; `total` is how many there are, by default their length."""
    sized: Any = items
    if total is None and hasattr(items, "__len__"):
        total = len(sized)
    with Progress(what, unit, total) as progress:
        for item in items:
            yield item
            progress.advance()
