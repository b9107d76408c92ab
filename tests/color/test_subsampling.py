"""Chroma of 4:2:0 pictures, as it was stored."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from colorized.color.subsampling import restore_chroma

PHOTOS = Path(__file__).parents[2] / "data" / "sample" / "photos"


def means(v: NDArray[Any]) -> NDArray[Any]:
    """Over 2 × 2 pixels."""
    h, w = v.shape[0] // 2, v.shape[1] // 2
    return v[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1).mean((1, 3))


def differences(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Red and blue less luma."""
    v = rgb.astype(np.float64)
    return v[..., [0, 2]] - (v @ [0.299, 0.587, 0.114])[..., None]


def test_undoes_the_interpolation_of_decoders() -> None:
    """Against torch's, whose weights are those of libwebp and libjpeg-turbo."""
    rng = np.random.default_rng(0)
    stored = rng.uniform(-20, 20, (24, 31, 2))
    planes = torch.from_numpy(stored).permute(2, 0, 1)[None]
    red, blue = F.interpolate(planes, scale_factor=2, mode="bilinear")[0].numpy()
    luma = rng.uniform(90, 160, red.shape)
    green = luma - (0.299 * red + 0.114 * blue) / 0.587
    decoded = np.rint(np.stack([luma + red, green, luma + blue], -1)).astype(np.uint8)
    found = restore_chroma(decoded)
    assert np.abs(means(differences(found)) - stored).max() < 2
    assert np.abs(means(differences(decoded)) - stored).max() > 10  # negative control
    assert np.abs(found.astype(int) @ [0.299, 0.587, 0.114] - luma).max() < 2


def test_detail_of_a_photograph_is_as_strong_as_what_was_written() -> None:
    with Image.open(PHOTOS / "citrus.jpg") as picture:
        small = picture.convert("RGB").reduce(3)
    file = io.BytesIO()
    small.save(file, "webp", quality=90)
    decoded = np.asarray(Image.open(file))
    true, blurred, found = (
        means(differences(rgb)) for rgb in (np.asarray(small), decoded, restore_chroma(decoded))
    )
    strength, weak, restored = (
        np.square(v - ndimage.uniform_filter(v, (3, 3, 0))).mean() ** 0.5
        for v in (true, blurred, found)
    )
    assert restored == pytest.approx(strength, rel=0.1)
    assert weak < 0.75 * strength  # negative control
    assert np.square(found - true).mean() < 0.9 * np.square(blurred - true).mean()


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 2)])
def test_odd_sides_keep_their_last_row_and_column(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    found, (h, w) = restore_chroma(rgb), (shape[0] // 2 * 2, shape[1] // 2 * 2)
    assert np.array_equal(found[h:], rgb[h:])
    assert np.array_equal(found[:, w:], rgb[:, w:])
