"""Contact sheets and plots, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]


def grid(rows: Sequence[Sequence[Picture]], headings: Sequence[str], gap: int = 6) -> Picture:
    """A sheet of pictures, one row each, with a heading over every column.

    `rows` are RGB pictures (H, W, 3), all of one size; each row is as long as `headings`.

    Returns
    -------
    ndarray
        RGB (height, width, 3).
    """
    height, width = rows[0][0].shape[:2]
    letters = max(11, width // 10)
    font = ImageFont.load_default(size=letters)
    top = round(letters * 1.6)
    sheet = Image.new(
        "RGB",
        (len(headings) * (width + gap) + gap, top + len(rows) * (height + gap)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings):
        x = gap + column * (width + gap)
        draw.text((x + width // 2, top // 2), heading, fill="black", font=font, anchor="mm")
        for row, pictures in enumerate(rows):
            sheet.paste(Image.fromarray(pictures[column]), (x, top + row * (height + gap)))
    return np.asarray(sheet)


def save(path: Path, picture: Picture) -> None:
    """Write an RGB picture (H, W, 3) as PNG or JPEG, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, dict[str, Any]] = {
        ".png": {"optimize": True},
        ".jpg": {"quality": 92, "subsampling": 0},
    }
    Image.fromarray(picture).save(path, **options[path.suffix])


def save_curves(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
) -> None:
    """Write a line plot of named (x, y) series."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in curves.items():
        axes.plot(x, y, marker="o", markersize=3, label=name)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without matplotlib's version in it.
    figure.savefig(path, metadata={"Software": None})
