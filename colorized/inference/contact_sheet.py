"""Pictures that show several colorings of one photograph, and where they disagree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from colorized import color
from colorized.color import resample
from colorized.color.upsampling import Enlarger
from colorized.inference.candidates import Candidates
from colorized.plots import Picture

SIDE = 320
"""Longer side of a picture on a contact sheet, pixels."""

UNCERTAINTY_MAX = 40.0
"""Where the scale of an uncertainty map ends, CIELAB units; the same on every map."""

_GAP = 8
_TICKS = (0, 10, 20, 30, 40)
_CAPTION = "mean difference of two colorings, CIELAB units"
# The color map "inferno" of matplotlib, whose lightness rises evenly: RGB at 33 even places.
_INFERNO = np.frombuffer(
    bytes.fromhex(
        "0000040403120b0724150b37210c4a2e0a5a3c09654a0c6b57106d63146e70196e"
        "7d1e6d89226a962766a32b61af315cbb3755c63e4dd14644db4f3be35932eb6528"
        "f1711ef67f14f98d0afb9c06fcab0ffbba1ff9ca32f5d949f2e865f3f586fcffa4"
    ),
    np.uint8,
).reshape(-1, 3)


def contact_sheet(candidates: Candidates, guide: NDArray[np.float32]) -> Picture:
    """RGB (height, width, 3): the photograph without color, then each candidate, with its seed.

    `guide` is L* of the photograph, small: see `ChromaSampler.guide`.
    """
    height, width = guide.shape
    pictures = [("photograph", color.recombine(guide, np.zeros((height, width, 2), np.float32)))]
    for k, (ab, seed) in enumerate(zip(candidates.ab, candidates.seeds, strict=True), start=1):
        chroma = Enlarger(guide, ab, height, width).rows(0, height, guide)
        pictures.append((f"{k}: seed {seed}", color.recombine(guide, chroma)))
    scale = min(1.0, SIDE / max(height, width))
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    columns = min(len(pictures), max(1, round((len(pictures) * cell[1] / cell[0]) ** 0.5)))
    lines = -(-len(pictures) // columns)
    font = ImageFont.load_default(size=14)
    # A caption of a narrow picture needs room, too.
    across = max(cell[0], *(round(font.getlength(caption)) for caption, _ in pictures)) + _GAP
    down = cell[1] + 24 + _GAP
    sheet = Image.new("RGB", (columns * across + _GAP, lines * down + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (caption, rgb) in enumerate(pictures):
        x, y = _GAP + i % columns * across, _GAP + i // columns * down
        draw.text((x, y), caption, fill="black", font=font)
        sheet.paste(Image.fromarray(rgb).resize(cell, Image.Resampling.LANCZOS), (x, y + 22))
    return np.asarray(sheet)


def uncertainty_map(uncertainty: NDArray[np.float32], height: int, width: int) -> Picture:
    """`Candidates.uncertainty` (h, w) as a map (height, width) above a scale, dark = certain.

    Returns
    -------
    ndarray
        RGB (height + scale, width, 3): brightness rises evenly with the mean difference of two
        colorings, from 0 to `UNCERTAINTY_MAX` CIELAB units, where it is clipped.
    """
    large = resample.resize(uncertainty, height, width)
    letters = max(8, min(16, width // 26))
    font = ImageFont.load_default(size=letters)
    bar, margin = letters, letters
    scale = Image.new("RGB", (width, bar + 4 * letters), "white")
    inner = max(width - 2 * margin, 1)
    ramp = np.broadcast_to(np.linspace(0, UNCERTAINTY_MAX, inner, dtype=np.float32), (bar, inner))
    scale.paste(Image.fromarray(_colors(ramp)), (margin, letters // 2))
    draw = ImageDraw.Draw(scale)
    for tick in _TICKS:
        x = margin + inner * tick / UNCERTAINTY_MAX
        text = f"{tick}+" if tick == UNCERTAINTY_MAX else f"{tick}"
        draw.text((x, 2 * letters), text, fill="black", font=font, anchor="mt")
    draw.text((width / 2, 3.4 * letters), _CAPTION, fill="black", font=font, anchor="mt")
    return np.concatenate([_colors(large), np.asarray(scale)])


def _colors(values: NDArray[np.float32]) -> Picture:
    """RGB of values in CIELAB units, any shape; see `uncertainty_map`."""
    places = np.linspace(0, UNCERTAINTY_MAX, len(_INFERNO))
    rgb = np.stack([np.interp(values, places, channel) for channel in _INFERNO.T], axis=-1)
    return np.round(rgb).astype(np.uint8)
