"""Undoing what a decoder does to chroma that was stored at half the resolution (4:2:0).

Lossy WebP, and most JPEG, store one chroma for 2 × 2 pixels. Decoders (libwebp, libjpeg-turbo)
interpolate it linearly: a pixel gets 9/16, 3/16, 3/16 and 1/16 of the four nearest. The mean over
the 2 × 2 pixels is then not what was stored, but that filtered by (1/8, 3/4, 1/8) along both
directions: what is finest keeps a quarter of its strength. The filter has no zero, so it can be
undone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as JPEG and WebP


def restore_chroma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A decoded 4:2:0 picture, its chroma over 2 × 2 pixels the stored one again.

    Parameters
    ----------
    rgb
        sRGB (H, W, 3), as it was decoded: not cropped, resized or turned since.

    Returns
    -------
    ndarray
        sRGB (H, W, 3); luma stays, but where a color would leave the gamut. A last odd row or
        column is left as it is.
    """
    if min(rgb.shape[:2]) < 2:
        return rgb.copy()
    even = rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2].astype(np.float64)
    luma = even @ _LUMA
    difference = even[..., [0, 2]] - luma[..., None]  # Cr and Cb but for their scale
    h, w = luma.shape[0] // 2, luma.shape[1] // 2
    blurred = difference.reshape(h, 2, w, 2, 2).mean((1, 3))
    gain_y, gain_x = (0.75 + 0.25 * np.cos(np.pi * np.arange(n) / n) for n in (h, w))
    waves = fft.dctn(blurred, axes=(0, 1)) / (gain_y[:, None] * gain_x)[..., None]
    missing = fft.idctn(waves, axes=(0, 1)) - blurred
    red, blue = np.moveaxis(difference + missing.repeat(2, 0).repeat(2, 1), -1, 0)
    green = -(_LUMA[0] * red + _LUMA[2] * blue) / _LUMA[1]
    restored = luma[..., None] + np.stack([red, green, blue], -1)
    out = rgb.copy()
    out[: 2 * h, : 2 * w] = np.rint(restored).clip(0, 255)
    return out
