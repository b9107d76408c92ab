"""Python in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python(
    *arguments: object, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """What it wrote, and its exit code; it has one thread, and these variables beside ours."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables}, capture_output=True, text=True,
    )  # fmt: skip
