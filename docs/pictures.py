"""Pictures for the README, made with the released weights, into docs/pictures/.

python docs/pictures.py [--weights FILE]

Archive photographs before and after, archive-*.jpg; several colorings of one photograph beside the
map of where they disagree, candidates.jpg; one photograph with three different hints, hints.jpg;
twelve photographs of the test split as they come, twelve.jpg.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from PIL import Image

from colorized import color, photo, plots
from colorized.color import resample
from colorized.data import sources
from colorized.inference import contact_sheet
from colorized.inference.colorizer import ChromaSampler
from colorized.inference.hints import Hints, Point
from colorized.model.weights import RELEASED, load_weights
from colorized.params import load_params

ROOT = Path(__file__).resolve().parent.parent
ARCHIVE = ROOT / "data" / "sample" / "archive"
PICTURES = ROOT / "docs" / "pictures"
EXAMPLE = ROOT / "data" / "sample" / "photos" / "macaw.jpg"
HINT = (0.55, 0.45)  # on the bird, as shares of width and height
HINT_COLORS = ("#a02030", "#2050a0", "#307030")
SIDE = 480
GAP = 6


def before_and_after(path: Path, colorizer: ChromaSampler) -> Image.Image:
    """The print in its own tone and the same photograph colorized, side by side."""
    lightness = photo.read_photo(path).lightness
    ab = colorizer.colorize(lightness)
    halves = [
        Image.fromarray(rgb) for rgb in (photo.read_rgb(path), color.recombine(lightness, ab))
    ]
    for half in halves:
        half.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return _beside(halves)


def several(path: Path, colorizer: ChromaSampler) -> Image.Image:
    """A contact sheet of five candidates, and the map of where they disagree."""
    guide = colorizer.guide(photo.read_photo(path).lightness)
    drawn = colorizer.candidates(guide, 5)
    sheet = Image.fromarray(contact_sheet.contact_sheet(drawn, guide)).reduce(2)
    map_ = Image.fromarray(contact_sheet.uncertainty_map(drawn.uncertainty, *guide.shape))
    map_.thumbnail((SIDE, sheet.height), Image.Resampling.LANCZOS)
    return _beside([sheet, map_])


def hinted(path: Path, colorizer: ChromaSampler) -> Image.Image:
    """One point in three colors; a ring shows where."""
    lightness = photo.read_photo(path).lightness
    pictures = []
    for color_ in HINT_COLORS:
        hints = Hints((Point(x=HINT[0], y=HINT[1], radius=0.03, color=color_),))
        ab = colorizer.colorize(lightness, hints=hints)
        rgb = color.recombine(lightness, ab)
        share = hints.rasterize(lightness).share
        rgb[(share > 0) & (share < 1)] = 255
        picture = Image.fromarray(rgb)
        picture.thumbnail((SIDE * 2 // 3, SIDE), Image.Resampling.LANCZOS)
        pictures.append(picture)
    return _beside(pictures)


def twelve(colorizer: ChromaSampler) -> Image.Image:
    """The middle squares of twelve test photographs, the first by content hash."""
    p = load_params(ROOT / "params.yaml").preprocess
    held_back = {}
    for path in sources.list_photographs(EXAMPLE.parent):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if sources.split_of(digest, p.val_share, p.test_share) == "test":
            held_back[digest] = path
    triples = []
    for _, path in sorted(held_back.items())[:12]:
        rgb = photo.read_rgb(path)
        side = min(rgb.shape[:2])
        y, x = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
        lab = color.srgb_to_lab(
            resample.resize_rgb(rgb[y : y + side, x : x + side], SIDE // 3, SIDE // 3)
        )
        L, ab = lab[..., 0].copy(), lab[..., 1:].copy()
        drawn = (ab * 0, colorizer.colorize(L), ab)
        triples.append([color.recombine(L, chroma) for chroma in drawn])
    rows = [first + second for first, second in zip(triples[::2], triples[1::2], strict=True)]
    return Image.fromarray(plots.grid(rows, ["monochrome", "by the model", "true"] * 2))


def _beside(pictures: list[Image.Image]) -> Image.Image:
    width = sum(p.width + GAP for p in pictures) - GAP
    out = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    x = 0
    for picture in pictures:
        out.paste(picture, (x, 0))
        x += picture.width + GAP
    return out


def main() -> None:
    """Write one pair for each photograph of the archive, and the other two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=RELEASED)
    colorizer = ChromaSampler(load_weights(parser.parse_args().weights))
    PICTURES.mkdir(exist_ok=True)
    for path in sorted(ARCHIVE.glob("*.jpg")):
        target = PICTURES / f"archive-{path.name}"
        _save(before_and_after(path, colorizer), target)
    _save(several(EXAMPLE, colorizer), PICTURES / "candidates.jpg")
    _save(hinted(EXAMPLE, colorizer), PICTURES / "hints.jpg")
    _save(twelve(colorizer), PICTURES / "twelve.jpg")


def _save(picture: Image.Image, target: Path) -> None:
    picture.save(target, quality=90, subsampling="4:4:4")
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
