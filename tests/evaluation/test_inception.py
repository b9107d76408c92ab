"""Inception features against the packaged network and against pytorch-fid's own path."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image

from colorized.evaluation import inception, metrics
from colorized.evaluation._torchvision_shim import import_torchvision

Pictures: TypeAlias = tuple[list[metrics.RGB], list[metrics.RGB]]
Features: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]


def crops(photo: metrics.RGB, count: int) -> list[metrics.RGB]:
    """299-pixel pieces along the diagonal of a photograph."""
    height, width = photo.shape[0] - 299, photo.shape[1] - 299
    starts = [(i * height // count, i * width // count) for i in range(count)]
    return [np.ascontiguousarray(photo[y : y + 299, x : x + 299]) for y, x in starts]


@pytest.fixture(scope="module")
def photos() -> Pictures:
    """Two sets of 299-pixel pictures: a portrait and a cat, and a cup of coffee."""
    portrait = crops(skimage.data.astronaut(), 4) + crops(skimage.data.chelsea(), 2)
    return portrait, crops(skimage.data.coffee(), 6)


@pytest.fixture(scope="module")
def extractor() -> inception.InceptionExtractor:
    state = torch.random.get_rng_state()
    extractor = inception.InceptionExtractor()
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers were used"
    return extractor


@pytest.fixture(scope="module")
def features(extractor: inception.InceptionExtractor, photos: Pictures) -> Features:
    a, b = photos
    return extractor.features(a), extractor.features(b)


def test_features_are_those_of_pytorch_fid(
    photos: Pictures, features: Features, tmp_path: Path
) -> None:
    """Its own path from PNG files to features, by the TorchScript network as it is packaged."""
    import_torchvision()
    from pytorch_fid.fid_score import get_activations

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
        network = torch.jit.load(inception.packaged_weights(), map_location="cpu")

    class Packaged(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
            return [network(2 * batch - 1)[..., None, None]]

    files = [tmp_path / f"{i}.png" for i in range(len(photos[0]))]
    for file, picture in zip(files, photos[0], strict=True):
        Image.fromarray(picture).save(file)
    expected = get_activations(files, Packaged(), batch_size=6, num_workers=0)
    assert features[0].shape == (6, 2048)
    assert features[0].dtype == np.float32
    assert expected.std(axis=0).mean() > 0.05  # they do differ from picture to picture
    np.testing.assert_allclose(features[0], expected, rtol=0, atol=1e-4)


def test_pictures_of_different_sizes_and_batches(
    extractor: inception.InceptionExtractor,
    photos: Pictures,
    features: Features,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[int] = []
    mixed = iter([photos[0][0], photos[0][1][:40, :97], photos[1][0]])  # any iterable will do
    monkeypatch.setattr(inception, "BATCH", 2)
    found = extractor.features(mixed, progress=done.append)
    assert done == [2, 1]
    np.testing.assert_allclose(found[0], features[0][0], atol=1e-4)
    np.testing.assert_allclose(found[2], features[1][0], atol=1e-4)
    assert np.abs(found[1] - features[0][1]).max() > 0.1


def test_features_of_nothing(extractor: inception.InceptionExtractor) -> None:
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
    extractor: inception.InceptionExtractor, wrong: NDArray[np.generic]
) -> None:
    right = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(ValueError, match=r"images\[1\] must be uint8 \(H, W, 3\)"):
        extractor.features([right, wrong])
    for function in (inception.resize_299, metrics.colorfulness):
        with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\)"):
            function(wrong)
    for function in (metrics.psnr, metrics.delta_e):
        with pytest.raises(ValueError, match="the second picture must be uint8"):
            function(right, wrong)


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "weights.pt"
    shutil.copy(inception.packaged_weights(), changed)
    with changed.open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    monkeypatch.setattr(inception, "packaged_weights", lambda: changed)
    with pytest.raises(
        ValueError, match=f"weights.pt does not hold .* not {inception.EXTRACTOR_SHA256}"
    ):
        inception.InceptionExtractor()


@pytest.mark.parametrize("shape", [(150, 100), (299, 512), (640, 427), (1, 1)])
def test_resize_is_antialiased_bicubic(shape: tuple[int, int], rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(x, (299, 299), mode="bicubic", antialias=True)
    found = inception.resize_299(image)
    assert (found.shape, found.dtype) == ((299, 299, 3), np.float32)
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0).clamp(0, 255), atol=1e-3)


def test_resize_leaves_299_alone(photos: Pictures) -> None:
    np.testing.assert_array_equal(inception.resize_299(photos[0][0]), photos[0][0])


# --- The cache of features


class Calls:
    """Stands in for the network: mean colors as features, and a count of the calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, images: list[metrics.RGB], *_: object) -> NDArray[np.float32]:
        self.count += 1
        return np.array([image.mean(axis=(0, 1)) for image in images], np.float32)


@pytest.fixture
def calls(extractor: inception.InceptionExtractor, monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(extractor, "features", calls)
    return calls


def test_cache_returns_the_same_bits(
    extractor: inception.InceptionExtractor,
    photos: Pictures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path / "not" / "there"
    first = inception.cached_features(extractor, photos[0][:1], cache)
    assert [path.suffix for path in cache.iterdir()] == [".npy"]
    monkeypatch.setattr(extractor, "features", None)
    second = inception.cached_features(extractor, photos[0][:1], cache)
    assert first.shape == (1, 2048)
    assert first.dtype == second.dtype
    assert first.tobytes() == second.tobytes()


def test_cache_knows_pictures_by_content(
    extractor: inception.InceptionExtractor,
    calls: Calls,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [rng.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(3)]
    inception.cached_features(extractor, images, tmp_path)
    inception.cached_features(extractor, [image.copy() for image in images], tmp_path)
    assert calls.count == 1

    changed = [image.copy() for image in images]
    changed[2][0, 0, 0] ^= 1
    inception.cached_features(extractor, changed, tmp_path)
    assert calls.count == 2
    inception.cached_features(extractor, images[::-1], tmp_path)
    assert calls.count == 3
    # The same bytes in another shape, and cut into other pictures.
    inception.cached_features(extractor, [image.reshape(6, 4, 3) for image in images], tmp_path)
    assert calls.count == 4
    inception.cached_features(extractor, [np.concatenate(images)], tmp_path)
    assert calls.count == 5
    monkeypatch.setattr(extractor, "sha256", "another")
    inception.cached_features(extractor, images, tmp_path)
    assert calls.count == 6


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "swapped"])
def test_damaged_cache_is_computed_again(
    damage: str,
    extractor: inception.InceptionExtractor,
    calls: Calls,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    images = [rng.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(3)]
    expected = inception.cached_features(extractor, images, tmp_path)
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
    again = inception.cached_features(extractor, images, tmp_path)
    assert calls.count == 2
    np.testing.assert_array_equal(again, expected)
    assert path.read_bytes() == whole
    inception.cached_features(extractor, images, tmp_path)
    assert calls.count == 2
    assert list(tmp_path.iterdir()) == [path]
