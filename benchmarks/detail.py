"""Of what size is the detail that colors lack: what KID sees on the plates of 1905 to 1915.

    python benchmarks/detail.py PHOTOGRAPHS PLATES LARGER [--n 240]

Chroma of held-back photographs, of plates from their green exposure, and of held-back photographs
in the folder LARGER that need not be enlarged to 256 pixels, colored with the defaults as in
benchmarks/quality.py, is divided by Gaussian blurs into what is finer than σ pixels of 256 and what
is coarser. Measured are

* `bands`: root mean square of chroma between two σ, of the true colors and of ours, CIELAB units;
* `swaps`: KID of pairs, of gray's, of our colors, of ours with the true detail finer than σ, of the
  true colors with our detail finer than σ, and of the true colors brought to the network's scale
  and enlarged as ours are.

Writes benchmarks/results/detail.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from held_back import RESULTS, SIZE, Lab, Photograph, exposure, held_back, plates
from quality import EXPOSURES, Quality, rounded
from scipy.ndimage import gaussian_filter

from colorized import color
from colorized.color import resample
from colorized.evaluation import metrics
from colorized.inference.colorizer import ChromaSampler
from colorized.model.weights import RELEASED, load_weights

BANDS = (0, 2, 4, 8, 16, 32, 64)
"""σ between which bands lie, pixels of 256."""
SWAPPED = (2, 4, 16)


def blurred(ab: Lab, sigma: float) -> Lab:
    """ab (H, W, 2) without what is finer than `sigma` pixels."""
    return gaussian_filter(ab, (sigma, sigma, 0))


def at_scale(sampler: ChromaSampler, photograph: Photograph) -> Lab:
    """True chroma, brought to the network's scale and enlarged as its own is."""
    h, w = sampler.shrink(photograph.L).shape
    return sampler.enlarge(resample.resize(photograph.ab, h // 2, w // 2), photograph.L)


def energy(colors: Sequence[Lab], fine: float, coarse: float) -> float:
    """Root mean square of what lies between two σ."""
    parts = [blurred(ab, fine) - blurred(ab, coarse) for ab in colors]
    return float(np.sqrt(np.mean([np.square(part).mean() for part in parts])))


def measure(
    quality: Quality, photographs: Sequence[Photograph], seen: Sequence[Lab]
) -> dict[str, Any]:
    """Bands and swaps of the photographs, colored from what the network is shown of each."""
    small = quality.draw(seen, 0)
    pairs = zip(small, photographs, strict=True)
    ours = [quality.sampler.enlarge(s, p.L) for s, p in pairs]
    true = [p.ab for p in photographs]

    def features(colors: Sequence[Lab]) -> Any:
        pairs = zip(photographs, colors, strict=True)
        return quality.features([color.recombine(p.L, np.ascontiguousarray(ab)) for p, ab in pairs])

    of_true = features(true)
    of_gray = metrics.paired_kid(features([np.zeros_like(ab) for ab in true]), of_true)

    def kid(colors: Sequence[Lab]) -> float:
        return metrics.paired_kid(features(colors), of_true) / of_gray

    def swap(coarse: Sequence[Lab], fine: Sequence[Lab], sigma: float) -> float:
        pairs = zip(coarse, fine, strict=True)
        return kid([blurred(c, sigma) + f - blurred(f, sigma) for c, f in pairs])

    return {
        "n": len(photographs),
        "bands": [
            {
                "from": fine,
                "to": coarse,
                "true": energy(true, fine, coarse),
                "ours": energy(ours, fine, coarse),
            }
            for fine, coarse in itertools.pairwise(BANDS)
        ],
        "swaps": {
            "ours": kid(ours),
            "ours_with_true_detail": {str(s): swap(ours, true, s) for s in SWAPPED},
            "true_with_our_detail": {str(s): swap(true, ours, s) for s in SWAPPED},
            "true_at_our_scale": kid([at_scale(quality.sampler, p) for p in photographs]),
        },
    }


def main() -> None:
    """Color, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("plates", type=Path)
    parser.add_argument("larger", type=Path)
    parser.add_argument("--n", type=int, default=240, help="photographs of each set, at most")
    parser.add_argument("--out", type=Path, default=RESULTS / "detail.json")
    given = parser.parse_args()
    sampler = ChromaSampler(load_weights(RELEASED))
    quality = Quality(sampler, sampler.defaults)
    old = plates(given.plates)
    new = held_back(given.photographs, "val", given.n)
    # One split of the larger photographs would be too few.
    larger = [p for s in ("val", "test") for p in held_back(given.larger, s, given.n, SIZE)]
    larger = larger[: given.n]
    results = {
        "plates": measure(quality, old, [exposure(p.lab, EXPOSURES["green"]) for p in old]),
        "photographs": measure(quality, new, [p.L for p in new]),
        "larger": measure(quality, larger, [p.L for p in larger]),
    }
    text = json.dumps(rounded(results), indent=1)
    print(text)
    given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
