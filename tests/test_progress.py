"""Progress in a log file: a line in time, whatever a unit of work takes."""

from __future__ import annotations

import io
import re
import threading

import pytest

from colorized import progress
from colorized.progress import Progress, track


class Heard(io.StringIO):
    """A log file that says when a line has come."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        if "\n" in text:
            self.came.set()
        return count

    def wait_for(self, pattern: str) -> None:
        """Wait for such a line; those that were begun before may come first."""
        for _ in range(1000):
            self.came.clear()
            if any(re.fullmatch(pattern, line) for line in self.getvalue().splitlines()):
                return
            assert self.came.wait(60)
        raise AssertionError(self.getvalue()[-1000:])


def test_lines_come_while_a_unit_of_work_lasts() -> None:
    log, others = Heard(), threading.active_count()
    with Progress("training", "steps", 400, seconds=0.01, stream=log) as shown:
        log.wait_for(r"training: 0 of 400 steps")
        shown.begin(100)
        shown.update(110, ", loss 0.2")
        log.wait_for(
            r"training: 110 of 400 steps, [\d.e+]+ (a second|s each), loss 0\.2, [\d:]+ left"
        )
    assert threading.active_count() == others


def test_time_left_is_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress("training", "steps", 400)
    shown.begin(300)  # a resumed training
    now[0] = 20.0
    shown.update(310)
    assert shown.line() == "training: 310 of 400 steps, 2 s each, 3:00 left"
    now[0] = 40.0
    shown.update(380)
    assert shown.line() == "training: 380 of 400 steps, 2 a second, 0:10 left"
    assert Progress("reading", "files", None).line() == "reading: 0 files"
    shown.begin(0)
    now[0] += 7200
    shown.update(100)
    assert shown.line().endswith(", 6:00:00 left")


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([1, 2, 3], "counting", "numbers")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")
