"""How believable the colors are on photographs the released weights were never trained on.

    python benchmarks/quality.py PICTURES [--weights FILE] [--n 250] [--steps 10] [--guidance 1.5]

PICTURES holds the folders `scenes`, `objects` and `photos`; up to N of each are taken, which
`pipelines.release` holds back. They are brought to 96, 64 and 256 pixels, reduced to lightness and
colored; FID, KID and the rest are against the same pictures' true colors, with the monochrome
pictures as the peer that any colors must beat. Writes benchmarks/results/quality.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colorized import checkpoint, color, metrics, photo, picture, resample, sources
from colorized.colorizer import Colorizer
from pipelines.release import HELD_BACK_PREFIX, SETS

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"scenes": 96, "objects": 64, "photos": 256}
FEATURES = ROOT / "data" / "features"


def held_back(folder: Path, name: str, count: int) -> list[Path]:
    """The first `count` pictures, by their hash, of the split that training never sees."""
    settings = SETS[name]
    found = []
    for path in sources.list_photographs(folder / name):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        split = sources.split_of(digest, settings.val_share, settings.test_share)
        if split == "test" or path.name.startswith(HELD_BACK_PREFIX):
            found.append((digest, path))
    return [path for _, path in sorted(found)[:count]]


def square(path: Path, size: int) -> NDArray[np.float32]:
    """CIELAB (size, size, 3) of the picture's middle."""
    rgb = photo.read_rgb(path)
    side = min(rgb.shape[:2])
    y, x = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    return color.srgb_to_lab(resample.resize_rgb(rgb[y : y + side, x : x + side], size, size))


def main() -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--weights", type=Path, default=checkpoint.RELEASED)
    parser.add_argument("--n", type=int, default=250)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()

    colorizer = Colorizer(checkpoint.load_weights(options.weights))
    extractor = metrics.InceptionExtractor()
    results: dict[str, dict[str, float]] = {}
    for name, size in SIZES.items():
        labs = [square(path, size) for path in held_back(options.pictures, name, options.n)]
        gray = np.zeros((size, size, 2), np.float32)
        true = [color.recombine(lab[..., 0], lab[..., 1:]) for lab in labs]
        mono = [color.recombine(lab[..., 0], gray) for lab in labs]
        ours = [
            color.recombine(
                lab[..., 0],
                colorizer.colorize(
                    lab[..., 0], steps=options.steps, seed=i, guidance=options.guidance
                ),
            )
            for i, lab in enumerate(labs)
        ]
        of_true = metrics.cached_features(extractor, true, FEATURES)
        of_mono = metrics.cached_features(extractor, mono, FEATURES)
        of_ours = metrics.cached_features(extractor, ours, FEATURES)
        fid = metrics.frechet_distance(of_ours, of_true)
        fid_mono = metrics.frechet_distance(of_mono, of_true)
        results[name] = {
            "n": len(labs),
            "size": size,
            "fid": fid,
            "fid_monochrome": fid_mono,
            "fid_over_monochrome": fid / fid_mono,
            "kid": metrics.kid(of_ours, of_true, 50, len(labs) // 2, np.random.default_rng(0))[0],
            "colorfulness": float(np.mean([metrics.colorfulness(x) for x in ours])),
            "colorfulness_real": float(np.mean([metrics.colorfulness(x) for x in true])),
            "delta_e": float(
                np.mean([metrics.delta_e(a, b) for a, b in zip(ours, true, strict=True)])
            ),
        }
        print(name, json.dumps({k: round(v, 4) for k, v in results[name].items()}), flush=True)
        rows = [[mono[i], ours[i], true[i]] for i in range(min(8, len(labs)))]
        picture.save_png(
            options.out / f"quality-{name}.png", picture.grid(rows, ["mono", "model", "true"])
        )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "quality.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
