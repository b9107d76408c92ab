"""Resizing in linear light.

Light adds up where pixels are merged, gamma-coded values do not: their mean would change luminance
and hue. Training pictures and scans are both brought to the model's scale this way, so that the
model sees in use what it saw in training.

Shrinking is exact: a new pixel is the mean over its area, in which old pixels at the edges count
by the part that is inside.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from colorized.color import lab


def resize(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """(H, W) or (H, W, C) → (height, width) or (height, width, C), one axis after the other.

    An axis that shrinks takes the mean over the area of a new pixel, one that grows is bicubic.
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
        out = shrink_rows(flat, 0, old, size)[1]
    else:
        out = np.asarray(Image.fromarray(flat).resize((flat.shape[1], size), _BICUBIC))
    return out.reshape(size, *others)


_BICUBIC = Image.Resampling.BICUBIC


def shrink_rows(
    strip: NDArray[np.float32], start: int, old: int, new: int
) -> tuple[int, NDArray[np.float32]]:
    """`resize` in strips: the contribution of a strip (rows, W), from row `start` of `old` rows on.

    Returns
    -------
    The first of the `new` rows that it contributes to, and the contributions to that row and the
    next ones, (n, W). Their sum over all strips is the result of `resize`.
    """
    stop = start + len(strip)
    first, last = start * new // old, -(-stop * new // old)
    pixels, shares, starts = _area(old, new)
    i, k = torch.searchsorted(pixels, torch.tensor([start, stop])).tolist()
    # What torch calls an embedding bag is a weighted sum of some rows of a matrix.
    added = F.embedding_bag(
        pixels[i:k] - start,
        torch.from_numpy(np.require(strip, np.float32, ["C", "W"])),
        (starts[first:last] - i).clamp(min=0),
        mode="sum",
        per_sample_weights=shares[i:k],
    )
    return first, added.numpy()


@functools.lru_cache(maxsize=64)
def _area(old: int, new: int) -> tuple[Tensor, Tensor, Tensor]:
    """The old pixels in the area of each new one, the share each has of it, where each begins."""
    k = np.arange(new)
    first, last = k * old // new, -(-(k + 1) * old // new)
    starts = np.cumsum(last - first) - (last - first)
    k = np.repeat(k, last - first)
    pixels = np.arange(len(k)) - starts[k] + first[k]
    # In units of 1 / (old new) of the length all edges are whole numbers.
    covered = np.minimum((pixels + 1) * new, (k + 1) * old) - np.maximum(pixels * new, k * old)
    shares = torch.from_numpy(covered / old).float()
    return torch.from_numpy(pixels), shares, torch.from_numpy(starts)


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
