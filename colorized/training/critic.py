"""A critic that tells colored photographs from real ones, in frozen ImageNet features.

Sauer et al., *Projected GANs Converge Faster*, 2021: a discriminator that sees pictures through a
fixed pretrained network, and there through fixed random mixtures of its channels (CCM) and scales
(CSM), learns from few pictures and needs little else to be stable. The authors found EfficientNet-
Lite the best such network. Only the heads learn: three spectrally normalized convolutions (Miyato
et al., 2018) on the mixed map of each stride.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from colorized import color
from colorized.model.encoder import LITE0, Features, SameConv, Trunk, tapped
from colorized.model.imagenet import load_imagenet_eye

EDGE = 0.1
"""Share of the gradient that passes where a color leaves the gamut, so that it can return."""


class Eye(nn.Module):
    """EfficientNet-Lite0 on colors, as trained on ImageNet and frozen.

    sRGB (B, 3, H, W) in [0, 1] → maps at strides 2, 4, 8, 16 and 32.
    """

    channels = tapped(LITE0)

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, 2)
        self.trunk = Trunk(LITE0)
        load_imagenet_eye(self.stem, self.trunk)
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, rgb: Tensor) -> Features:
        h = F.relu6(self.stem((rgb * 255 - 127) / 128), inplace=True)
        maps: Features = self.trunk(h)
        return maps


class Mixer(nn.Module):
    """Fixed random mixtures of the eye's channels, and of its scales from coarse to fine."""

    def __init__(self, width: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.channels = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in Eye.channels)
            self.scales = nn.ModuleList(
                nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in Eye.channels
            )
            for module in (*self.channels, *self.scales):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        self.requires_grad_(False)

    def forward(self, maps: Features) -> list[Tensor]:
        """The maps with their channels and scales mixed."""
        mixed = [mix(m) for mix, m in zip(self.channels, maps, strict=True)]
        down: list[Tensor] = []
        for m, mix in zip(reversed(mixed), reversed(self.scales), strict=True):
            h = (m + F.interpolate(down[-1], m.shape[-2:])) * 0.5**0.5 if down else m
            down.append(mix(h))
        return down[::-1]


class Critic(nn.Module):
    """Eye, mixtures and heads; only the heads have anything to learn.

    `width` is the number of channels of the mixed maps.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.eye, self.mixer = Eye(), Mixer(width)
        self.heads = nn.ModuleList(_head(width, 2 if i < 3 else 1) for i in range(5))
        self.register_buffer("rms", torch.zeros(5))
        self.rms: Tensor

    def see(self, lightness: Tensor, ab: Tensor) -> list[Tensor]:
        """What the critic sees of L* (B, 1, H, W) in chroma ab (B, 2, H/2, W/2), CIELAB units.

        The mixed maps of `Mixer`, through which gradients reach ab.
        """
        ab = F.interpolate(ab.float(), scale_factor=2.0, mode="bilinear")
        maps: list[Tensor] = self.mixer(self.eye(srgb(lightness, ab)))
        return maps

    def calibrate(self, maps: list[Tensor], mean: Callable[[Tensor], Tensor]) -> None:
        """Let the heads' inputs be near 1: scale by the root mean square of the first true maps.

        `mean`: of a scalar over the processes that train together.
        """
        if not self.rms.any():
            squares = [mean(m.detach().float().square().mean()) for m in maps]
            self.rms.copy_(torch.stack(squares).sqrt())

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """How real each place of the mixed maps looks, a map for each stride; any real number."""
        return [
            head(m / rms.to(m.dtype))
            for head, m, rms in zip(self.heads, maps, self.rms, strict=True)
        ]

    def learned(self) -> dict[str, Any]:
        """What `load_learned` needs: the state without the frozen parts."""
        return {"heads": self.heads.state_dict(), "rms": self.rms}

    def load_learned(self, state: dict[str, Any]) -> None:
        """Go on from `learned`'s values."""
        self.heads.load_state_dict(state["heads"])
        self.rms.copy_(state["rms"])


def _head(width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(width, 128, 3, stride, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(128, 128, 3, 1, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(128, 1, 3, 1, 1)),
    )


def srgb(lightness: Tensor, ab: Tensor) -> Tensor:
    """sRGB (B, 3, H, W) in [0, 1] of L* (B, 1, H, W) and ab (B, 2, H, W), clipped to the gamut."""
    a, b = ab.float().unbind(1)
    linear = torch.stack(color.lab_planes_to_linear(lightness[:, 0].float(), a, b), 1)
    inside: Tensor = _Clip.apply(linear)
    return color.linear_to_srgb(inside)


class _Clip(torch.autograd.Function):
    """clamp(x, 0, 1), whose gradient beyond is `EDGE` times what it would be inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where((x < 0) | (x > 1), EDGE * gradients[0], gradients[0])
