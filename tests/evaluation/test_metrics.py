"""Metrics against closed forms, published values and other people's implementations."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.linalg
import skimage.color
import skimage.data
import skimage.metrics
import torch
from numpy.typing import NDArray

from colorized.evaluation import metrics
from colorized.evaluation._torchvision_shim import import_torchvision

# Sharma, Wu, Dalal (2005), table 1, pairs 7 to 16, which random ones never are: grays and opposite
# hues. L1 a1 b1, L2 a2 b2, and their CIEDE2000 difference.
SHARMA = np.array(
    [
        [50.0000, 0.0000, 0.0000, 50.0000, -1.0000, 2.0000, 2.3669],
        [50.0000, -1.0000, 2.0000, 50.0000, 0.0000, 0.0000, 2.3669],
        [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0009, 7.1792],
        [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0010, 7.1792],
        [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0011, 7.2195],
        [50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0012, 7.2195],
        [50.0000, -0.0010, 2.4900, 50.0000, 0.0009, -2.4900, 4.8045],
        [50.0000, -0.0010, 2.4900, 50.0000, 0.0010, -2.4900, 4.8045],
        [50.0000, -0.0010, 2.4900, 50.0000, 0.0011, -2.4900, 4.7461],
        [50.0000, 2.5000, 0.0000, 50.0000, 0.0000, -2.5000, 4.3065],
    ]
)


# --- Distances of sets of features


def test_frechet_distance_of_shifted_set_is_squared_shift(rng: np.random.Generator) -> None:
    a = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))
    shift = np.array([1.0, -2.0, 0.5, 3.0])
    found = metrics.frechet_distance(a, a + shift)
    assert found == pytest.approx(1 + 4 + 0.25 + 9, abs=1e-6)
    assert metrics.frechet_distance(a + shift, a) == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize(("count", "dims"), [(500, 4), (6, 300)])
def test_frechet_distance_of_a_set_to_itself(
    count: int, dims: int, rng: np.random.Generator
) -> None:
    a = rng.gamma(1, 0.3, size=(count, dims))
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("n", "m", "dims"), [(10, 15, 120), (3, 200, 120), (400, 300, 50)])
def test_frechet_distance_is_that_of_the_matrix_root(
    n: int, m: int, dims: int, rng: np.random.Generator
) -> None:
    """For fewer pictures than dimensions and for more, by SciPy's root of either covariance."""
    a, b = rng.gamma(1, 0.3, (n, dims)), rng.gamma(1, 0.5, (m, dims))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = scipy.linalg.eigh(cov_a)
    root_a = vectors * np.sqrt(values.clip(0)) @ vectors.T
    trace = np.sqrt(scipy.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b) - 2 * trace
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_rows_that_count_twice_are_rows_that_are_there_twice(rng: np.random.Generator) -> None:
    a, b = rng.gamma(1, 0.3, (9, 5)), rng.gamma(1, 0.5, (9, 5))
    counts = np.array([0, 1, 2, 1, 3, 0, 1, 1, 0])
    twice = [np.repeat(x, counts, axis=0) for x in (a, b)]
    found = metrics.frechet_distance(a, b, counts)
    assert found == pytest.approx(metrics.frechet_distance(*twice), rel=1e-9)
    # Pairs of one photograph do not count, so that a distance of pairs is that of those drawn once.
    once = (counts > 0).astype(float)
    few = metrics.paired_kid(a[counts > 0], b[counts > 0])
    assert metrics.paired_kid(a, b, once) == pytest.approx(few)


def test_frechet_distance_of_constants_is_quiet() -> None:
    """Their covariances are singular, which SciPy remarks upon."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.frechet_distance(np.zeros((4, 3)), np.ones((4, 3))) == pytest.approx(3)


def mmd(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """By torchmetrics: the squared discrepancy of independent sets, and the kernel across them."""
    import_torchvision()
    from torchmetrics.image.kid import poly_kernel, poly_mmd

    a, b = torch.from_numpy(x), torch.from_numpy(y)
    return float(poly_mmd(a, b)), poly_kernel(a, b).numpy()


def test_paired_kid_matches_torchmetrics(rng: np.random.Generator) -> None:
    """But for the pairs, which theirs has in its last term."""
    a, b = rng.gamma(1, 0.3, (40, 64)), rng.gamma(1, 0.5, (40, 64))
    theirs, across = mmd(a, b)
    others = across[~np.eye(40, dtype=bool)]
    expected = theirs + 2 * across.mean() - 2 * others.mean()
    assert metrics.paired_kid(a, b) == pytest.approx(expected, rel=1e-9)
    assert expected > 0


def test_paired_kid_of_a_perfect_model_is_not_below_zero(rng: np.random.Generator) -> None:
    """Another draw of the same photographs: features that share most of what they vary by."""
    paired, independent = [], []
    for _ in range(300):
        photographs = rng.gamma(1, 0.3, (30, 8))
        a, b = (photographs + rng.normal(0, 0.05, photographs.shape) for _ in range(2))
        paired.append(metrics.paired_kid(a, b))
        independent.append(mmd(a, b)[0])
    error = np.std(paired) / math.sqrt(len(paired))
    assert abs(np.mean(paired)) < 4 * error
    assert np.mean(independent) < -20 * error  # why it is not measured that way
    # Of independent sets, both estimate the same.
    pairs = [(rng.gamma(1, 0.3, (30, 8)), rng.gamma(1, 0.35, (30, 8))) for _ in range(300)]
    gaps = [metrics.paired_kid(a, b) - mmd(a, b)[0] for a, b in pairs]
    assert abs(np.mean(gaps)) < 4 * np.std(gaps) / math.sqrt(len(gaps))


def test_paired_kid_refuses(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="one N, got 4 and 5"):
        metrics.paired_kid(rng.normal(size=(4, 3)), rng.normal(size=(5, 3)))


def test_intervals_hold_the_mean_as_often_as_they_say(rng: np.random.Generator) -> None:
    """A mean over crops, of which those of one photograph are alike."""
    hits = {"photographs": 0, "crops": 0}
    for _ in range(300):
        of = np.repeat(np.arange(30), 4)
        values = rng.normal(size=30)[of] + rng.normal(0, 0.1, 120)
        for name, groups in (("photographs", of), ("crops", np.arange(120))):
            low, high = metrics.interval(
                lambda w, values=values: float(w @ values / w.sum()), groups.tolist(), 200, rng
            )
            hits[name] += low <= 0 <= high
    assert 0.88 < hits["photographs"] / 300 < 0.99
    assert hits["crops"] / 300 < 0.8  # crops are no independent witnesses
    with pytest.raises(ValueError, match="at least 2 photographs and 2 resamples, got 1 and 9"):
        metrics.interval(lambda w: 0.0, ["a", "a"], 9, rng)


def test_intervals_of_distances_hold_the_distance(rng: np.random.Generator) -> None:
    a, b = rng.gamma(1, 0.3, (60, 6)), rng.gamma(1, 0.5, (60, 6))
    for measure in (metrics.frechet_distance, metrics.paired_kid):
        low, high = metrics.interval(
            lambda w, measure=measure: measure(a, b, w), range(60), 200, rng
        )
        assert 0 < low < measure(a, b) < high


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (np.zeros((1, 3)), r"features_b .* got \(1, 3\)"),
        (np.zeros(3), r"features_b .* got \(3,\)"),
        (np.zeros((4, 2)), "one D, got 3 and 2"),
        (np.full((4, 3), np.nan), "features_b must be finite"),
    ],
)
def test_frechet_distance_refuses(b: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.frechet_distance(np.zeros((4, 3)), b)


# --- Measures of single pictures


def flat(*rgb: int) -> metrics.RGB:
    """A picture (2, 4, 3) of one color."""
    return np.broadcast_to(np.array(rgb, np.uint8), (2, 4, 3)).copy()


def test_colorfulness_by_hand() -> None:
    assert metrics.colorfulness(flat(90, 90, 90)) == 0
    # All red: rg = 255, yb = 127.5, no deviation.
    expected = 0.3 * math.hypot(255, 127.5)
    assert metrics.colorfulness(flat(255, 0, 0)) == pytest.approx(expected)
    # Half red, half blue: rg = 255 or 0, yb = 127.5 or -255.
    halves = np.concatenate([flat(255, 0, 0), flat(0, 0, 255)])
    expected = math.hypot(127.5, 191.25) + 0.3 * math.hypot(127.5, -63.75)
    assert metrics.colorfulness(halves) == pytest.approx(expected)


def test_psnr_matches_scikit_image(rng: np.random.Generator) -> None:
    a = skimage.data.astronaut()
    b = (a + rng.normal(0, 9, a.shape)).clip(0, 255).astype(np.uint8)
    expected = skimage.metrics.peak_signal_noise_ratio(a, b)
    assert metrics.psnr(a, b) == pytest.approx(expected, rel=1e-12)
    assert metrics.psnr(a, a) == math.inf
    with pytest.raises(ValueError, match="one size"):
        metrics.psnr(a, a[1:])


def test_ciede2000_of_published_pairs() -> None:
    a, b, expected = SHARMA[:, :3], SHARMA[:, 3:6], SHARMA[:, 6]
    np.testing.assert_allclose(metrics.ciede2000(a, b), expected, atol=5.1e-5)
    np.testing.assert_allclose(metrics.ciede2000(b, a), expected, atol=5.1e-5)


def test_ciede2000_matches_scikit_image(rng: np.random.Generator) -> None:
    low, high = [0, -110, -110], [100, 110, 110]
    a, b = rng.uniform(low, high, (2, 100, 90, 3))
    found = metrics.ciede2000(a, b)
    assert found.shape == (100, 90)
    np.testing.assert_allclose(found, skimage.color.deltaE_ciede2000(a, b), atol=1e-9)


def test_delta_e_of_pictures() -> None:
    a, b = skimage.data.chelsea(), skimage.data.chelsea()[:, ::-1]
    lab_a, lab_b = skimage.color.rgb2lab(a), skimage.color.rgb2lab(b)
    expected = skimage.color.deltaE_ciede2000(lab_a, lab_b).mean()
    assert expected > 5
    assert metrics.delta_e(a, b) == pytest.approx(expected, abs=1e-3)
    assert metrics.delta_e(a, a) == 0


def test_lightness_error() -> None:
    rgb = skimage.data.chelsea()
    L = skimage.color.rgb2lab(rgb)[..., 0]
    assert metrics.lightness_error(rgb, L) < 1e-3
    L[3, 5] -= 2.5
    L[7, 1] += 1.5
    assert metrics.lightness_error(rgb, L) == pytest.approx(2.5, abs=1e-3)
    with pytest.raises(ValueError, match="L must have the size of rgb"):
        metrics.lightness_error(rgb, L[1:])


def test_diversity_by_hand() -> None:
    samples = np.zeros((4, 5, 6, 2))
    assert metrics.diversity(samples) == 0
    # One channel of every pixel is -3, -1, 1, 3: variance 20 / 3. The other does not vary.
    samples[..., 0] = np.array([-3, -1, 1, 3])[:, None, None]
    assert metrics.diversity(samples + 40) == pytest.approx(math.sqrt(20 / 3) / 2)
    for wrong in (samples[:1], samples[0], samples[..., :1]):
        with pytest.raises(ValueError, match="ab_samples must be"):
            metrics.diversity(wrong)


def test_coarse_diversity_is_that_of_blocks_of_8(rng: np.random.Generator) -> None:
    ab = rng.normal(0, 10, (2, 24, 17, 2))
    noise = rng.choice([-9.0, 9.0], (2, 24, 8, 2))
    fine = np.concatenate([noise, -noise], axis=2)[..., [0, 8, 1, 9, 2, 10, 3, 11] * 2, :]
    other = ab.copy()
    other[:, :, :16] += fine  # in each row of a block as much up as down
    other[:, :, 16] += 99  # beyond the last block
    assert metrics.coarse_diversity(ab, other) == pytest.approx(0, abs=1e-9)
    assert metrics.coarse_diversity(ab, other + np.array([3, 4])) == pytest.approx(5)
    with pytest.raises(ValueError, match="draws must be"):
        metrics.coarse_diversity(ab[:, :7], other[:, :7])


def test_blotches_are_patches_where_the_photograph_is_smooth(rng: np.random.Generator) -> None:
    """A gray wall beside a checkered cloth; only what happens on the wall counts."""
    y, x = np.mgrid[:128, :128]
    L = np.where(x < 64, 60.0, 30.0 + 40 * ((x // 4 + y // 4) % 2))
    ab = np.stack([x / 8.0, y / 16.0], axis=-1)
    assert metrics.blotches([L], [ab], [ab]) == 1
    assert metrics.blotches([L], [0 * ab], [ab]) == 0
    assert metrics.blotches([L, L], [2 * ab, ab], [ab, ab]) == pytest.approx(1.5)
    cloth, wall = ab.copy(), ab.copy()
    cloth[:, 80:] += 20 * rng.normal(size=(128, 48, 2))
    patches = np.kron(rng.normal(size=(8, 8, 2)), np.ones((16, 16, 1)))
    wall[:, :64] += 5 * patches[:, :64]
    assert metrics.blotches([L], [cloth], [ab]) == pytest.approx(1, abs=0.01)
    assert metrics.blotches([L], [wall], [ab]) > 1.5
