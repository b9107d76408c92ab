"""Reading `stats.json` and `index.csv` of a folder of LAB shards."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_stats(folder: Path) -> dict[str, Any]:
    """`stats.json` of a folder of shards.

    Raises ValueError when it is missing or damaged.
    """
    path = folder / "stats.json"
    try:
        stats: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not the report of a folder of shards ({error})") from error
    return stats


def read_index(folder: Path, split: str) -> list[dict[str, str]]:
    """The lines of `index.csv` of one split, in the order of its rows."""
    with open(folder / "index.csv", newline="", encoding="utf-8") as file:
        return [line for line in csv.DictReader(file) if line["split"] == split]


def holdout(folder: Path, split: str, count: int) -> NDArray[np.int64]:
    """At most `count` rows of a split, in their order: always the same pictures.

    First the first crop of every picture, then the second, …; among those, in the order of a hash
    of the picture, so that pictures which come or go move few others.
    """
    lines = read_index(folder, split)

    def place(line: dict[str, str]) -> tuple[int, str]:
        digest, crop = line["id"].split("-")
        return int(crop), hashlib.sha256(digest.encode()).hexdigest()

    return np.sort(np.array([int(line["row"]) for line in sorted(lines, key=place)[:count]]))
