"""Networks; they know nothing of diffusion.

`ChromaUNet` predicts two chroma planes at half the size of the lightness they belong to. It has
two parts, because the lightness is the same at every sampling step:

* `LightnessEncoder` looks at L once per photograph; see `encoder`.
* the denoising U-Net (Ronneberger et al., 2015; Ho et al., 2020) runs once per step. It sees the
  noisy chroma through a 2×2 space-to-depth, so that its levels lie at strides 4, 8 and 16 of L,
  where the encoder's features are. Back at stride 4 it gives its answer, to which a few thin layers
  at stride 2 add what is finer. What is in the picture scales and shifts its normalizations, as the
  noise level does.

Everything is convolutional, save self-attention at stride 16 that knows no positions: any height
and width that are multiples of 16 will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorized.model.encoder import Features, LightnessEncoder

STRIDE = 16
"""Heights and widths of L must be multiples of this."""

FEATURE_RMS = 8.0
"""About that of the encoder's maps, as trained on ImageNet; the U-Net's own are near 1, and would
be drowned for the first thousand steps. A power of two, so that dividing by it rounds nothing."""


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, the second normalisation scaled and shifted by the time embedding."""

    def __init__(self, channels: int, time_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Linear(time_channels, 2 * channels)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = _zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        return x + self.conv2(F.silu(h))


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions, residual, without position codes."""

    def __init__(self, channels: int, head_channels: int = 32) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(-1, -2).reshape(B, C, H, W))


class ChromaUNet(nn.Module):
    """Lightness encoder and denoising U-Net.

    Parameters
    ----------
    channels
        Widths of the U-Net at strides 4, 8 and 16 of L: the last a multiple of 32, the others of 8.
    time_channels
        Width of the time embedding.
    """

    def __init__(self, channels: Sequence[int] = (64, 112, 128), time_channels: int = 128) -> None:
        super().__init__()
        if len(channels) != 3 or any(c <= 0 or c % 8 for c in channels) or channels[-1] % 32:
            raise ValueError(
                f"channels must be three multiples of 8, the last also of 32, got {list(channels)}"
            )
        c4, c8, c16 = channels
        self.channels = (c4, c8, c16)
        self.time_channels = time_channels
        self.encoder = LightnessEncoder()

        # Features enter every level twice, on the way down and on the way up; those of stride 32
        # enter the one at stride 16.
        c2 = 24
        widths = (c2, 2 * c4, 2 * c8, c16, c16)
        self.condition = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 1)
            for c_in, c_out in zip(LightnessEncoder.channels, widths, strict=True)
        )
        self.content = nn.Linear(LightnessEncoder.pooled, time_channels)
        self.time = nn.Sequential(
            nn.Linear(64, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels)
        )
        self.stem = nn.Conv2d(8, c4, 3, padding=1)
        self.down4 = ResidualBlock(c4, time_channels)
        self.to8 = nn.Conv2d(c4, c8, 3, stride=2, padding=1)
        self.down8 = ResidualBlock(c8, time_channels)
        self.to16 = nn.Conv2d(c8, c16, 3, stride=2, padding=1)
        self.middle1 = ResidualBlock(c16, time_channels)
        self.attention = SelfAttention(c16)
        self.middle2 = ResidualBlock(c16, time_channels)
        self.attention2 = SelfAttention(c16)
        self.middle3 = ResidualBlock(c16, time_channels)
        self.from16 = nn.Conv2d(c16, c8, 1)
        self.up8 = ResidualBlock(c8, time_channels)
        self.from8 = nn.Conv2d(c8, c4, 1)
        self.up4 = ResidualBlock(c4, time_channels)
        self.out4 = _zeroed(nn.Conv2d(c4, 4 * 2, 3, padding=1))
        self.head4 = nn.Conv2d(c4, 4 * c2, 1)
        self.head_x = nn.Conv2d(2, c2, 3, padding=1)
        self.head2 = nn.Conv2d(c2, c2, 3, padding=1)
        self.out = _zeroed(nn.Conv2d(c2, 2, 3, padding=1))

    def encode(self, lightness: Tensor) -> Features:
        """What the U-Net needs to know of L* (B, 1, H, W), 0 … 100; once per photograph.

        Raises
        ------
        ValueError
            When H or W is no multiple of `STRIDE`.
        """
        if lightness.shape[-2] % STRIDE or lightness.shape[-1] % STRIDE:
            size = tuple(lightness.shape[-2:])
            raise ValueError(f"height and width must be multiples of {STRIDE}, got {size}")
        *features, pooled = self.encoder(lightness)
        cond = [proj(f / FEATURE_RMS) for proj, f in zip(self.condition, features, strict=True)]
        cond[3] = cond[3] + F.interpolate(cond.pop(), cond[3].shape[-2:])
        return *cond, self.content(pooled)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Features) -> Tensor:
        """One evaluation.

        Parameters
        ----------
        x
            Noisy chroma (B, 2, H/2, W/2), of about unit variance.
        noise_level
            (B,), any real number that tells how noisy x is; about -3 … 3.
        cond
            From `encode`, for the same B.

        Returns
        -------
        Tensor
            (B, 2, H/2, W/2).
        """
        cond2, cond4, cond8, cond16, content = cond
        down4, up4 = cond4.chunk(2, dim=1)
        down8, up8 = cond8.chunk(2, dim=1)
        time = F.silu(self.time(fourier(noise_level).to(x.dtype)) + content)

        h4 = self.down4(self.stem(F.pixel_unshuffle(x, 2)) + down4, time)
        h8 = self.down8(self.to8(h4) + down8, time)
        h = self.middle1(self.to16(h8) + cond16, time)
        h = self.middle2(self.attention(h), time)
        h = self.middle3(self.attention2(h), time)
        h = self.up8(F.interpolate(self.from16(h), scale_factor=2.0) + h8 + up8, time)
        h = self.up4(F.interpolate(self.from8(h), scale_factor=2.0) + h4 + up4, time)
        coarse = F.pixel_shuffle(self.out4(h), 2)
        h = F.pixel_shuffle(self.head4(h), 2) + self.head_x(x) + cond2
        h = F.silu(self.head2(F.silu(h)))
        return coarse + self.out(h)


def fourier(noise_level: Tensor, channels: int = 64) -> Tensor:
    """cos and sin of the noise level at frequencies from 1/4 to 8: (B,) → (B, channels)."""
    exponents = torch.linspace(-2, 3, channels // 2, device=noise_level.device)
    angle = noise_level.float()[:, None] * (2.0**exponents)[None, :] * (math.pi / 2)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The same layer with weights and bias 0, so that a fresh block is the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
