"""One run at a time: the operating system's lock on a file of the project.

The kernel releases the lock when its last holder ends, in whatever way, so a lock is never stale.
The file names the holder. A flow takes the lock once for its children: DVC inherits the open file,
so that the lock outlives a killed flow until its last stage has ended, and the stages find the
flow's process id in the environment.
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
"""Time for the last stage of a killed flow to write its checkpoint and end."""


class Held(ValueError):
    """One line that names the holder of the lock."""


@dataclass
class Lock:
    """The lock, for as long as it is held."""

    file: int | None
    """Its open file, for a child to inherit; None if a parent process holds the lock."""
    left: dict[str, str] = field(default_factory=dict)
    """The notes of the last holder, if it was killed; otherwise empty."""

    def note(self, **values: str) -> None:
        """Note what must be cleaned up if this process is killed."""
        if self.file is not None:
            about = {"pid": str(os.getpid()), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
            os.ftruncate(self.file, 0)
            os.pwrite(self.file, json.dumps(about | values).encode(), 0)


@contextmanager
def take(root: Path) -> Iterator[Lock]:
    """Hold the lock of the project in `root`.

    Nothing is taken if this process or a parent holds it already. A child of the holder gets
    SIGTERM when the holder is killed. Raises Held: another run holds it.
    """
    here = psutil.Process()
    above = (here, *here.parents())
    holder = next((p for p in above if str(p.pid) == os.environ.get(HELD)), None)
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


def _acquire(file: int) -> dict[str, str]:
    """Take the lock; the notes of its last holder."""
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
    # The pipe has no reader any more, and a broken pipe must not end the process before it has
    # written its checkpoint.
    for stream in (1, 2):
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream)
    os.kill(os.getpid(), signal.SIGTERM)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
