"""Color against scikit-image, kornia, OpenCV and numbers known by hand."""

from __future__ import annotations

import cv2
import kornia.color
import numpy as np
import pytest
import skimage.color
import torch

from colorized import color


def lattice(n: int = 18) -> np.ndarray:
    """All of sRGB on a grid, corners included; (n³, 3) float64 in [0, 1]."""
    v = np.linspace(0, 1, n)
    return np.stack(np.meshgrid(v, v, v, indexing="ij"), -1).reshape(-1, 3)


def random_lab(rng: np.random.Generator, n: int = 200_000) -> np.ndarray:
    """Colors in and far out of the gamut, extremes of lightness and chroma among them."""
    L = np.concatenate([rng.uniform(0, 100, n), rng.uniform(0, 2, n), rng.uniform(98, 100, n)])
    L[:100], L[100:200] = 0, 100
    hue = rng.uniform(-np.pi, np.pi, L.size)
    chroma = rng.choice([5.0, 40.0, 128.0, 2000.0], L.size) * rng.uniform(0, 1, L.size)
    return np.stack([L, chroma * np.cos(hue), chroma * np.sin(hue)], -1)


# Known numbers (Lindbloom's calculator, sRGB, D65, rounded).
@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((1, 1, 1), (100, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((1, 1, 0), (97.14, -21.55, 94.48)),
        ((128 / 255, 128 / 255, 128 / 255), (53.585, 0, 0)),
    ],
)
def test_known_colors(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    np.testing.assert_allclose(color.srgb_to_lab(np.array(rgb, float)), lab, atol=0.02)
    np.testing.assert_allclose(color.lab_to_srgb(np.array(lab, float)), rgb, atol=2e-3)


def test_transfer_curve() -> None:
    v = np.linspace(0, 1, 1001)
    linear = color.srgb_to_linear(v)
    assert color.srgb_to_linear(np.array([0.04045]))[0] == pytest.approx(0.04045 / 12.92)
    assert color.srgb_to_linear(np.array([0.5]))[0] == pytest.approx(0.21404114)
    np.testing.assert_allclose(color.linear_to_srgb(linear), v, atol=1e-7)
    expected = kornia.color.rgb_to_linear_rgb(torch.from_numpy(v).expand(1, 3, 1, -1))[0, 0, 0]
    np.testing.assert_allclose(linear, expected.numpy(), atol=1e-12)


def test_luminance_and_lightness() -> None:
    Y = np.linspace(0, 1, 1001)
    L = color.luminance_to_lightness(Y)
    assert L[0] == pytest.approx(0) and L[-1] == pytest.approx(100)
    # CIE 15: middle gray of 18 % has L* 49.50; below Y = 216/24389, L* = 24389/27 Y.
    assert L[180] == pytest.approx(49.496, abs=1e-3)
    assert L[5] == pytest.approx(24389 / 27 * 0.005)
    np.testing.assert_allclose(color.lightness_to_luminance(L), Y, atol=1e-12)
    grays = np.repeat(color.linear_to_srgb(Y)[:, None], 3, axis=1)
    np.testing.assert_allclose(color.lightness(grays), L, atol=1e-5)


def test_lab_agrees_with_scikit_image() -> None:
    rgb = lattice()
    lab = color.srgb_to_lab(rgb)
    # Its white point is rounded to five digits, which alone moves b* by 0.006.
    np.testing.assert_allclose(lab, skimage.color.rgb2lab(rgb), atol=0.02)
    inside = skimage.color.lab2rgb(lab)
    np.testing.assert_allclose(color.lab_to_srgb(lab), inside, atol=1e-3)


def test_lab8_agrees_with_opencv(rng: np.random.Generator) -> None:
    rgb8 = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    lab8 = color.linear_to_lab8(color.srgb_to_linear(rgb8.astype(np.float32) / 255))
    theirs = cv2.cvtColor(rgb8, cv2.COLOR_RGB2LAB)
    difference = np.abs(lab8.astype(int) - theirs)
    # OpenCV's 8-bit path is in fixed point, whose own error in near-black colors reaches 2.
    assert (difference > 1).mean() < 5e-4
    assert difference.max() <= 2
    assert (difference == 0).mean() > 0.85
    # Decoded, their 8-bit LAB gives the same picture by either way back.
    back = color.lab_to_srgb(color.lab8_to_lab(theirs)).clip(0, 1) * 255
    assert np.abs(back - cv2.cvtColor(theirs, cv2.COLOR_LAB2RGB)).max() < 3


def test_lab8_range() -> None:
    decoded = color.lab8_to_lab(np.array([[255, 255, 0], [0, 128, 128]], np.uint8))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, [[100, 127, -128], [0, 0, 0]], atol=1e-5)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_round_trip(dtype: type, atol: float) -> None:
    rgb = lattice().astype(dtype)
    np.testing.assert_allclose(color.lab_to_srgb(color.srgb_to_lab(rgb)), rgb, atol=30 * atol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neutral_is_exact(dtype: type) -> None:
    gray = np.repeat(np.linspace(0, 1, 4097, dtype=dtype)[:, None], 3, axis=1)
    lab = color.srgb_to_lab(gray)
    assert (lab[:, 1:] == 0).all()
    rgb = color.lab_to_srgb(lab)
    assert (rgb[:, :1] == rgb).all()
    assert (color.lightness(gray) == lab[:, 0]).all()
    assert (color.linear_to_lab8(color.srgb_to_linear(gray))[:, 1:] == 128).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shape_dtype_and_memory_layout(rng: np.random.Generator, dtype: type) -> None:
    """Of pixels in any order of memory, which are not written to."""
    lab = random_lab(rng, 2002).reshape(2, 21, 143, 3).astype(dtype)
    planes = np.ascontiguousarray(np.moveaxis(lab, -1, 1))
    planes.flags.writeable = False
    for f in (color.srgb_to_lab, color.lab_to_srgb, color.fit_gamut, color.lightness):
        expected, found = f(lab), f(np.moveaxis(planes, 1, -1))
        assert found.dtype == dtype
        assert found.shape == (lab.shape[:-1] if f is color.lightness else lab.shape)
        np.testing.assert_array_equal(found, expected)


def test_unstandardized_ab() -> None:
    ab = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    assert color.unstandardize_ab(ab, [18, 9]).tolist() == [[18, -18], [9, 0]]
    assert color.unstandardize_ab(ab, [18, 9], axis=0).tolist() == [[18, -36], [4.5, 0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: color.srgb_to_lab(np.zeros((4, 4, 2))), r"3 channels, got shape \(4, 4, 2\)"),
        (lambda: color.srgb_to_lab(np.zeros((4, 3), np.uint8)), "float32 or float64, got.*uint8"),
        (lambda: color.lab8_to_lab(np.zeros((4, 3))), "lab8 must be uint8"),
        (lambda: color.recombine(np.zeros((4, 4)), np.zeros((4, 5, 2))), r"got \(4, 5, 2\)"),
        (lambda: color.recombine(np.zeros((4, 4)), np.zeros((4, 4, 3))), "two channels"),
        (lambda: color.recombine(np.zeros((1, 1)), np.full((1, 1, 2), np.nan)), "finite"),
    ],
)
def test_bad_input_is_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_gamut_keeps_lightness_and_hue(rng: np.random.Generator) -> None:
    lab = random_lab(rng)
    fitted = color.fit_gamut(lab)
    assert (fitted[:, 0] == lab[:, 0]).all()
    rgb = color.lab_to_srgb(fitted)
    assert rgb.min() > -2e-4 and rgb.max() < 1 + 2e-4
    colored = np.hypot(fitted[:, 1], fitted[:, 2]) > 1e-6
    hue = np.arctan2(lab[:, 2], lab[:, 1]), np.arctan2(fitted[:, 2], fitted[:, 1])
    turn = np.abs(np.angle(np.exp(1j * (hue[0] - hue[1]))))
    assert turn[colored].max() < 1e-3
    assert colored.mean() > 0.95
    assert (np.hypot(*fitted[:, 1:].T) <= np.hypot(*lab[:, 1:].T)).all()


def test_gamut_leaves_what_is_inside(rng: np.random.Generator) -> None:
    # Every 8-bit color on a lattice with its corners, primaries and white among them.
    for dtype in (np.float32, np.float64):
        lab = color.srgb_to_lab(lattice().astype(dtype))
        assert (color.fit_gamut(lab) == lab).all()
    lab = random_lab(rng)
    fitted = color.fit_gamut(lab)
    assert (color.fit_gamut(fitted) == fitted).all()
    moved = (fitted != lab).any(axis=1)
    assert 0.3 < moved.mean() < 0.9


def test_gamut_keeps_the_most_chroma(rng: np.random.Generator) -> None:
    # The oracle: kornia's LAB → RGB, unclipped, on a fine scale of chroma.
    lab = random_lab(rng, 1000)
    lab = lab[(lab[:, 0] > 1) & (lab[:, 0] < 99)][::3]
    fitted = color.fit_gamut(lab)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    reach = torch.from_numpy(np.minimum(chroma, 150))[:, None] * torch.linspace(0, 1, 1501)
    ray = torch.from_numpy(lab[:, 1:] / chroma[:, None]).T[:, :, None] * reach
    L = torch.from_numpy(lab[:, 0]).view(1, -1, 1).expand(1, -1, 1501)
    rgb = kornia.color.lab_to_rgb(torch.cat([L, ray])[None], clip=False)[0]
    inside = ((rgb > -1e-3) & (rgb < 1 + 1e-3)).all(dim=0)
    best = torch.where(inside, reach, 0).amax(dim=1).numpy()
    difference = np.abs(np.hypot(fitted[:, 1], fitted[:, 2]) - best)
    assert np.median(difference) < 0.1
    assert np.quantile(difference, 0.99) < 1


def test_gamut_is_hollow_at_yellow() -> None:
    # Found by scanning the ray: it leaves the gamut at chroma 52.2 and is inside up to 94.6.
    hue = np.radians(101)
    lab = np.array([95, 150 * np.cos(hue), 150 * np.sin(hue)])
    assert np.hypot(*color.fit_gamut(lab)[1:]) == pytest.approx(94.6, abs=0.1)


def recombined_error(L: np.ndarray, ab: np.ndarray) -> float:
    rgb = color.recombine(L, ab)
    assert rgb.dtype == np.uint8 and rgb.shape == (*L.shape, 3)
    return float(np.abs(skimage.color.rgb2lab(rgb)[..., 0] - L).max())


def test_recombined_lightness_is_within_bounds(rng: np.random.Generator) -> None:
    lab = random_lab(rng, 700_000).astype(np.float32)
    assert recombined_error(lab[:, 0], lab[:, 1:]) <= 0.6
    L, hue, chroma = np.meshgrid(
        np.linspace(0, 100, 201),
        np.linspace(0, 2 * np.pi, 91),
        [0, 1, 5, 20, 40, 60, 80, 100, 130, 1e4, 1e30],
        indexing="ij",
    )
    ab = np.stack([chroma * np.cos(hue), chroma * np.sin(hue)], -1)
    assert recombined_error(L, ab) <= 0.6
    assert recombined_error(L.astype(np.float32), ab.astype(np.float32)) <= 0.6


def test_plain_clipping_would_move_lightness(rng: np.random.Generator) -> None:
    lab = random_lab(rng)
    clipped = color.lab_to_srgb(lab[np.hypot(lab[:, 1], lab[:, 2]) < 130]).clip(0, 1)
    L = lab[np.hypot(lab[:, 1], lab[:, 2]) < 130, 0]
    assert np.abs(color.lightness(clipped) - L).max() > 10


def test_recombine_gives_gray_back() -> None:
    gray = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=-1)
    for dtype in (np.float32, np.float64):
        L = color.lightness(gray.astype(dtype) / 255)
        assert (color.recombine(L, np.zeros((16, 16, 2), dtype)) == gray).all()
    L = np.linspace(0, 100, 100_003, dtype=np.float32)
    rgb = color.recombine(L, np.zeros((L.size, 2), np.float32))
    assert (rgb == rgb[:, :1]).all()


def test_recombine_gives_photographs_back(rng: np.random.Generator) -> None:
    rgb8 = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    lab = color.srgb_to_lab(rgb8.astype(np.float32) / 255)
    assert (color.recombine(lab[..., 0], lab[..., 1:]) == rgb8).all()
