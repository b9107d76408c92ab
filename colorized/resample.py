"""Resizing in linear light.

Where pixels are merged, it is light that adds up, not its gamma-coded value: a chequered roof seen
from afar keeps its luminance and the mixed hue of its tiles. Both training pictures and scans are
brought to the model's scale this way, so that the model sees in use what it saw in training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorized import color


def resize(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """(H, W) → (height, width), along each axis by itself.

    Where it shrinks, the mean of the pixels whose centers lie in a new one; bicubic where it grows.
    """
    out = np.asarray(plane, dtype=np.float32)
    for axis, size in ((0, height), (1, width)):
        if size == out.shape[axis]:
            continue
        kind = Image.Resampling.BOX if size < out.shape[axis] else Image.Resampling.BICUBIC
        target = (out.shape[1], size) if axis == 0 else (size, out.shape[0])
        out = np.asarray(Image.fromarray(out).resize(target, kind))
    return out


def resize_lightness(
    lightness: NDArray[np.float32], height: int, width: int
) -> NDArray[np.float32]:
    """L* (H, W) → (height, width), averaging luminance Y rather than L*."""
    luminance = resize(color.lightness_to_luminance(lightness), height, width)
    return color.luminance_to_lightness(luminance.clip(0, 1))


def resize_rgb(rgb: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """8-bit sRGB (H, W, 3) → sRGB in 0 … 1 (height, width, 3), averaging linear light."""
    linear = _LINEAR[rgb]
    planes = [resize(linear[..., c], height, width) for c in range(3)]
    resized = np.stack(planes, axis=-1).clip(0, 1)
    return color.linear_to_srgb(resized).astype(np.float32)


_LINEAR = color.srgb_to_linear(np.arange(256, dtype=np.float32) / 255).astype(np.float32)
