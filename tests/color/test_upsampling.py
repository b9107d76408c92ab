"""Chroma along the edges of L, against OpenCV's interpolation, on photographs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from colorized import color
from colorized.color import resample
from colorized.color.upsampling import Enlarger, guide_size

PHOTOS = Path(__file__).parents[2] / "data" / "sample" / "photos"
NAMES = ("astronaut", "brushes", "citrus", "macaw", "panda", "wine")


def guide_of(L: np.ndarray, ab: np.ndarray) -> np.ndarray:
    return resample.resize_lightness(L, *guide_size(*ab.shape[:2], *L.shape))


def enlarge(ab: np.ndarray, L: np.ndarray) -> np.ndarray:
    return Enlarger(guide_of(L, ab), ab, *L.shape).rows(0, len(L), L)


def photograph(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """L (512, W), ab (512, W, 2), and chroma as the network would give it, 64 pixels high."""
    rgb = np.asarray(Image.open(PHOTOS / f"{name}.jpg").convert("RGB"))[:512]
    rgb = rgb[:, : rgb.shape[1] // 8 * 8]
    lab = color.srgb_to_lab(rgb.astype(np.float32) / 255)
    small = color.srgb_to_lab(resample.resize_rgb(rgb, 128, rgb.shape[1] // 4))[..., 1:]
    ab = small.reshape(64, 2, -1, 2, 2).mean((1, 3))
    return lab[..., 0].copy(), lab[..., 1:].copy(), ab


def near_edges(ab: np.ndarray) -> np.ndarray:
    """Half a small pixel around the twentieth of the picture where chroma changes fastest."""
    smooth = ndimage.gaussian_filter(ab, (1, 1, 0))
    steep = np.hypot.reduce([g for c in (0, 1) for g in np.gradient(smooth[..., c])])
    return ndimage.binary_dilation(steep > np.quantile(steep, 0.95), iterations=4)


def test_error_near_edges_is_a_fifth_lower_than_that_of_interpolation() -> None:
    ratios = []
    for name in NAMES:
        L, true, ab = photograph(name)
        edges = near_edges(true)
        linear = cv2.resize(ab, L.shape[::-1], interpolation=cv2.INTER_LINEAR)
        error, peer = (
            np.sqrt(np.square(x - true).sum(-1)[edges].mean()) for x in (enlarge(ab, L), linear)
        )
        ratios.append(error / peer)
    assert max(ratios) < 0.95
    assert np.mean(ratios) <= 0.8


def test_seen_from_afar_it_is_the_networks_picture() -> None:
    L, _, ab = photograph("macaw")
    means = enlarge(ab, L).reshape(64, 8, -1, 8, 2).mean((1, 3))
    linear = cv2.resize(ab, L.shape[::-1], interpolation=cv2.INTER_LINEAR)
    of_linear = linear.reshape(64, 8, -1, 8, 2).mean((1, 3))
    assert np.abs(means - ab).mean() < 0.5
    assert np.abs(means - ab).mean() < 0.8 * np.abs(of_linear - ab).mean()


@pytest.mark.parametrize("strip", [1, 7, 16, 100, 511])
def test_strips_are_the_whole(strip: int) -> None:
    L, _, ab = photograph("citrus")
    enlarger = Enlarger(guide_of(L, ab), ab, *L.shape)
    whole = enlarger.rows(0, 512, L)
    parts = [enlarger.rows(y, min(y + strip, 512), L[y : y + strip]) for y in range(0, 512, strip)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_strips_of_a_scan_too_large_to_hold() -> None:
    """6 gigapixels: only the strip that is asked for is made."""
    L, _, ab = photograph("panda")
    guide = guide_of(L, ab)
    enlarger = Enlarger(guide, ab, 60_000, 100_000)
    y = 31_234
    strip = np.full((4, 100_000), 50, np.float32)
    out = enlarger.rows(y, y + 4, strip)
    assert out.shape == (4, 100_000, 2)
    small = Enlarger(guide, ab, *guide.shape)
    at = int(y / 60_000 * guide.shape[0])
    few = small.rows(at, at + 1, np.full((1, guide.shape[1]), 50, np.float32))
    far = np.abs(resample.resize(out[:1], 1, guide.shape[1]) - few)
    assert np.median(far) < 1


def test_one_color_stays_one_color() -> None:
    L, _, ab = photograph("brushes")
    out = enlarge(np.full_like(ab, 17), L)
    np.testing.assert_allclose(out, 17, atol=0.01)


@pytest.mark.parametrize("at", [250, 256, 261])
def test_two_surfaces_get_their_own_colors_up_to_the_edge_and_no_halo(at: int) -> None:
    L = np.full((512, 512), 30, np.float32)
    L[:, at:] = 70
    colors = np.zeros((512, 512, 2), np.float32)
    colors[:, :at], colors[:, at:] = (40, 20), (-10, -30)
    out = enlarge(resample.resize(colors, 64, 64), L)
    assert out.min() > -32
    assert out.max() < 42
    assert np.abs(out[:, : at - 2] - (40, 20)).max() < 5  # of a step of 50
    assert np.abs(out[:, at + 2 :] - (-10, -30)).max() < 5


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 768), (512, 768)),
        ((5120, 7680), (512, 768)),
        ((300, 450), (256, 384)),
        ((370, 555), (512, 768)),
        ((180, 270), (128, 192)),
        ((20, 30), (128, 192)),
    ],
)
def test_guide_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert guide_size(64, 96, *size) == expected


def test_what_does_not_fit_is_refused() -> None:
    ab = np.zeros((8, 12, 2), np.float32)
    for shape in ((8, 13), (24, 36), (4, 6), (16, 36)):
        with pytest.raises(ValueError, match="a power of two times 8 × 12"):
            Enlarger(np.zeros(shape, np.float32), ab, 100, 150)
    enlarger = Enlarger(np.zeros((16, 24), np.float32), ab, 100, 150)
    asked = ((0, 5, 5, 149), (0, 5, 4, 150), (98, 101, 3, 150), (3, 3, 0, 150))
    for y0, y1, height, width in asked:
        with pytest.raises(ValueError, match=f"rows {y0} … {y1 - 1} of 100 × 150"):
            enlarger.rows(y0, y1, np.zeros((height, width), np.float32))
