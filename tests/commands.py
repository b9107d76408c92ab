"""Python in a process of its own, and waiting for what one does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def python(
    *arguments: object, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """What it wrote, and its exit code; it has one thread, and these variables beside ours."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables}, capture_output=True, text=True,
    )  # fmt: skip


def until(found: Callable[[], Any], seconds: float = 120, what: str = "it") -> Any:
    """What `found` gives, as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return value
