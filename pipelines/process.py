"""Running a command of a flow: its output line by line, and its end with all its children."""

from __future__ import annotations

import codecs
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from prefect.exceptions import TerminationSignal

from colorized import tracking
from pipelines import stage

WEBHOOK = "COLORIZED_WEBHOOK_URL"
GRACE_SECONDS = 20.0
"""Time for a stage to write its checkpoint; Prefect kills a canceled flow after 30."""
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def follow(
    command: Sequence[str],
    say: Callable[[str], None],
    seconds: float,
    inherit: Sequence[int] = (),
    variables: Mapping[str, str] | None = None,
) -> int | None:
    """Run `command` in its own process group and call `say` with each line of its output.

    `variables` are added to its environment. The time limit or an exception, such as Ctrl-C, ends
    the whole group: SIGTERM, `GRACE_SECONDS` to write a checkpoint, SIGKILL. Returns the exit code,
    or None if the time limit of `seconds` ended it.
    """
    with subprocess.Popen(
        command,
        cwd=stage.ROOT,
        env=_environment() | dict(variables or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=inherit,
    ) as process:
        assert process.stdout is not None
        late = threading.Event()
        killer = threading.Timer(GRACE_SECONDS, _send, [process.pid, signal.SIGKILL])

        def end() -> None:
            _send(process.pid, signal.SIGTERM)
            killer.start()

        def too_late() -> None:
            late.set()
            end()

        timer = threading.Timer(seconds, too_late)
        timer.start()
        try:
            for line in _lines(process.stdout):
                say(line)
            code = process.wait()
        except BaseException:
            timer.cancel()
            if not late.is_set():
                end()
            _drain(process.stdout, say)
            raise
        finally:
            timer.cancel()
            killer.cancel()
            _send(process.pid, signal.SIGKILL)
    return None if late.is_set() else code


def _drain(stream: IO[bytes], say: Callable[[str], None]) -> None:
    """Read until the last process of the group has ended, ignoring further interrupts."""
    while True:
        try:
            for line in _lines(stream):
                say(line)
            return
        except (KeyboardInterrupt, TerminationSignal):  # of a canceled run, Prefect sends two
            continue


def _send(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _environment() -> dict[str, str]:
    """The environment of a stage: this Python first, no webhook, nothing kept in buffers."""
    values = {name: value for name, value in os.environ.items() if name != WEBHOOK}
    return values | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
    }


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines as they are written, without what they overwrite, without colors and credentials."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    rest = ""
    while chunk := os.read(stream.fileno(), 65536):
        *lines, rest = (rest + decode(chunk)).split("\n")
        yield from filter(None, map(_clean, lines))
    yield from filter(None, [_clean(rest)])


def _clean(text: str) -> str:
    return tracking.redact(ANSI.sub("", text.rstrip("\r").rpartition("\r")[2])).rstrip()
