"""The lightness encoder; it knows nothing of diffusion.

`LightnessEncoder` looks at L once per photograph: all of EfficientNet-Lite0 (Tan, Le, 2019; the
*Lite* variant has no squeeze-excitation and uses ReLU6) but its classifier, with its batch
normalization folded into the convolutions. What is left has no statistics to keep, so training
and use are the same function, at any batch size. Besides maps of features it gives their mean
over the whole picture, from which the classifier told what is in it.
"""

from __future__ import annotations

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


class LightnessEncoder(nn.Module):
    """L* (B, 1, H, W) in 0 … 100 → `channels` features at strides 2 … 32, and `pooled` of all."""

    channels = (16, 24, 40, 112, 320)
    pooled = 1280
    # kernel, stride of the first block, expansion, channels, blocks: EfficientNet-Lite0, table 1.
    stages = (
        (3, 1, 1, 16, 1),
        (3, 2, 6, 24, 2),
        (5, 2, 6, 40, 2),
        (3, 2, 6, 80, 3),
        (5, 1, 6, 112, 3),
        (5, 2, 6, 192, 4),
        (3, 1, 6, 320, 1),
    )
    taps = (0, 1, 2, 4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(1, 32, 3, 2)
        c = 32
        stages = []
        for kernel, stride, expand, c_out, blocks in self.stages:
            stage = []
            for i in range(blocks):
                stage.append(InvertedResidual(c, c_out, kernel, stride if i == 0 else 1, expand))
                c = c_out
            stages.append(nn.Sequential(*stage))
        self.trunk = nn.ModuleList(stages)
        self.head = nn.Conv2d(c, self.pooled, 1)

    def forward(self, lightness: Tensor) -> Features:
        # The classifier was trained on (v - 127) / 128 of 8-bit gray levels; L* · 2.55 is one.
        h = F.relu6(self.stem((lightness * 2.55 - 127) / 128), inplace=True)
        features = []
        for i, stage in enumerate(self.trunk):
            h = stage(h)
            if i in self.taps:
                features.append(h)
        return *features, F.relu6(self.head(h), inplace=True).mean((2, 3))
