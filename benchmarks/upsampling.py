"""How far enlarged chroma is from the truth near edges, and how long a scan takes.

    python benchmarks/upsampling.py [--pictures FOLDER] [--work-size 128] [--n 27] [--quick]

True chroma of the photographs in FOLDER (those of data/sample that are 500 pixels high, if none is
named) is brought to the network's scale as training does it, and enlarged again: by the program, by
OpenCV's linear interpolation, which is the peer, and by filters that were not chosen. The error is
the root mean square of sqrt(Δa*² + Δb*²) near edges, the pixels within half a small pixel of the
twentieth of a picture where smoothed chroma changes fastest. Then a picture of 12 megapixels is
enlarged, beside the same peer. Writes benchmarks/results/upsampling.json and, from the
photographs of data/sample, docs/pictures/upsampling.jpg.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from colorized import color, photo
from colorized.color import resample
from colorized.color.upsampling import Enlarger, guide_size
from colorized.data import sources
from colorized.inference.colorizer import working_size

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "sample"
CROPS = {"macaw": (130, 380), "citrus": (150, 300), "honey-bee": (150, 200)}
CROP = 200
Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """L* (H, W) and ab (H, W, 2) of a photograph, and its chroma (h, w, 2) as the network's."""

    name: str
    lightness: Plane
    true: Plane
    small: Plane

    def near_edges(self) -> NDArray[np.bool_]:
        smooth = ndimage.gaussian_filter(self.true, (1, 1, 0))
        steep = np.hypot.reduce([g for c in (0, 1) for g in np.gradient(smooth[..., c])])
        reach = max(1, round(len(self.true) / len(self.small) / 2))
        return ndimage.binary_dilation(steep > np.quantile(steep, 0.95), iterations=reach)


def load(path: Path, work_size: int) -> Case:
    rgb = photo.read_rgb(path)
    h, w = working_size(*rgb.shape[:2], work_size)
    lab = color.srgb_to_lab(rgb.astype(np.float32) / 255)
    small = color.srgb_to_lab(resample.resize_rgb(rgb, h, w))[..., 1:]
    return Case(
        path.stem,
        np.ascontiguousarray(lab[..., 0]),
        lab[..., 1:],
        small.reshape(h // 2, 2, w // 2, 2, 2).mean((1, 3)),
    )


def ours(lightness: Plane, small: Plane) -> Plane:
    size = guide_size(*small.shape[:2], *lightness.shape)
    guide = resample.resize_lightness(lightness, *size)
    return Enlarger(guide, small, *lightness.shape).rows(0, len(lightness), lightness)


def linear(lightness: Plane, small: Plane) -> Plane:
    return cv2.resize(small, lightness.shape[::-1], interpolation=cv2.INTER_LINEAR)


def cubic(lightness: Plane, small: Plane) -> Plane:
    return cv2.resize(small, lightness.shape[::-1], interpolation=cv2.INTER_CUBIC)


def guided(lightness: Plane, small: Plane) -> Plane:
    """The fast guided filter (He, Sun, 2015) over 3 × 3 small pixels, ε = 0.001."""

    def box(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    L = torch.from_numpy(resample.resize_lightness(lightness, *small.shape[:2]) / 100)[None, None]
    x = torch.from_numpy(small).permute(2, 0, 1)[:, None]
    slope = (box(L * x) - box(L) * box(x)) / (box(L * L) - box(L) ** 2 + 1e-3)
    level = box(x) - slope * box(L)
    s, m = (
        F.interpolate(box(v), size=lightness.shape, mode="bilinear")[:, 0] for v in (slope, level)
    )
    return (s * torch.from_numpy(lightness / 100) + m).permute(1, 2, 0).numpy()


def bilateral(lightness: Plane, small: Plane) -> Plane:
    """Joint bilateral upsampling (Kopf et al., 2007): 5 × 5, deviations 0.5 pixels and 10 of L*."""
    (H, W), (h, w) = lightness.shape, small.shape[:2]
    L = resample.resize_lightness(lightness, h, w)
    y, x = (np.arange(H) + 0.5) * h / H - 0.5, (np.arange(W) + 0.5) * w / W - 0.5
    total, weights = np.zeros((H, W, 2)), np.full((H, W), 1e-8)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            row, column = np.rint(y).astype(int) + dy, np.rint(x).astype(int) + dx
            near = np.exp(-2 * (row - y) ** 2)[:, None] * np.exp(-2 * (column - x) ** 2)
            row, column = row.clip(0, h - 1), column.clip(0, w - 1)
            like = np.exp(-((L[row][:, column] - lightness) ** 2) / 200) + 1e-4
            total += (near * like)[..., None] * small[row][:, column]
            weights += near * like
    return (total / weights[..., None]).astype(np.float32)


METHODS: dict[str, Callable[[Plane, Plane], Plane]] = {
    "along edges": ours,
    "cubic": cubic,
    "fast guided filter": guided,
    "joint bilateral": bilateral,
}


def quality(cases: list[Case]) -> dict[str, dict[str, float]]:
    """Of each method: error near edges over that of linear interpolation, mean and worst."""
    results: dict[str, dict[str, float]] = {}
    edges = [case.near_edges() for case in cases]

    def errors(method: Callable[[Plane, Plane], Plane]) -> list[float]:
        found = []
        for case, edge in zip(cases, edges, strict=True):
            square = np.square(method(case.lightness, case.small) - case.true).sum(-1)
            found.append(float(np.sqrt(square[edge].mean())))
        return found

    peer = errors(linear)
    print(f"{len(cases)} photographs; linear interpolation: {np.mean(peer):.2f} CIELAB units")
    for name, method in METHODS.items():
        found = errors(method)
        results[name] = {
            "error": float(np.mean(found)),
            "over_linear": float(np.mean(found) / np.mean(peer)),
            "worst_over_linear": max(a / b for a, b in zip(found, peer, strict=True)),
        }
        print(f"  {name}: {results[name]['over_linear']:.3f} × linear, "
              f"worst {results[name]['worst_over_linear']:.2f}", flush=True)  # fmt: skip
    return results | {"linear": {"error": float(np.mean(peer))}}


def speed(case: Case, height: int, repeats: int) -> dict[str, float]:
    """Seconds for a scan of `height` rows: ours after its guide was made, and the peer."""
    width = round(height * case.lightness.shape[1] / len(case.lightness))
    L = resample.resize(case.lightness, height, width).clip(0, 100)
    guide = resample.resize_lightness(L, *guide_size(*case.small.shape[:2], height, width))
    taken: dict[str, list[float]] = {"guide_to_rows": [], "linear": []}
    for _ in range(repeats):
        began = time.perf_counter()
        Enlarger(guide, case.small, height, width).rows(0, height, L)
        between = time.perf_counter()
        linear(L, case.small)
        taken["guide_to_rows"].append(between - began)
        taken["linear"].append(time.perf_counter() - between)
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    megapixels = height * width / 1e6
    ratio = seconds["guide_to_rows"] / seconds["linear"]
    print(f"{megapixels:.1f} MP: {seconds['guide_to_rows']:.2f} s, {ratio:.1f} × linear")
    return {"megapixels": megapixels, "over_linear": ratio, **seconds}


def show(target: Path) -> None:
    """Crops of three photographs: linear | along edges | true."""
    rows = []
    for name, (y, x) in CROPS.items():
        case = load(SAMPLE / "photos" / f"{name}.jpg", 128)
        window = (slice(y, y + CROP), slice(x, x + CROP + 40))
        rows.append(
            np.concatenate(
                [
                    color.recombine(case.lightness, ab)[window]
                    for ab in (linear(case.lightness, case.small),
                               ours(case.lightness, case.small), case.true.copy())
                ],
                axis=1,
            )
        )  # fmt: skip
    Image.fromarray(np.concatenate(rows)).save(target, quality=90, subsampling="4:4:4")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--work-size", type=int, default=128)
    parser.add_argument("--n", type=int, default=27)
    parser.add_argument("--quick", action="store_true", help="three photographs, a small scan")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()

    paths = sources.list_photographs(options.pictures or SAMPLE)
    if options.pictures is None:
        paths = [
            p for p in paths if "archive" not in p.parts and min(photo.read_rgb(p).shape[:2]) >= 500
        ]
    step = max(1, len(paths) // options.n)
    cases = [
        load(path, options.work_size) for path in paths[::step][: 3 if options.quick else options.n]
    ]
    factor = statistics.median(len(case.true) / len(case.small) for case in cases)
    results = {
        "photographs": len(cases),
        "enlarged": factor,
        "quality": quality(cases),
        "speed": speed(cases[0], 600 if options.quick else 3000, 3 if options.quick else 5),
        "threads": torch.get_num_threads(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    name = "upsampling" if options.pictures is None else f"upsampling-{options.pictures.name}"
    (options.out / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    if options.pictures is None and not options.quick:
        show(ROOT / "docs" / "pictures" / "upsampling.jpg")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
