"""Simulation of black-and-white film and prints, from a modern photograph in color.

The gray values of a black-and-white photograph are not L*. Plates until about 1885 were sensitive
to blue only, orthochromatic ones until about 1930 to blue and green, which makes skies white and
red lips and bricks nearly black. Development and printing add a tone curve, lens and enlarger blur,
prints fade, and the emulsion has grain. So the network sees a share of the training pictures as
film would have recorded them, while the target stays their true colors.

The sensitivities are rough: weights of linear red, green and blue around those of three emulsions
(Wall, *History of Three-Color Photography*, 1925), varied from picture to picture. All other
constants are chosen by eye, so that the results span what archives hold.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from colorized import color

EMULSIONS = {
    "blue-sensitive": ((0.02, 0.10, 0.88), 0.25),
    "orthochromatic": ((0.06, 0.56, 0.38), 0.45),
    "panchromatic": ((0.30, 0.42, 0.28), 0.30),
}
"""Weights of linear red, green and blue, and how often each emulsion is drawn."""

Image = NDArray[np.float32]


def expose(linear: Image, rng: np.random.Generator) -> Image:
    """L* (H, W), 0 … 100, of linear-light sRGB (H, W, 3) in [0, 1] on a random film and print."""
    weights, shares = zip(*EMULSIONS.values(), strict=True)
    sensitivity = np.array(weights[rng.choice(len(weights), p=shares)])
    sensitivity = sensitivity * np.exp(rng.normal(0, 0.35, 3))
    light = linear @ (sensitivity / sensitivity.sum()).astype(np.float32)
    if rng.random() < 0.7:  # else exposed as the camera did it
        white = float(np.quantile(light[::2, ::2], 0.98)) + 1e-3
        gain = 0.85 / white * math.exp(rng.normal(0, 0.15))
        light = light * np.float32(np.clip(gain, 0.6, 4.0))
    if rng.random() < 0.5:
        light = _blurred(light, rng.uniform(0.3, 1.3))
    L = color.luminance_to_lightness(np.ascontiguousarray(light.clip(0, 1))).clip(0, 100) / 100

    L = L ** math.exp(rng.normal(0, 0.22))
    L = L + rng.normal(0, 0.25) * L * (1 - L) * (2 * L - 1)  # contrast of the midtones
    if rng.random() < 0.3:  # vignette
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in L.shape)
        L = L * (1 - rng.uniform(0.05, 0.35) * (y[:, None] + x[None, :]) / 2)
    black = rng.uniform(0, 0.16) if rng.random() < 0.6 else 0.0
    white = rng.uniform(0.85, 1.0) if rng.random() < 0.6 else 1.0
    L = black + (white - black) * L
    if rng.random() < 0.7:
        L = L + rng.uniform(0.003, 0.03) * _grain(L.shape, rng)
    return np.asarray(100 * L.clip(0, 1), np.float32)


def _blurred(light: Image, sigma: float) -> Image:
    """Gaussian blur of deviation `sigma` pixels."""
    offsets = torch.arange(-4, 5, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    x = F.pad(torch.from_numpy(light)[None, None], (4, 4, 4, 4), mode="replicate")
    x = F.conv2d(F.conv2d(x, kernel.view(1, 1, 1, 9)), kernel.view(1, 1, 9, 1))
    return x[0, 0].numpy()


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """Noise of unit variance, or clumped: averaged over 3 × 3 pixels."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if rng.random() < 0.4:
        return noise
    padded = F.pad(torch.from_numpy(noise)[None, None], (1, 1, 1, 1), mode="replicate")
    return np.float32(2.4) * F.avg_pool2d(padded, 3, 1)[0, 0].numpy()
