"""Accuracy of hints, their effect on the rest of the picture, and their spread over a surface.

    python benchmarks/hints.py [--pictures FOLDER] [--n 12] [--quick]

Photographs of FOLDER (data/sample, if none is named) are colored without hints, with five hints at
random points in their true colors, and with five in random ones. CIEDE2000, by scikit-image on the
8-bit result, is taken at the hints, and over the rest of the picture against its true colors.

Then one hint of an odd color is given on each of seven surfaces, which scikit-image floods from
the lightness alone. How far the rest of the surface moves toward the hint, and how far
everything else, is told as a share of how far the hint itself moves.

Of every photograph sixteen colorings are drawn as well, and eight picked: whether the first is
nearer to the truth than colorings are in the mean, whether those picked differ more than any do,
and whether colorings disagree where they are wrong. Writes benchmarks/results/hints.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import skimage.color
import skimage.filters
import skimage.segmentation
from numpy.typing import NDArray

from colorized import color, photo
from colorized.color import resample
from colorized.data import sources
from colorized.inference.candidates import pick
from colorized.inference.colorizer import ChromaSampler
from colorized.inference.hints import Hints, Point
from colorized.model.weights import RELEASED, load_weights

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "sample"
RADIUS, POINTS, DRAWN, PICKED = 0.02, 5, 16, 8
# Where a surface is, as shares of width and height.
SURFACES = {
    "photos/macaw": (0.55, 0.45),
    "photos/citrus": (0.45, 0.45),
    "photos/roebling-bridge": (0.5, 0.15),
    "photos/panda": (0.6, 0.4),
    "photos/grace-hopper": (0.3, 0.85),
    "photos/astronaut": (0.25, 0.75),
    "photos-sharealike/bridge": (0.5, 0.2),
}
ODD = "#803090"


def ciede2000(
    L: NDArray[np.float32], ab: NDArray[np.float32], wanted: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(H, W): the 8-bit result of L and ab against chroma `wanted` at the same L."""
    result = skimage.color.rgb2lab(color.recombine(L, ab))
    return skimage.color.deltaE_ciede2000(result, np.concatenate([L[..., None], wanted], axis=-1))


def points(rgb: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Hints, Hints]:
    """Hints at the same random points, in true and in random colors."""
    true, odd = [], []
    for x, y in rng.uniform(0.05, 0.95, (POINTS, 2)):
        at = Hints((Point(x=x, y=y, radius=RADIUS, color="#000000"),)).rasterize(
            np.zeros(rgb.shape[:2], np.float32)
        )
        mean = rgb[at.share > 0.5].mean(axis=0).round().astype(int)
        for found, value in ((true, mean), (odd, rng.integers(0, 256, 3))):
            red, green, blue = value
            found.append(Point(x=x, y=y, radius=RADIUS, color=f"#{red:02x}{green:02x}{blue:02x}"))
    return Hints(tuple(true)), Hints(tuple(odd))


def of_hints(colorizer: ChromaSampler, pictures: list[NDArray[np.uint8]]) -> dict[str, float]:
    rng = np.random.default_rng(0)
    how = colorizer.defaults
    found: dict[str, list[float]] = {}
    for i, rgb in enumerate(pictures):
        lab = color.srgb_to_lab(rgb.astype(np.float32) / 255)
        L, true_ab = np.ascontiguousarray(lab[..., 0]), np.ascontiguousarray(lab[..., 1:])
        true, odd = points(rgb, rng)
        for name, given in (("none", None), ("true", true), ("odd", odd)):
            ab = colorizer.colorize(L, how.override(seed=i), hints=given)
            rest = (given or true).rasterize(L).share == 0
            found.setdefault(f"elsewhere_{name}", []).append(
                float(ciede2000(L, ab, true_ab)[rest].mean())
            )
            for told, hints in (("true", true), ("odd", odd)):
                if given is None or given is hints:
                    known = hints.rasterize(L)
                    at = ciede2000(L, ab, known.ab)[known.share > 0.5].mean()
                    found.setdefault(
                        f"at_{told}_hints_{'without' if given is None else 'with'}", []
                    ).append(float(at))
    return {name: float(np.mean(values)) for name, values in found.items()} | {
        "at_hints_worst_photograph": max(found["at_true_hints_with"] + found["at_odd_hints_with"])
    }


def of_surfaces(colorizer: ChromaSampler, count: int) -> dict[str, dict[str, float]]:
    how = colorizer.defaults
    results = {}
    for name, (x, y) in list(SURFACES.items())[:count]:
        L = color.lightness(photo.read_rgb(SAMPLE / f"{name}.jpg").astype(np.float32) / 255)
        seed = (int(y * L.shape[0]), int(x * L.shape[1]))
        flooded = skimage.segmentation.flood(
            skimage.filters.gaussian(L / 100, 2), seed, tolerance=0.1
        )
        hints = Hints((Point(x=x, y=y, radius=0.03, color=ODD),))
        near = hints.rasterize(L).share > 0
        shift = colorizer.colorize(L, how, hints=hints) - colorizer.colorize(L, how)
        along = shift[near].mean(axis=0)
        toward = shift @ (along / np.square(along).sum())
        results[Path(name).name] = {
            "surface": float(toward[flooded & ~near].mean()),
            "elsewhere": float(toward[~flooded].mean()),
        }
    return results


def of_candidates(colorizer: ChromaSampler, pictures: list[NDArray[np.uint8]]) -> dict[str, float]:
    how = colorizer.defaults
    found: dict[str, list[float]] = {}
    for rgb in pictures:
        lab = color.srgb_to_lab(rgb.astype(np.float32) / 255)
        small = colorizer.shrink(np.ascontiguousarray(lab[..., 0]))
        ab = colorizer.draw(small[None].repeat(DRAWN, 0), how)
        picked = pick(ab, range(DRAWN), PICKED)
        true = resample.resize(np.ascontiguousarray(lab[..., 1:]), *ab.shape[1:3])
        errors = np.linalg.norm(ab - true, axis=-1)
        of_picked = np.linalg.norm(picked.ab - true, axis=-1).mean(axis=(1, 2))

        def apart(ab: NDArray[np.float32]) -> float:
            return float(
                np.mean([np.linalg.norm(a - b, axis=-1).mean() for a, b in combinations(ab, 2)])
            )

        for name, value in {
            "first": of_picked[0],
            "mean": errors.mean(),
            "best_picked": of_picked.min(),
            "apart_picked": apart(picked.ab),
            "apart_any": apart(ab),
            "correlation": np.corrcoef(picked.uncertainty.ravel(), errors.mean(axis=0).ravel())[
                0, 1
            ],
            "first_better": float(of_picked[0] < errors.mean()),
        }.items():
            found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=Path, default=SAMPLE / "photos")
    parser.add_argument("--weights", type=Path, default=RELEASED)
    parser.add_argument("--n", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="two photographs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()

    n = 2 if options.quick else options.n
    colorizer = ChromaSampler(load_weights(options.weights))
    paths = sources.list_photographs(options.pictures)
    pictures = [photo.read_rgb(path) for path in paths[:: max(1, len(paths) // n)][:n]]
    results = {
        "photographs": len(pictures),
        "options": dataclasses.asdict(colorizer.defaults),
        "hints": of_hints(colorizer, pictures),
        "surfaces": of_surfaces(colorizer, 2 if options.quick else len(SURFACES)),
        "candidates": of_candidates(colorizer, pictures),
    }
    print(json.dumps(results, indent=2))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "hints.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
