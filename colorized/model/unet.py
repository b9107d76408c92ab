"""The denoising network; it knows nothing of diffusion.

`ChromaUNet` predicts two chroma planes at half the size of the lightness they belong to. It has
two parts, because the lightness is the same at every evaluation: `encode` looks at L once per
photograph (`colorized.model.encoder`), and the denoising U-Net (Ronneberger et al., 2015; Ho et
al., 2020) runs once per evaluation.

The U-Net sees the noisy chroma through a 2×2 space-to-depth, so that its levels lie at strides 4, 8
and 16 of L, where the encoder's features are. Most of what makes colors agree with each other
happens at stride 16, where a photograph is 100 to 150 positions: there a transformer (Vaswani et
al., 2017) relates every position to every other. Its tokens are the encoder's features at strides
16 and 32 and of the whole picture, the U-Net's own, and the noisy chroma averaged over each
position. The average is scaled to unit variance at every noise level: the noise that decides the
color of an object is that average, and at its own scale it would be an eighth of a pixel's.

Back at stride 4 the U-Net gives its answer, to which a few thin layers at stride 2 add detail. What
is in the picture scales and shifts its normalizations, as the noise level does.

Positions enter through convolutions alone, so any height and width that are multiples of 16 will
do.
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
HEAD = 32
"""Channels of a head of attention."""

FEATURE_RMS = 8.0
"""About that of the encoder's maps, as trained on ImageNet; the U-Net's own are near 1, and would
be drowned for the first thousand steps. A power of two, so that dividing by it rounds nothing."""

POSITION_VARIANCE, PICTURE_VARIANCE = 0.7, 0.3
"""Of chroma averaged over 8×8 of its pixels and over a whole photograph, when a pixel's is 1."""


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, the second normalization scaled and shifted by the time embedding."""

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

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // HEAD
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = attend(q, k, v)
        return x + self.out(h.transpose(-1, -2).reshape(B, C, H, W))


class TransformerBlock(nn.Module):
    """Self-attention and a gated-by-time MLP with a depthwise 3×3 convolution, both residual.

    The time embedding scales and shifts the normalizations (Peebles, Xie, *Scalable Diffusion
    Models with Transformers*, 2023); the convolution tells positions (Xie et al., *SegFormer*,
    2021). Queries and keys are normalized (Dehghani et al., *ViT-22B*, 2023).
    """

    def __init__(self, width: int, time_channels: int) -> None:
        super().__init__()
        hidden = 3 * width
        self.heads = width // HEAD
        self.modulation = nn.Linear(time_channels, 4 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = nn.RMSNorm(HEAD), nn.RMSNorm(HEAD)
        self.project = nn.Linear(width, width)
        self.expand = nn.Linear(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.reduce = nn.Linear(hidden, width)
        for layer in (self.project, self.reduce):  # a fresh block changes little
            nn.init.normal_(layer.weight, std=0.2 / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, time: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens (B, h·w, C), time embedding (B, time_channels) and (h, w) → (B, h·w, C)."""
        B, N, C = x.shape
        scale1, shift1, scale2, shift2 = self.modulation(time)[:, None].chunk(4, dim=-1)
        h = F.layer_norm(x, (C,)) * (1 + scale1) + shift1
        qkv = self.qkv(h).view(B, N, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        h = attend(_rms_norm(self.q_norm, q), _rms_norm(self.k_norm, k), v)
        x = x + self.project(h.transpose(1, 2).reshape(B, N, C))
        h = F.layer_norm(x, (C,)) * (1 + scale2) + shift2
        h = self.expand(h).transpose(1, 2).view(B, -1, *size)
        h = F.gelu(h + self.depthwise(h), approximate="tanh")
        return x + self.reduce(h.flatten(2).transpose(1, 2))


def _rms_norm(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    # Weights of x's own dtype, else torch warns in bfloat16.
    return F.rms_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.eps)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention (…, N, C) of queries, keys and values (…, N, C), in plain operations.

    For a few hundred positions on a CPU the fused kernel's backward pass takes five times as long.
    """
    weights = torch.softmax(q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2), dim=-1)
    return weights.to(v.dtype) @ v


class ChromaUNet(nn.Module):
    """Lightness encoder and denoising U-Net.

    Parameters
    ----------
    channels
        Widths of the U-Net at strides 4, 8 and 16 of L: the last a multiple of 32, the others of 8.
    time_channels
        Width of the time embedding.
    width
        Of the transformer's tokens, a multiple of 32.
    depth
        Transformer blocks.

    Raises
    ------
    ValueError
        For widths that are no such multiples, or a negative depth.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 112, 128),
        time_channels: int = 128,
        width: int = 256,
        depth: int = 6,
    ) -> None:
        super().__init__()
        if len(channels) != 3 or any(c <= 0 or c % 8 for c in channels) or channels[-1] % 32:
            raise ValueError(
                f"channels must be three multiples of 8, the last also of 32, got {list(channels)}"
            )
        if width <= 0 or width % 32 or depth < 0:
            raise ValueError(
                f"width must be a multiple of 32 and depth not negative, got {width} and {depth}"
            )
        c4, c8, c16 = channels
        self.width, self.depth = width, depth
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
        self.tokens16 = nn.Conv2d(LightnessEncoder.channels[3], width, 1)
        self.tokens32 = nn.Conv2d(LightnessEncoder.channels[4], width, 1)
        self.tokens_content = nn.Linear(LightnessEncoder.pooled, width)
        self.tokens_state = nn.Conv2d(c16, width, 1)
        self.tokens_chroma = nn.Conv2d(2, width, 1)
        self.tint = nn.Linear(2, time_channels)
        nn.init.zeros_(self.tint.weight)
        nn.init.zeros_(self.tint.bias)
        self.blocks = nn.ModuleList(TransformerBlock(width, time_channels) for _ in range(depth))
        self.from_tokens = _zeroed(nn.Conv2d(width, c16, 1))
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
        self.draw = nn.Parameter(torch.zeros(time_channels))

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
        maps = [f / FEATURE_RMS for f in features]
        size = maps[3].shape[-2:]
        cond = [proj(f) for proj, f in zip(self.condition, maps, strict=True)]
        cond[3] = cond[3] + F.interpolate(cond.pop(), size)
        tokens = self.tokens16(maps[3]) + F.interpolate(self.tokens32(maps[4]), size)
        tokens = tokens + self.tokens_content(pooled)[:, :, None, None]
        return (*cond, tokens, self.content(pooled))

    def asked_to_draw(self, cond: Features) -> Features:
        """The condition from `encode`, but for a draw of the colors instead of their mean.

        The adversarial finish teaches the network to draw.
        """
        return (*cond[:-1], cond[-1] + self.draw)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Features) -> Tensor:
        """One evaluation.

        Parameters
        ----------
        x
            Noisy chroma (B, 2, H/2, W/2), of about unit variance.
        noise_level
            (B,): ½ ln σ, where σ is the noise's deviation in units of the clean chroma's; about
            -3 … 5.
        cond
            From `encode`, for the same B.

        Returns
        -------
        Tensor
            (B, 2, H/2, W/2).
        """
        cond2, cond4, cond8, cond16, tokens, content = cond
        down4, up4 = cond4.chunk(2, dim=1)
        down8, up8 = cond8.chunk(2, dim=1)
        positions, picture = averages(x, noise_level)
        time = F.silu(self.time(fourier(noise_level).to(x.dtype)) + content + self.tint(picture))

        h4 = self.down4(self.stem(F.pixel_unshuffle(x, 2)) + down4, time)
        h8 = self.down8(self.to8(h4) + down8, time)
        h = self.middle1(self.to16(h8) + cond16, time)
        h = self.middle2(self.attention(h), time)
        h = h + self._transformed(
            self.tokens_state(h) + self.tokens_chroma(positions) + tokens, time
        )
        h = self.middle3(self.attention2(h), time)
        h = self.up8(F.interpolate(self.from16(h), scale_factor=2.0) + h8 + up8, time)
        h = self.up4(F.interpolate(self.from8(h), scale_factor=2.0) + h4 + up4, time)
        coarse = F.pixel_shuffle(self.out4(h), 2)
        h = F.pixel_shuffle(self.head4(h), 2) + self.head_x(x) + cond2
        h = F.silu(self.head2(F.silu(h)))
        return coarse + self.out(h)

    def _transformed(self, tokens: Tensor, time: Tensor) -> Tensor:
        """The transformer's answer (B, C, h, w) for tokens (B, width, h, w)."""
        B, _, h, w = tokens.shape
        x = tokens.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, time, (h, w))
        return self.from_tokens(x.transpose(1, 2).reshape(B, -1, h, w))


def averages(x: Tensor, noise_level: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy chroma averaged over 8×8 pixels and over the picture, each of about unit variance.

    A pixel of x is sqrt(ᾱ) x_0 + sqrt(1 - ᾱ) ε. Averaging n pixels divides the noise's variance by
    n and the signal's by much less, since chroma is smooth.

    Parameters
    ----------
    x
        (B, C, h, w), of about unit variance; h and w multiples of 8.
    noise_level
        (B,): ½ ln σ with σ² = (1 - ᾱ) / ᾱ.

    Returns
    -------
    tuple
        (B, C, h/8, w/8) and (B, C).
    """
    signal = torch.sigmoid(-4 * noise_level.float()).to(x.dtype).view(-1, 1, 1, 1)
    positions = F.avg_pool2d(x, 8)
    picture = positions.mean((2, 3))
    over_position = POSITION_VARIANCE * signal + (1 - signal) / 64
    over_picture = PICTURE_VARIANCE * signal + (1 - signal) / (x.shape[-2] * x.shape[-1])
    return positions / over_position.sqrt(), picture / over_picture.sqrt().flatten(1)


def fourier(noise_level: Tensor) -> Tensor:
    """cos and sin of the noise level at frequencies from 1/4 to 8: (B,) → (B, 64)."""
    exponents = torch.linspace(-2, 3, 32, device=noise_level.device)
    angle = noise_level.float()[:, None] * (2.0**exponents)[None, :] * (math.pi / 2)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The same layer with weights and bias 0, so that a fresh block is the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
