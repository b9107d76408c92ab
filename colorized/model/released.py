"""Where the weights are that come with the program."""

from __future__ import annotations

from pathlib import Path

RELEASED = Path(__file__).resolve().parents[1] / "released" / "colorized.safetensors"
