"""Progress in a log file: a line in time, whatever a unit of work takes."""

from __future__ import annotations

import io
import queue
import re

import pytest

from colorized import progress
from colorized.progress import Progress, track


class Log(io.TextIOBase):
    """A log file whose lines can be waited for."""

    def __init__(self) -> None:
        self.lines: queue.Queue[str] = queue.Queue()
        self._text = ""

    def write(self, text: str) -> int:
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            self.lines.put(line)
        return len(text)

    def next_line(self) -> str:
        return self.lines.get(timeout=60)


def test_lines_come_while_a_unit_of_work_lasts() -> None:
    log = Log()
    with Progress("training", "steps", 400, seconds=0.01, stream=log) as shown:
        assert log.next_line() == "training: 0 of 400 steps"
        shown.begin(100)
        shown.update(110, ", loss 0.2")
        line = ""
        while "110" not in line or "loss" not in line:  # others were begun before
            line = log.next_line()
    assert re.fullmatch(
        r"training: 110 of 400 steps, [\d.e+]+ (a second|s each), loss 0\.2, [\d:]+ left", line
    )
    assert not shown._thread.is_alive()


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
