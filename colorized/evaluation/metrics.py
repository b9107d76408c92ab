r"""Metrics of colors: distances between sets of pictures, and measures of single pictures.

Fréchet inception distance (Heusel et al., *GANs trained by a two time-scale update rule*, 2017).
With m and C the mean and covariance of Inception features of two sets (see `inception`),

    FID = |m_a - m_b|² + Tr(C_a + C_b) - 2 Σ √λ,  λ the eigenvalues of C_a C_b.

Kernel inception distance (Bińkowski et al., *Demystifying MMD GANs*, 2018, section 4): the squared
maximum mean discrepancy with k(x, y) = (xᵀy / d + 1)³, here of two colorings x_i, y_i of the same n
photographs, by the unbiased estimator for pairs (Gretton et al., *A kernel two-sample test*, 2012,
eq. 4),

    KID = Σ_{i≠j} (k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)) / (n (n-1)).

FID is biased when pictures are few, KID is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from colorized.color.lab import lightness, srgb_to_lab

RGB = NDArray[np.uint8]


def frechet_distance(
    features_a: NDArray[np.floating],
    features_b: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
) -> float:
    """Fréchet distance of two sets of features, (N, D) and (M, D).

    `weights` (N,) say how often each row counts in both sets, which then have one N; see
    `interval`. Raises ValueError for sets of fewer than two pictures, of different D, or with
    values that are not finite.
    """
    a, b = _feature_pair(features_a, features_b)
    mean_a, root_a = _gaussian(a, weights)
    mean_b, root_b = _gaussian(b, weights)
    # With C = RᵀR for either set, the eigenvalues of C_a C_b that are not 0 are the squares of the
    # singular values of R_a R_bᵀ, which has a row for each picture.
    trace = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = (root_a**2).sum() + (root_b**2).sum()
    return float(((mean_a - mean_b) ** 2).sum() + spread - 2 * trace)


def _gaussian(
    features: NDArray[np.float64], weights: NDArray[np.floating] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (D,) and a root R (min(N, D), D) of the covariance RᵀR of rows (N, D)."""
    w = np.ones(len(features)) if weights is None else np.asarray(weights, np.float64)
    features, w = features[w > 0], w[w > 0]
    mean = w @ features / w.sum()
    root = np.sqrt(w / (w.sum() - 1))[:, None] * (features - mean)
    return mean, np.asarray(np.linalg.qr(root, mode="r") if len(root) > len(mean) else root)


def paired_kid(
    features_a: NDArray[np.floating],
    features_b: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
) -> float:
    """Kernel inception distance of two colorings of the same photographs, both (N, D).

    The estimator for independent sets (eq. 3 there) has k(x_i, y_i), too, which is large where both
    are one photograph, and is below 0 even for a perfect model. `weights` (N,) say how often each
    row counts; see `interval`.

    Raises
    ------
    ValueError
        For sets of fewer than two pictures, of different N or D, or with values that are not
        finite.
    """
    x, y = _feature_pair(features_a, features_b)
    if len(x) != len(y):
        raise ValueError(f"paired features must have one N, got {len(x)} and {len(y)}")
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    k_xx, k_yy, k_xy = (_kernel(u, v) for u, v in ((x, x), (y, y), (x, y)))
    h = k_xx + k_yy - k_xy - k_xy.T
    np.fill_diagonal(h, 0)
    return float(w @ h @ w / (w.sum() ** 2 - (w**2).sum()))


def interval(
    measure: Callable[[NDArray[np.float64]], float],
    photographs: Sequence[Hashable],
    resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Bootstrap interval that a measure of a set has with a probability of 95 %.

    Photographs are drawn with replacement, with all their crops, since crops of one are alike. A
    photograph that is drawn twice raises FID itself, so that the quantiles are taken about the
    median of the resamples and laid around the measure of the whole set. Raises ValueError for
    fewer than two photographs, or resamples below 2.

    Parameters
    ----------
    measure
        How often each row counts, (N,) → its value, as `frechet_distance` and `paired_kid` take it.
    photographs
        Which photograph each of the N rows is of.
    """
    names = {name: k for k, name in enumerate(dict.fromkeys(photographs))}
    if len(names) < 2 or resamples < 2:
        raise ValueError(
            "an interval needs at least 2 photographs and 2 resamples, "
            f"got {len(names)} and {resamples}"
        )
    of_row = np.array([names[name] for name in photographs])
    values = []
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        values.append(measure(drawn[of_row].astype(np.float64)))
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    whole = measure(np.ones(len(of_row)))
    return float(whole + low - middle), float(whole + high - middle)


def _kernel(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """(uᵀv / D + 1)³ of all pairs of rows."""
    return np.asarray((u @ v.T / u.shape[1] + 1) ** 3)


def colorfulness(rgb: RGB) -> float:
    """M̂⁽³⁾ of Hasler, Süsstrunk, *Measuring colourfulness in natural images*, 2003; (H, W, 3).

    0 for a gray picture. With rg = R - G and yb = (R + G) / 2 - B, each in units of 1/255, it is
    the length of (σ_rg, σ_yb) plus 0.3 times the length of (μ_rg, μ_yb).
    """
    require_rgb("rgb", rgb)
    r, g, b = np.moveaxis(rgb.astype(np.float64), -1, 0)
    rg, yb = r - g, (r + g) / 2 - b
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def psnr(a: RGB, b: RGB) -> float:
    """Peak signal-to-noise ratio in dB of two pictures (H, W, 3); infinite for equal ones."""
    _require_rgb_pair(a, b)
    squared_error = np.mean((a.astype(np.float64) - b) ** 2)
    return math.inf if squared_error == 0 else float(10 * np.log10(255**2 / squared_error))


def delta_e(rgb_a: RGB, rgb_b: RGB) -> float:
    """Mean CIEDE2000 color difference of the pixels of two pictures (H, W, 3)."""
    _require_rgb_pair(rgb_a, rgb_b)
    return float(ciede2000(srgb_to_lab(rgb_a / 255), srgb_to_lab(rgb_b / 255)).mean())


def ciede2000(lab_a: NDArray[np.floating], lab_b: NDArray[np.floating]) -> NDArray[np.float64]:
    """CIEDE2000 differences of CIELAB colors (…, 3) → (…).

    Sharma, Wu, Dalal, *The CIEDE2000 color-difference formula*, 2005, eqs. 2 to 22, with
    k_L = k_C = k_H = 1.
    """
    (L1, a1, b1), (L2, a2, b2) = (
        np.moveaxis(np.asarray(lab, np.float64), -1, 0) for lab in (lab_a, lab_b)
    )
    g = 0.5 - 0.5 * _saturation((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2)
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    C1, C2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360

    # Across 0 the shorter way round. A gray has no hue, and needs none: C1 C2 = 0 makes dH = 0.
    far = np.abs(h2 - h1) > 180
    dh = h2 - h1 - 360 * far * np.sign(h2 - h1)
    h = (h1 + h2 + 360 * far * np.where(h1 + h2 < 360, 1, -1)) / 2
    dL, dC = L2 - L1, C2 - C1
    dH = 2 * np.sqrt(C1 * C2) * np.sin(np.radians(dh / 2))
    L, C = (L1 + L2) / 2, (C1 + C2) / 2

    T = (
        1
        - 0.17 * np.cos(np.radians(h - 30))
        + 0.24 * np.cos(np.radians(2 * h))
        + 0.32 * np.cos(np.radians(3 * h + 6))
        - 0.20 * np.cos(np.radians(4 * h - 63))
    )
    S_L = 1 + 0.015 * (L - 50) ** 2 / np.sqrt(20 + (L - 50) ** 2)
    S_C = 1 + 0.045 * C
    S_H = 1 + 0.015 * C * T
    R_T = -2 * _saturation(C) * np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2))))
    dL, dC, dH = dL / S_L, dC / S_C, dH / S_H
    return np.asarray(np.sqrt(dL**2 + dC**2 + dH**2 + R_T * dC * dH))


def _saturation(C: NDArray[np.float64]) -> NDArray[np.float64]:
    """sqrt(C⁷ / (C⁷ + 25⁷)), from 0 for a gray to 1 for a strong color."""
    return np.asarray(np.sqrt(C**7 / (C**7 + 25.0**7)))


def lightness_error(rgb: RGB, L: NDArray[np.floating]) -> float:
    """Largest |L*(rgb) - L| of any pixel; rgb (H, W, 3), L (H, W) in 0 … 100."""
    require_rgb("rgb", rgb)
    if L.shape != rgb.shape[:2]:
        raise ValueError(f"L must have the size of rgb {rgb.shape[:2]}, got {L.shape}")
    return float(np.abs(lightness(rgb / 255) - L).max())


def diversity(ab_samples: NDArray[np.floating]) -> float:
    """How much samples of one photograph differ; ab_samples (K, H, W, 2), K ≥ 2, CIELAB units.

    The standard deviation over the K samples, √(Σ (x - x̄)² / (K - 1)), of every pixel and
    channel; of these the mean.
    """
    if ab_samples.ndim != 4 or ab_samples.shape[0] < 2 or ab_samples.shape[-1] != 2:
        raise ValueError(f"ab_samples must be (K, H, W, 2) with K ≥ 2, got {ab_samples.shape}")
    return float(ab_samples.std(axis=0, ddof=1, dtype=np.float64).mean())


def coarse_diversity(ab: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Mean distance of two draws' chroma, each averaged over 8 × 8 pixels, CIELAB units.

    `ab` and `other` are (…, H, W, 2) at the network's scale; pixels beyond a multiple of 8 are left
    out. What differs in it is the color of things, not the noise of single pixels. Raises
    ValueError for shapes that differ, or sides under 8.
    """
    if ab.shape != other.shape or ab.ndim < 3 or ab.shape[-1] != 2 or min(ab.shape[-3:-1]) < 8:
        raise ValueError(f"draws must be (…, H, W, 2), H, W ≥ 8, got {ab.shape}, {other.shape}")
    *_, height, width, _ = ab.shape
    apart = (ab - other)[..., : height // 8 * 8, : width // 8 * 8, :].astype(np.float64)
    blocks = apart.reshape(*ab.shape[:-3], height // 8, 8, width // 8, 8, 2).mean(axis=(-4, -2))
    return float(np.linalg.norm(blocks, axis=-1).mean())


FLAT_SHARE = 0.4
"""Share of a picture's pixels, those of the least gradient of L, on which `blotches` looks."""


def blotches(
    L: Sequence[NDArray[np.floating]],
    ab: Sequence[NDArray[np.floating]],
    true_ab: Sequence[NDArray[np.floating]],
) -> float:
    """How patchy colors are where the photographs are smooth, as a multiple of the true colors'.

    The gradient of chroma, √(|∇a*|² + |∇b*|²) after a Gaussian of 1/64 of the shorter side, is
    averaged over the 40 % of pixels where that of L* is least, and over the pictures. 1 is natural;
    flat color is below, patches are above. L: N times (H, W); ab and true_ab: N times (H, W, 2).
    """
    flat = [_flat(light) for light in L]
    ours, theirs = (
        np.mean([_gradient(c)[f].mean() for c, f in zip(colors, flat, strict=True)])
        for colors in (ab, true_ab)
    )
    return float(ours / theirs)


def _flat(L: NDArray[np.floating]) -> NDArray[np.bool_]:
    gradient = _gradient(L[..., None])
    return np.asarray(gradient <= np.quantile(gradient, FLAT_SHARE))


def _gradient(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Length of the gradient of all channels of (H, W, C) together, at 1/64 of the shorter side."""
    from scipy import ndimage

    sigma = min(image.shape[:2]) / 64
    channels = [
        ndimage.gaussian_gradient_magnitude(channel.astype(np.float64), sigma)
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.asarray(np.linalg.norm(channels, axis=0))


def _feature_pair(
    a: NDArray[np.floating], b: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    for name, features in (("features_a", a), ("features_b", b)):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"{name} must be (N, D) with N at least 2, got {features.shape}")
        if not np.isfinite(features).all():
            raise ValueError(f"{name} must be finite")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features must have one D, got {a.shape[1]} and {b.shape[1]}")
    return a.astype(np.float64), b.astype(np.float64)


def require_rgb(name: str, image: RGB) -> None:
    """ValueError for what is not uint8 (H, W, 3)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"{name} must be uint8 (H, W, 3), got {image.dtype} {image.shape}")


def _require_rgb_pair(a: RGB, b: RGB) -> None:
    require_rgb("the first picture", a)
    require_rgb("the second picture", b)
    if a.shape != b.shape:
        raise ValueError(f"pictures must be of one size, got {a.shape} and {b.shape}")
