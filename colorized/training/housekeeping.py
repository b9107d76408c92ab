"""Removal of the checkpoints of finished trainings."""

from __future__ import annotations

import shutil
from pathlib import Path

from colorized.training.recipe import FINISHED


def remove_finished(checkpoints: Path, keep: int, dry_run: bool = False) -> list[str]:
    """Remove the checkpoints of all but the `keep` newest finished trainings; one line for each.

    Those of interrupted trainings stay: they can be resumed.
    """
    ended = sorted(
        (path.parent for path in checkpoints.glob(f"*/{FINISHED}")),
        key=lambda folder: (folder / FINISHED).stat().st_mtime,
        reverse=True,
    )
    lines = []
    for folder in ended[keep:]:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if not dry_run:
            shutil.rmtree(folder)
        lines.append(f"{folder}: {size / 1e6:.0f} MB")
    return lines
