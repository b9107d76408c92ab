"""Whether a picture is in color already: chroma beyond that of toning and age.

A toned print has one color for each lightness, whatever the tone: sepia, selenium, cyanotype. So
the chroma that counts is what is left of a* and b* when their median at each lightness is taken
away. Paper yellows unevenly, so what is left counts by a third along the axis from yellow to blue.
`benchmarks/in_color.py` measures where the threshold lies between toned and aged prints and
photographs in color.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from colorized import color

CELLS = 96
"""Of the longer side: what is judged is the mean color of so many cells."""

MEAN, STRONGEST = 2.2, 12.0
"""CIELAB units of what is left above which a picture is in color: its root mean square, and what
one of 500 cells exceeds, for a small thing that has color in a picture without."""

_BINS = 24
_YELLOW, _SHARE_OF_YELLOW = np.radians(80.0), 0.35
# The base of color negative film: the brightest tenth of it is orange.
_FILM_RED, _FILM_YELLOW = 12.0, 22.0


def is_in_color(rgb: NDArray[np.uint8]) -> bool:
    """Whether a picture, 8-bit sRGB (H, W, 3), is in color, beyond toning and age."""
    return chroma_beyond_toning(mosaic(rgb)) > 1


def mosaic(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean sRGB, 0 … 255, of square cells, (h, w, 3), at most `CELLS` along a side."""
    cells = Mosaic(*rgb.shape[:2])
    cells.add(0, rgb)
    return cells.mean()


class Mosaic:
    """Mean colors of the square cells of a picture of that size, which comes in strips."""

    def __init__(self, height: int, width: int) -> None:
        self._cell = -(-max(height, width) // CELLS)
        shape = -(-height // self._cell), -(-width // self._cell)
        self._sums = np.zeros((*shape, 3))
        rows = np.minimum(self._cell, height - self._cell * np.arange(shape[0]))
        columns = np.minimum(self._cell, width - self._cell * np.arange(shape[1]))
        self._counts = (rows[:, None] * columns)[..., None]

    def add(self, start: int, rgb: NDArray[np.uint8]) -> None:
        """The rows from `start` on, (n, W, 3)."""
        cell = self._cell
        first, last = start // cell, (start + len(rgb) - 1) // cell
        across = np.arange(0, rgb.shape[1], cell)
        columns = np.add.reduceat(rgb, across, axis=1, dtype=np.uint32)
        down = np.maximum(np.arange(first, last + 1) * cell - start, 0)
        self._sums[first : last + 1] += np.add.reduceat(columns, down, axis=0, dtype=np.uint64)

    def mean(self) -> NDArray[np.float32]:
        return (self._sums / self._counts).astype(np.float32)


def chroma_beyond_toning(cells: NDArray[np.float32]) -> float:
    """The chroma of cells (h, w, 3) that no toning explains, as a multiple of the thresholds."""
    lab = color.srgb_to_lab(cells / np.float32(255)).reshape(-1, 3)
    L, ab = lab[:, 0], lab[:, 1:]
    bins = np.clip(L / 100 * _BINS, 0, _BINS - 1).astype(int)
    knots = [
        (L[here].mean(), *np.median(ab[here], axis=0))
        for here in (bins == number for number in np.unique(bins))
        if here.sum() >= 4
    ]
    if not knots:
        return 0.0
    at, *tone = np.array(knots).T
    left = ab - np.stack([np.interp(L, at, channel) for channel in tone], -1)
    along = left @ np.array([np.cos(_YELLOW), np.sin(_YELLOW)])
    across = left @ np.array([-np.sin(_YELLOW), np.cos(_YELLOW)])
    squares = (_SHARE_OF_YELLOW * along) ** 2 + across**2
    strongest = np.sqrt(np.quantile(squares, 1 - 1 / 500))
    return float(max(np.sqrt(squares.mean()) / MEAN, strongest / STRONGEST))


def looks_like_color_negative(cells: NDArray[np.float32]) -> bool:
    """Whether the brightest tenth of the cells has the orange of color negative film."""
    lab = color.srgb_to_lab(cells / np.float32(255)).reshape(-1, 3)
    bright = lab[lab[:, 0] >= np.quantile(lab[:, 0], 0.9)]
    _, a, b = np.median(bright, axis=0)
    return bool(a > _FILM_RED and b > _FILM_YELLOW)
