"""One run at a time: the operating system's lock on a file of the project.

The kernel drops the lock when its last holder ends, however it ends, so that no lock is ever stale.
Who holds it stands in the file. A flow takes it once and hands it down: DVC inherits the open file,
so that the lock outlives a killed flow until its last stage has ended; the stages find the flow's
process id in the environment.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil
from filelock import lock_descriptor

NAME = ".colorized.lock"
HELD = "COLORIZED_LOCK_HELD"
ENDING_SECONDS = 60.0
"""How long the last stage of a killed flow is waited for: it writes its checkpoint, then ends."""


class Held(ValueError):
    """One line that says who is running."""


@dataclass
class Lock:
    """The lock, for as long as it is held."""

    file: int | None
    """Its open file, for a child to inherit; None where another process handed the lock down."""
    left: dict[str, str] = field(default_factory=dict)
    """What the last holder noted, if it was killed; empty where it ended by itself."""

    def note(self, **values: str) -> None:
        """Write down what is to be tidied up, should this process be killed."""
        if self.file is not None:
            about = {"pid": str(os.getpid()), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
            os.ftruncate(self.file, 0)
            os.pwrite(self.file, json.dumps(about | values).encode(), 0)


@contextmanager
def take(root: Path) -> Iterator[Lock]:
    """Hold the lock of the project in `root`.

    Where this process or one above it holds it already, nothing is taken. A process that was handed
    the lock is asked to stop, by SIGTERM, when the holder is killed.

    Raises
    ------
    Held
        Another run holds it.
    """
    holder = _above()
    if holder is not None:
        if holder.pid != os.getpid():
            threading.Thread(target=_stop_with, args=[holder], daemon=True).start()
        yield Lock(None)
        return
    file = os.open(root / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        left = _acquire(file)
        held = Lock(file, left)
        held.note()
        os.environ[HELD] = str(os.getpid())
        try:
            yield held
        finally:
            del os.environ[HELD]
            os.ftruncate(file, 0)
    finally:
        os.close(file)


def _above() -> psutil.Process | None:
    """The process that holds the lock and handed it down to this one."""
    pid = os.environ.get(HELD)
    here = psutil.Process()
    return next((p for p in (here, *here.parents()) if str(p.pid) == pid), None)


def _acquire(file: int) -> dict[str, str]:
    """Take the lock; what its last holder left written."""
    deadline = time.monotonic() + ENDING_SECONDS
    while not lock_descriptor(file, blocking=False):
        noted = _read(file)
        pid = noted.get("pid")
        if pid is None or psutil.pid_exists(int(pid)) or time.monotonic() > deadline:
            by = f"process {pid}, since {noted['since']}" if pid else "a process that just began"
            raise Held(f"another run holds {NAME}: {by}")
        time.sleep(0.2)
    return _read(file)


def _read(file: int) -> dict[str, str]:
    try:
        noted: dict[str, str] = json.loads(os.pread(file, 4096, 0))
    except json.JSONDecodeError:  # empty, or being written
        return {}
    return noted


def _stop_with(holder: psutil.Process) -> None:
    """Wait for the holder's end, then ask this process to stop."""
    while _alive(holder):
        time.sleep(0.5)
    # Nobody reads what is printed any more, and an error of that kind must not come before the
    # checkpoint.
    for stream in (1, 2):
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream)
    os.kill(os.getpid(), signal.SIGTERM)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
