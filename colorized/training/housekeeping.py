"""Checkpoints of trainings that came to their end: the last few are kept."""

from __future__ import annotations

import shutil
from pathlib import Path

from colorized.training.recipe import FINISHED


def remove_finished(checkpoints: Path, keep: int, dry_run: bool = False) -> list[str]:
    """Remove folders of checkpoints but for the `keep` trainings that ended last; a line for each.

    Those of trainings that were stopped stay, for they can be gone on with.
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
