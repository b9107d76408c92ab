"""The test “in color already” on color photographs, faded ones, and toned and aged prints.

    python benchmarks/in_color.py FOLDER ... [--n N] [--monochrome FOLDER]

FOLDERs hold photographs in color. Each is measured as it is, and as made into a faded print (the
dyes lose density, cyan most), into prints of seven tones (sepia, selenium, cyanotype, gold, green,
red, split) and into one that has yellowed unevenly, with stains; all of them with noise of a scan,
as JPEG of quality 75. `--monochrome` has real monochrome photographs. The figure is that of
`photo.colorfulness.chroma_beyond_toning`, above 1 for what is in color; of each kind its quantiles
and the share that is taken for color. Writes benchmarks/results/in_color.json.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from colorized.photo.colorfulness import chroma_beyond_toning, mosaic

RESULT = Path(__file__).resolve().parent / "results" / "in_color.json"
RNG = np.random.default_rng(0)
# Colors of black, middle gray and white.
TONES = {
    "sepia": ((20, 12, 6), (140, 110, 75), (250, 238, 215)),
    "selenium": ((25, 14, 24), (128, 116, 122), (246, 244, 240)),
    "cyanotype": ((8, 22, 60), (70, 120, 165), (235, 243, 245)),
    "gold": ((18, 18, 30), (125, 122, 135), (248, 242, 232)),
    "green": ((10, 24, 14), (105, 135, 110), (240, 248, 236)),
    "red": ((40, 8, 6), (165, 95, 80), (252, 228, 214)),
    "split": ((15, 18, 40), (120, 118, 120), (252, 236, 200)),
}


def scanned(levels: np.ndarray) -> np.ndarray:
    """With noise, in 8 bits, through a JPEG."""
    noisy = levels + RNG.normal(0, 4, levels.shape)
    file = io.BytesIO()
    picture = Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    picture.save(file, "JPEG", quality=75)
    with Image.open(file) as image:
        return np.asarray(image)


def toned(gray: np.ndarray, tone: str) -> np.ndarray:
    colors = np.array(TONES[tone], float).T
    return scanned(np.stack([np.interp(gray, (0, 0.5, 1), c) for c in colors], -1))


def yellowed(gray: np.ndarray) -> np.ndarray:
    height, width = gray.shape
    y, x = np.mgrid[:height, :width]
    age = 0.5 + 0.5 * x / width * RNG.uniform(0.3, 1)
    age += 0.4 * np.maximum(np.abs(x / width - 0.5), np.abs(y / height - 0.5))
    for _ in range(12):
        cx, cy = RNG.uniform(0, width), RNG.uniform(0, height)
        radius = RNG.uniform(0.02, 0.12) * max(height, width)
        age += RNG.uniform(0.2, 0.8) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
    paper = np.stack([1 - 0.04 * age, 1 - 0.10 * age, 1 - 0.28 * age], -1)
    return scanned((20 + 215 * gray[..., None]) * paper)


def faded(rgb: np.ndarray) -> np.ndarray:
    density = -np.log10(np.clip(rgb / 255, 0.01, 1))
    density = density * (0.35, 0.6, 0.45) + (0.03, 0.08, 0.14)
    return scanned(255 * 10**-density)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        rgb = image.convert("RGB")
        rgb.thumbnail((512, 512))
        return np.asarray(rgb)


def photographs(folders: Iterable[Path]) -> list[Path]:
    suffixes = (".jpg", ".jpeg", ".png")
    return sorted(p for f in folders for p in f.rglob("*") if p.suffix.lower() in suffixes)


def summary(values: list[float]) -> dict[str, float]:
    low, median, high = np.quantile(values, (0.02, 0.5, 0.98))
    found = {"p2": low, "median": median, "p98": high, "max": max(values)}
    taken = float(np.mean(np.array(values) > 1))
    rounded = {k: round(float(v), 3) for k, v in found.items()}
    return {"n": len(values), **rounded, "taken_for_color": round(taken, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--monochrome", type=Path)
    parser.add_argument("--n", type=int, default=10_000, help="of the photographs in color, evenly")
    arguments = parser.parse_args()
    figures: dict[str, list[float]] = {}

    def add(kind: str, rgb: np.ndarray) -> None:
        figures.setdefault(kind, []).append(chroma_beyond_toning(mosaic(rgb)))

    paths = photographs(arguments.folders)
    for path in paths[:: max(1, -(-len(paths) // arguments.n))]:
        rgb = read(path)
        gray = np.asarray(Image.fromarray(rgb).convert("L")) / 255
        add("color", rgb)
        add("faded", faded(rgb))
        add("yellowed", yellowed(gray))
        for tone in TONES:
            add(tone, toned(gray, tone))
    for path in photographs([arguments.monochrome] if arguments.monochrome else []):
        add("monochrome", read(path))
    result = {k: summary(v) for k, v in figures.items()}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
