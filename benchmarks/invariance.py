"""Dependence of colors on the size and shape of a picture.

    python benchmarks/invariance.py PICTURES [--weights FILE] [--n 50]

N of the test photographs in PICTURES, which no training sees, their middle at 256 pixels, are
colored whole, cropped to a wide and to a tall half and to the square middle of half the side,
and whole at half and at double size. The median difference of ab on the area that both show is
compared to that between two seeds of the whole picture. It should be no more than 1.2 times as
large: with the same seed, as a user sees it, and with another one, so that what a crop has in
common with the whole cannot be the noise. Writes benchmarks/results/invariance.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from held_back import RESULTS, SIZE, Lab, held_back

from colorized.color import resample
from colorized.inference.colorizer import ChromaSampler
from colorized.model.weights import RELEASED, load_weights

QUARTER = SIZE // 4
TARGET = 1.2
ALL = slice(None)
MIDDLE = slice(QUARTER, SIZE - QUARTER)
CROPS = {"wide": (MIDDLE, ALL), "tall": (ALL, MIDDLE), "square": (MIDDLE, MIDDLE)}
SIDES = {"half": SIZE // 2, "double": 2 * SIZE}


def difference(one: Lab, other: Lab) -> float:
    """Median over the pixels of the distance in the plane of a* and b*."""
    return float(np.median(np.linalg.norm(one - other, axis=-1)))


def compare(L: Lab, colors: Callable[[Lab, int], Lab], seed: int) -> dict[str, float]:
    """The differences of one picture: of two seeds, and of each crop and size, for both seeds."""
    whole = colors(L, seed)
    found = {"seeds": difference(whole, colors(L, seed + 1))}
    for other in (seed, seed + 1):
        suffix = "" if other == seed else "_other_seed"
        for name, box in CROPS.items():
            part = colors(np.ascontiguousarray(L[box]), other)
            found[name + suffix] = difference(part, whole[box])
        for name, side in SIDES.items():
            ab = colors(resample.resize_lightness(L, side, side), other)
            back = np.stack([resample.resize(ab[..., c], SIZE, SIZE) for c in range(2)], axis=-1)
            found[name + suffix] = difference(back, whole)
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--weights", type=Path, default=RELEASED)
    parser.add_argument("--n", type=int, default=50)
    options = parser.parse_args()
    colorizer = ChromaSampler(load_weights(options.weights))

    def colors(L: Lab, seed: int) -> Lab:
        return colorizer.colorize(L, colorizer.defaults.override(seed=seed))

    rows = [
        compare(p.L, colors, 2 * i)
        for i, p in enumerate(held_back(options.pictures, "test", options.n))
    ]
    medians = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
    ratios = {name: value / medians["seeds"] for name, value in medians.items() if name != "seeds"}
    results = {
        "n": len(rows),
        "size": SIZE,
        "steps": colorizer.defaults.steps,
        "guidance": colorizer.defaults.guidance,
        "temperature": colorizer.defaults.temperature,
        "median_difference": medians,
        "ratio_to_seeds": ratios,
        "target_ratio": TARGET,
        "largest_ratio": max(ratios.values()),
    }
    text = json.dumps(results, indent=2) + "\n"
    print(text, end="")
    (RESULTS / "invariance.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
