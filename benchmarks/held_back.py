"""Held-back photographs, which no training uses, for benchmarks."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colorized import color, photo
from colorized.color import resample
from colorized.data import sources

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the stages are not installed

from pipelines.release import CROPS, photographs  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
FEATURES = ROOT / "data" / "features"
SIZE = 256
"""Side the photographs' middle squares are brought to, pixels; smaller ones are enlarged."""
MIN_SIDE = 160

Lab = NDArray[np.float32]


@dataclass(frozen=True)
class Photograph:
    """Its middle square: CIELAB (SIZE, SIZE, 3), and what is in it, where that is known."""

    name: str
    kind: str
    lab: Lab

    @property
    def L(self) -> Lab:
        """Lightness (SIZE, SIZE)."""
        return np.ascontiguousarray(self.lab[..., 0])

    @property
    def ab(self) -> Lab:
        """True chroma (SIZE, SIZE, 2)."""
        return np.ascontiguousarray(self.lab[..., 1:])


def held_back(folder: Path, split: str, count: int, min_side: int = MIN_SIDE) -> list[Photograph]:
    """The first `count` photographs of a split, ordered by their hash.

    They are read as `pipelines.release` reads them, chroma of lossy WebP as it is stored, and
    divided as it divides them, by content hash. Left out are those that are monochrome or whose
    shorter side is below `min_side`. Kinds are read from a file `photographs.csv` in the folder or
    beside it, with the columns `file` and `kind`, if there is one.

    Raises
    ------
    ValueError
        When there are fewer than two.
    """
    kinds: dict[str, str] = {}
    for table in (folder / "photographs.csv", folder.parent / "photographs.csv"):
        if table.exists():
            with table.open(newline="", encoding="utf-8") as file:
                kinds = {line["file"]: line["kind"] for line in csv.DictReader(file)}
            break
    source = photographs(folder)
    names = {
        digest: name
        for name, digest in zip(source.names, source.digests, strict=True)
        if sources.split_of(digest, CROPS.val_share, CROPS.test_share) == split
    }
    found: list[Photograph] = []
    for _, name in sorted(names.items()):
        if len(found) == count:
            break
        path = folder / name
        rgb = source.decode(path.read_bytes(), path)
        if min(rgb.shape[:2]) < min_side:
            continue
        lab = square(rgb)
        if np.linalg.norm(lab[..., 1:], axis=-1).mean() >= CROPS.min_chroma:
            found.append(Photograph(path.name, kinds.get(path.name, "unknown"), lab))
    if len(found) < 2:
        raise ValueError(f"{folder}: holds {len(found)} photographs of the split {split}, needs 2")
    return found


def square(rgb: NDArray[np.uint8], size: int = SIZE) -> Lab:
    """CIELAB (size, size, 3) of the middle of sRGB (H, W, 3), resized in linear light."""
    side = min(rgb.shape[:2])
    y, x = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    middle = np.ascontiguousarray(rgb[y : y + side, x : x + side])
    return color.srgb_to_lab(resample.resize_rgb(middle, size, size))


def plates(folder: Path) -> list[Photograph]:
    """Color-separation plates: the kind is `people` where `plates.csv` says so, else `places`."""
    with (folder / "plates.csv").open(newline="", encoding="utf-8") as file:
        people = {line["name"]: line["has_people"] == "1" for line in csv.DictReader(file)}
    return [
        Photograph(
            path.stem, "people" if people[path.stem] else "places", square(photo.read_rgb(path))
        )
        for path in sources.list_photographs(folder)
    ]


def exposure(lab: Lab, weights: Sequence[float]) -> Lab:
    """L* (H, W) of a plate that sees linear red, green and blue with these weights."""
    light = color.lab_to_linear(lab).clip(0, 1) @ np.array(weights, np.float32)
    return color.luminance_to_lightness(np.ascontiguousarray(light))
