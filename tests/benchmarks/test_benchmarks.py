"""Benchmarks start as their texts say, from the project's folder; to run them takes long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(
    path.name
    for path in (ROOT / "benchmarks").glob("*.py")
    if "from held_back" in (text := path.read_text(encoding="utf-8")) and "argparse" in text
)


@pytest.mark.parametrize("name", NAMES)
def test_starts(name: str) -> None:
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: {name}" in done.stdout


def test_some_are_found() -> None:
    assert "quality.py" in NAMES
