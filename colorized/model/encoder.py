"""The lightness encoder; it knows nothing of diffusion.

`LightnessEncoder` looks at L once per photograph: all of EfficientNet-Lite2 (Tan, Le, 2019; the
*Lite* variants have no squeeze-excitation and use ReLU6) but its classifier, with its batch
normalization folded into the convolutions. What is left has no statistics to keep, so training
and use are the same function, at any batch size. Besides maps of features it gives their mean
over the whole picture, from which the classifier told what is in it.

`Trunk` is what EfficientNets of different sizes have between their first and last convolution.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Features = tuple[Tensor, ...]


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME, which EfficientNet's weights were trained with.

    n pixels become ceil(n / stride); an odd pixel of padding goes to the right and the bottom.
    """

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (self._padding(n) for n in x.shape[-2:])
        # Where one side has a pixel more, both get it, and the kernel a row or column of zeros in
        # front: the same sums, without a copy of the map, which is far larger than the kernel.
        weight = self.weight
        if (top, left) != (bottom, right):
            weight = F.pad(weight, (right - left, 0, bottom - top, 0))
        return F.conv2d(
            x, weight, self.bias, self.stride, (bottom, right), self.dilation, self.groups
        )

    def _padding(self, size: int) -> tuple[int, int]:
        stride = self.stride[0]
        total = max((-(-size // stride) - 1) * stride + self.kernel_size[0] - size, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise k×k, 1×1 projection (Sandler et al., MobileNetV2, 2018)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = c_in * expand
        self.expand = nn.Conv2d(c_in, hidden, 1) if expand > 1 else None
        self.depthwise = SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, c_out, 1)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        if h.device.type == "cpu":
            # Differentiated in bfloat16, a depthwise convolution costs a processor twice as much.
            with torch.autocast("cpu", enabled=False):
                h = F.relu6(self.depthwise(h.float()), inplace=True)
        else:
            h = F.relu6(self.depthwise(h), inplace=True)
        h = self.project(h)
        return x + h if self.residual else h


class Stage(NamedTuple):
    """Blocks of one width; the first has the stride, the others 1."""

    kernel: int
    stride: int
    expand: int
    channels: int
    blocks: int


# EfficientNet-B0 of Tan and Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural
# Networks*, 2019, table 1.
LITE0 = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
# The same with channels · 1.1, rounded to multiples of 8, and blocks · 1.2, rounded up. In the Lite
# variants the first and the last stage keep one block, and the convolutions around the trunk 32
# and 1280 channels.
LITE2 = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 3),
    Stage(5, 2, 6, 48, 3),
    Stage(3, 2, 6, 88, 4),
    Stage(5, 1, 6, 120, 4),
    Stage(5, 2, 6, 208, 5),
    Stage(3, 1, 6, 352, 1),
)
TAPS = (0, 1, 2, 4, 6)
"""The last stages at strides 2, 4, 8, 16 and 32."""


def tapped(stages: tuple[Stage, ...]) -> tuple[int, ...]:
    """Channels of the features of a `Trunk` of these stages."""
    return tuple(stages[i].channels for i in TAPS)


class Trunk(nn.ModuleList):
    """The stages of an EfficientNet: (B, 32, H/2, W/2) → features at strides 2 … 32 of H and W."""

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        super().__init__()
        c = 32
        for stage in stages:
            blocks = nn.Sequential()
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(
                    InvertedResidual(c, stage.channels, stage.kernel, stride, stage.expand)
                )
                c = stage.channels
            self.append(blocks)

    def forward(self, h: Tensor) -> Features:
        features = []
        for i, stage in enumerate(self):
            h = stage(h)
            if i in TAPS:
                features.append(h)
        return tuple(features)


class LightnessEncoder(nn.Module):
    """L* (B, 1, H, W) in 0 … 100 → `channels` features at strides 2 … 32, and `pooled` of all."""

    channels = tapped(LITE2)
    pooled = 1280

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(1, 32, 3, 2)
        self.trunk = Trunk(LITE2)
        self.head = nn.Conv2d(self.channels[-1], self.pooled, 1)

    def forward(self, lightness: Tensor) -> Features:
        # The classifier was trained on (v - 127) / 128 of 8-bit gray levels; L* · 2.55 is one.
        h = F.relu6(self.stem((lightness * 2.55 - 127) / 128), inplace=True)
        features = self.trunk(h)
        pooled = F.relu6(self.head(features[-1]), inplace=True).mean((2, 3))
        return *features, pooled
