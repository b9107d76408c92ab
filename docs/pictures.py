"""Archive photographs before and after → docs/pictures/archive-*.jpg, for the README.

python docs/pictures.py [--weights FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from colorized import checkpoint, color, photo
from colorized.colorizer import Colorizer

ROOT = Path(__file__).resolve().parent.parent
ARCHIVE = ROOT / "data" / "sample" / "archive"
PICTURES = ROOT / "docs" / "pictures"
SIDE = 480
GAP = 6
# What `colorized colorize` does when it is told nothing else.
STEPS, SEED, GUIDANCE = 10, 0, 1.5


def before_and_after(path: Path, colorizer: Colorizer) -> Image.Image:
    """The print in its own tone and the same photograph colorized, side by side."""
    lightness = photo.read_photo(path).lightness
    ab = colorizer.colorize(lightness, steps=STEPS, seed=SEED, guidance=GUIDANCE)
    halves = [
        Image.fromarray(rgb) for rgb in (photo.read_rgb(path), color.recombine(lightness, ab))
    ]
    for half in halves:
        half.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    width, height = halves[0].size
    pair = Image.new("RGB", (2 * width + GAP, height), "white")
    for i, half in enumerate(halves):
        pair.paste(half, (i * (width + GAP), 0))
    return pair


def main() -> None:
    """Write one pair for each photograph of the archive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=checkpoint.RELEASED)
    colorizer = Colorizer(checkpoint.load_weights(parser.parse_args().weights))
    PICTURES.mkdir(exist_ok=True)
    for path in sorted(ARCHIVE.glob("*.jpg")):
        target = PICTURES / f"archive-{path.name}"
        before_and_after(path, colorizer).save(target, quality=90, subsampling="4:4:4")
        print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
