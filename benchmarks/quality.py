"""How believable the colors are, on photographs that no training saw.

    python benchmarks/quality.py PHOTOGRAPHS [--plates FOLDER] [--split test] [--n 1000]

PHOTOGRAPHS is the folder the weights were trained on; of the split that `pipelines.release` keeps
from training, the middle squares of N photographs at 256 pixels (smaller ones are enlarged) are
colored with the defaults of the weights. Choose options on `--split val`, report `test`. Measured,
for all and for each kind of picture, with bootstrap intervals of 95 % over the photographs:

* `kid` (of pairs) and `fid` of Inception features against the true colors, and as shares of what
  the gray pictures have. The critic of the finish judges in another network's features;
* `colorfulness_share` of the true pictures', `blotches` against theirs, `delta_e` (CIEDE2000);
* `diversity`: mean distance of the coarse chroma of two seeds, CIELAB units.

Of `film`, the network sees each photograph as a random emulsion and print has it
(`colorized.data.film`), and its colors are laid under the true lightness, so that they alone are
judged. Of PLATES, color-separation plates of 1905 to 1915, the network sees their green exposure,
as an orthochromatic emulsion did, or the blue one. Writes benchmarks/results/quality.json, or
NAME.json with --result NAME; with --sheet FILE a picture of M held-back photographs of people,
indoors and outdoors, and with --strip FILE one of the plates.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from held_back import FEATURES, RESULTS, SIZE, Lab, Photograph, exposure, held_back, plates
from numpy.typing import NDArray

from colorized import color, plots
from colorized.color import resample
from colorized.data import film
from colorized.evaluation import inception, metrics
from colorized.inference.colorizer import ChromaSampler
from colorized.model.weights import RELEASED, load_weights
from colorized.options import SamplingOptions

BATCH = 20
RESAMPLES = 40
DIVERSITY = 200
"""Photographs that are colored again with another seed."""
LEAST = 40
"""Photographs of a kind that is measured by itself."""
EXPOSURES = {"green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
ON_SHEET = ("people", "indoor", "outdoor")

RGB = NDArray[np.uint8]


class Quality:
    """Measures colorings of sets of photographs."""

    def __init__(self, sampler: ChromaSampler, options: SamplingOptions) -> None:
        self.sampler, self.options = sampler, options
        self.extractor = inception.InceptionExtractor()

    def draw(self, seen: Sequence[Lab], first: int) -> list[Lab]:
        """Chroma at the network's scale of what it is shown, with seeds from `first` on."""
        small: list[Lab] = []
        for start in range(0, len(seen), BATCH):
            lights = [self.sampler.shrink(L) for L in seen[start : start + BATCH]]
            options = self.options.override(seed=first + start)
            small.extend(self.sampler.draw(np.stack(lights), options))
        return small

    def features(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        """Inception features, kept from one run to the next."""
        return inception.cached_features(self.extractor, list(images), FEATURES)

    def measure(self, photographs: Sequence[Photograph], seen: Sequence[Lab]) -> dict[str, Any]:
        """All figures of the photographs, colored from what the network is shown of each."""
        began = time.process_time()
        small = self.draw(seen, 0)
        seconds = (time.process_time() - began) / len(seen)
        ab = [self.sampler.enlarge(s, p.L) for s, p in zip(small, photographs, strict=True)]
        again = self.draw(seen[:DIVERSITY], 10**6)
        images = [color.recombine(p.L, c) for p, c in zip(photographs, ab, strict=True)]
        true = [color.recombine(p.L, p.ab) for p in photographs]
        gray = [color.recombine(p.L, np.zeros_like(p.ab)) for p in photographs]
        shown = [color.srgb_to_lab(image / np.float32(255)) for image in images]
        sets = {n: self.features(v) for n, v in (("ours", images), ("true", true), ("gray", gray))}
        kinds = np.array([p.kind for p in photographs])
        rows = {"all": np.arange(len(photographs))}
        rows |= {k: np.flatnonzero(kinds == k) for k in np.unique(kinds)}
        found: dict[str, Any] = {"seconds": round(seconds, 4)}
        for kind, some in rows.items():
            if kind != "all" and len(some) < LEAST:
                continue
            found[kind] = _distances({name: of[some] for name, of in sets.items()})
            ours, real = (
                np.mean([metrics.colorfulness(of[i]) for i in some]) for of in (images, true)
            )
            twice = [i for i in some if i < len(again)]
            found[kind] |= {
                "n": len(some),
                "colorfulness_share": ours / real,
                "blotches": metrics.blotches(
                    [photographs[i].L for i in some],
                    [shown[i][..., 1:] for i in some],
                    [photographs[i].ab for i in some],
                ),
                "delta_e": np.mean([metrics.delta_e(images[i], true[i]) for i in some]),
                "diversity": np.mean([metrics.coarse_diversity(small[i], again[i]) for i in twice]),
            }
        return found

    def color(self, photograph: Photograph, L: Lab, seed: int = 0) -> RGB:
        """The photograph in colors from what the network is shown of it."""
        ab = self.sampler.enlarge(self.draw([L], seed)[0], photograph.L)
        return color.recombine(photograph.L, ab)


def _distances(sets: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """FID and KID of features of ours and of gray against the true ones, with intervals."""
    count = len(sets["true"])
    found: dict[str, Any] = {}
    for name, distance in (("kid", metrics.paired_kid), ("fid", metrics.frechet_distance)):
        ours = distance(sets["ours"], sets["true"])
        gray = distance(sets["gray"], sets["true"])

        def share(
            weights: NDArray[np.float64], distance: Any = distance
        ) -> float:  # of the same resample
            of = [float(distance(sets[n], sets["true"], weights)) for n in ("ours", "gray")]
            return of[0] / of[1]

        rng = np.random.default_rng(0)
        low, high = metrics.interval(share, range(count), RESAMPLES, rng)
        found |= {
            name: ours,
            f"{name}_gray": gray,
            f"{name}_share": ours / gray,
            f"{name}_share_interval": [low, high],
        }
    return found


def _half(rgb: RGB) -> RGB:
    """At half the size."""
    shrunk = resample.resize_rgb(rgb, SIZE // 2, SIZE // 2)
    return np.asarray((255 * shrunk).round().astype(np.uint8))


def rounded(value: Any) -> Any:
    """Five significant digits of every number."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float | np.floating) else value


def on_sheet(photographs: Sequence[Photograph], count: int) -> list[Photograph]:
    """The first of each kind of `ON_SHEET`, equally many."""
    kinds = [[p for p in photographs if p.kind == kind] for kind in ON_SHEET]
    return [p for some in kinds for p in some[: count // len(kinds)]]


def main() -> None:
    """Color, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--plates", type=Path)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--weights", type=Path, default=RELEASED)
    parser.add_argument("--sampler")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--saturation", type=float)
    parser.add_argument("--no-film", action="store_true")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--sheet-pictures", type=int, default=60)
    parser.add_argument("--strip", type=Path)
    parser.add_argument("--result", default="quality", help="name of the JSON file")
    given = parser.parse_args()
    sampler = ChromaSampler(load_weights(given.weights))
    options = sampler.defaults.override(
        sampler=given.sampler,
        steps=given.steps,
        guidance=given.guidance,
        temperature=given.temperature,
        saturation=given.saturation,
    )
    quality = Quality(sampler, options)
    photographs = held_back(given.photographs, given.split, given.n)
    results: dict[str, Any] = {
        "split": given.split,
        "size": SIZE,
        "options": dataclasses.asdict(options),
    }

    def add(name: str, some: Sequence[Photograph], seen: Sequence[Lab]) -> None:
        results[name] = rounded(quality.measure(some, seen))
        print(name, json.dumps(results[name]["all"]), flush=True)
        (RESULTS / f"{given.result}.json").write_text(json.dumps(results, indent=1) + "\n")

    add("clean", photographs, [p.L for p in photographs])
    if not given.no_film:
        seen = [
            film.expose(color.lab_to_linear(p.lab).clip(0, 1), np.random.default_rng([0, i]))
            for i, p in enumerate(photographs)
        ]
        add("film", photographs, seen)
    if given.plates:
        old = plates(given.plates)
        for name, weights in EXPOSURES.items():
            add(f"plates_{name}", old, [exposure(p.lab, weights) for p in old])
        if given.strip:
            shown = [
                [color.recombine(p.L, p.ab)]
                + [quality.color(p, exposure(p.lab, w)) for w in EXPOSURES.values()]
                for p in old
            ]
            small = [[_half(c) for c in row] for row in shown]
            rows = [a + b + c for a, b, c in zip(small[::3], small[1::3], small[2::3], strict=True)]
            plots.save(given.strip, plots.grid(rows, ["true", *EXPOSURES] * 3))
    if given.sheet:
        chosen = on_sheet(photographs, given.sheet_pictures)
        print("sheet:", " ".join(Path(p.name).stem for p in chosen))
        cells = [np.hstack([quality.color(p, p.L), color.recombine(p.L, p.ab)]) for p in chosen]
        wide = [cells[i : i + 5] for i in range(0, len(cells) - len(cells) % 5, 5)]
        plots.save(given.sheet, plots.grid(wide, ["ours, true"] * 5))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
