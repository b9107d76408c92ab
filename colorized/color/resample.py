"""Resizing in linear light.

Where pixels are merged, it is light that adds up, not its gamma-coded value: a chequered roof seen
from afar keeps its luminance and the mixed hue of its tiles. Both training pictures and scans are
brought to the model's scale this way, so that the model sees in use what it saw in training.

Shrinking is exact: a new pixel is the mean over its area, of which an old pixel at the edge may
cover a part. It is a sparse matrix for each axis, an old pixel being in at most two new ones.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from colorized.color import lab


def resize(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """(H, W) or (H, W, C) → (height, width) or (height, width, C), along each axis by itself.

    Where it shrinks, the mean over the area of a new pixel; bicubic where it grows.
    """
    out = np.asarray(plane, dtype=np.float32)
    return _along_rows(_along_rows(out, height).swapaxes(0, 1), width).swapaxes(0, 1)


def _along_rows(plane: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Resize the first axis; the others stay."""
    old, *others = plane.shape
    if size == old:
        return plane
    flat = np.ascontiguousarray(plane).reshape(old, -1)
    if size < old:
        out = _area_matrix(old, size) @ flat
    else:
        out = np.asarray(Image.fromarray(flat).resize((flat.shape[1], size), _BICUBIC))
    return out.reshape(size, *others)


_BICUBIC = Image.Resampling.BICUBIC


@functools.lru_cache(maxsize=64)
def _area_matrix(old: int, new: int) -> sparse.csr_array:
    """(new, old): the share of each old pixel in the area of each new one; rows sum to 1."""
    edges = np.arange(new + 1) * (old / new)
    first = np.floor(edges[:-1]).astype(int)
    last = np.minimum(np.ceil(edges[1:]).astype(int), old)
    starts = np.concatenate([[0], np.cumsum(last - first)])
    row = np.repeat(np.arange(new), last - first)
    column = np.arange(starts[-1]) - starts[row] + first[row]
    covered = np.minimum(column + 1, edges[row + 1]) - np.maximum(column, edges[row])
    weights = (covered * (new / old)).astype(np.float32)
    return sparse.csr_array((weights, column, starts), shape=(new, old))


def shrink_rows(
    strip: NDArray[np.float32], start: int, old: int, new: int
) -> tuple[int, NDArray[np.float32]]:
    """What the rows from `start` on, of `old` ones, add to `new` ones: `resize` in strips.

    Parameters
    ----------
    strip
        (rows, W).

    Returns
    -------
    The number of the first row they add to, and what they add to it and those after it, (n, W).
    Sums over all strips are what `resize` makes of the whole.
    """
    stop = start + len(strip)
    first, last = start * new // old, -(-stop * new // old)
    return first, _area_matrix(old, new)[first:last, start:stop] @ strip


def resize_lightness(
    lightness: NDArray[np.float32], height: int, width: int
) -> NDArray[np.float32]:
    """L* (H, W) → (height, width), averaging luminance Y rather than L*."""
    return lightness_of(resize(lab.lightness_to_luminance(lightness), height, width))


def lightness_of(luminance: NDArray[np.float32]) -> NDArray[np.float32]:
    """L* of resized luminance Y, which may be a little beyond 0 … 1; any shape."""
    return lab.luminance_to_lightness(luminance.clip(0, 1))


def resize_linear(linear: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Linear light (H, W, 3) → (height, width, 3), in 0 … 1."""
    if linear.shape[:2] == (height, width):
        return linear
    return resize(linear, height, width).clip(0, 1)


def resize_rgb(rgb: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """8-bit sRGB (H, W, 3) → sRGB in 0 … 1 (height, width, 3), averaging linear light."""
    resized = resize_linear(linear_of_rgb8(rgb), height, width)
    return lab.linear_to_srgb(resized).astype(np.float32)


def linear_of_rgb8(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Linear light in 0 … 1 of 8-bit sRGB, any shape."""
    return _LINEAR.take(rgb)


_LINEAR = lab.srgb_to_linear(np.arange(256, dtype=np.float32) / 255).astype(np.float32)
