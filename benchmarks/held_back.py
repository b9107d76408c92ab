"""The photographs that no training here sees, as what a benchmark measures on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colorized import color, photo
from colorized.color import resample
from colorized.data import sources
from colorized.evaluation import inception, metrics
from colorized.inference.colorizer import ChromaSampler

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the stages are not installed

from pipelines.release import HELD_BACK_PREFIX, SETS  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
FEATURES = ROOT / "data" / "features"
SIZES = {"scenes": 96, "objects": 64, "photos": 256}
"""Sides the pictures of each folder are brought to, pixels."""
BATCH = 25

RGB = NDArray[np.uint8]
Lab = NDArray[np.float32]


def held_back(folder: Path, name: str, count: int, seen: bool = False) -> list[Path]:
    """The first `count` pictures, by their hash, of the split that training never sees.

    With `seen`, of the one that it learns from: how much better it does there.

    Raises
    ------
    ValueError
        When there are fewer than two.
    """
    settings = SETS[name]
    found = []
    for path in sources.list_photographs(folder / name):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        split = sources.split_of(digest, settings.val_share, settings.test_share)
        if path.name.startswith(HELD_BACK_PREFIX):
            split = "test"
        if split == ("train" if seen else "test"):
            found.append((digest, path))
    if len(found) < 2:
        raise ValueError(f"{folder / name}: holds {len(found)} pictures to measure on, needs 2")
    return [path for _, path in sorted(found)[:count]]


def square(path: Path, size: int) -> Lab:
    """CIELAB (size, size, 3) of the picture's middle."""
    rgb = photo.read_rgb(path)
    side = min(rgb.shape[:2])
    y, x = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    return color.srgb_to_lab(resample.resize_rgb(rgb[y : y + side, x : x + side], size, size))


@dataclass
class Pictures:
    """N pictures of one folder: CIELAB, sRGB in true colors and in gray, and their features."""

    name: str
    labs: list[Lab]
    extractor: inception.InceptionExtractor

    def __post_init__(self) -> None:
        size = len(self.labs[0])
        gray = np.zeros((size, size, 2), np.float32)
        self.true = [color.recombine(lab[..., 0], lab[..., 1:]) for lab in self.labs]
        self.mono = [color.recombine(lab[..., 0], gray) for lab in self.labs]
        self.of_true = self.features(self.true)

    @classmethod
    def load(
        cls,
        folder: Path,
        name: str,
        count: int,
        extractor: inception.InceptionExtractor,
        seen: bool = False,
    ) -> Pictures:
        """Up to `count` pictures of `folder`/`name`, held back or `seen` in training."""
        labs = [square(path, SIZES[name]) for path in held_back(folder, name, count, seen)]
        return cls(name, labs, extractor)

    def features(self, images: list[RGB]) -> NDArray[np.float32]:
        """Inception features, kept from one run to the next."""
        return inception.cached_features(self.extractor, images, FEATURES)

    def fid(self, images: list[RGB]) -> float:
        """FID of the pictures in other colors against their true ones."""
        return metrics.frechet_distance(self.features(images), self.of_true)

    def colored(self, colorizer: ChromaSampler, draw: Callable[[Lab, int], Lab]) -> list[RGB]:
        """The pictures in colors of `draw`: L* (B, H, W) and a seed → ab (B, h, w, 2)."""
        images = []
        for start in range(0, len(self.labs), BATCH):
            lights = [lab[..., 0] for lab in self.labs[start : start + BATCH]]
            drawn = draw(np.stack([colorizer.shrink(light) for light in lights]), start)
            images += [
                color.recombine(light, colorizer.enlarge(ab, light))
                for light, ab in zip(lights, drawn, strict=True)
            ]
        return images

    def in_short(self, images: list[RGB]) -> dict[str, float]:
        """FID, KID, and colorfulness as a share of the true pictures'."""
        found = self.measure(images)
        share = found["colorfulness"] / found["colorfulness_real"]
        return {"fid": found["fid"], "kid": found["kid"], "colorfulness_share": share}

    def colorfulness(self, images: list[RGB]) -> float:
        """Mean colorfulness."""
        return float(np.mean([metrics.colorfulness(image) for image in images]))

    def measure(self, images: list[RGB]) -> dict[str, float]:
        """All that is measured of the pictures in other colors, against their true ones."""
        features = self.features(images)
        colorful, real = self.colorfulness(images), self.colorfulness(self.true)
        pairs = list(zip(images, self.true, strict=True))
        return {
            "fid": metrics.frechet_distance(features, self.of_true),
            "kid": metrics.paired_kid(features, self.of_true),
            "colorfulness": colorful,
            "colorfulness_real": real,
            "delta_colorfulness_share": abs(colorful - real) / real,
            "psnr": float(np.mean([metrics.psnr(a, b) for a, b in pairs])),
            "delta_e": float(np.mean([metrics.delta_e(a, b) for a, b in pairs])),
        }
