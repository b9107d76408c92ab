"""Draws of chroma at the network's own scale: encoder, guidance and sampler put together."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from colorized import color
from colorized.model import sampling
from colorized.model.denoiser import Denoiser
from colorized.model.guidance import asked
from colorized.model.weights import ModelConfig
from colorized.options import SamplingOptions

SHARPENING = 1.0
"""Share of what the mean over 3 × 3 pixels takes from chroma that `sharpened` adds to it."""


@torch.inference_mode()
def draw_chroma(
    denoiser: Denoiser,
    config: ModelConfig,
    lightness: NDArray[np.float32],
    options: SamplingOptions,
) -> NDArray[np.float32]:
    """Draw the chroma of pictures at the network's own scale, with noise for all together.

    Parameters
    ----------
    lightness
        L* (B, H, W), 0 … 100; H and W multiples of 16.

    Returns
    -------
    ndarray
        ab (B, H/2, W/2, 2), CIELAB units.

    Raises
    ------
    ValueError
        For another H or W, or options that are not for these weights.
    """
    device = next(denoiser.parameters()).device
    L = torch.from_numpy(np.ascontiguousarray(lightness, dtype=np.float32))[:, None]
    cond = denoiser.encode(L.to(device))
    B, _, H, W = L.shape
    generator = torch.Generator().manual_seed(options.seed)
    noise = sampling.noise_source((B, 2, H // 2, W // 2), [generator], options.temperature, device)
    sigmas = sampling.noise_levels(options, config.few_step_sigmas)
    x_0 = sampling.sample(asked(denoiser, options, sigmas), cond, sigmas, noise, options.sampler)
    return chroma_of(x_0, config.ab_std) * np.float32(options.saturation)


def sharpened(x_0: torch.Tensor) -> torch.Tensor:
    """Chroma (B, 2, h, w) with steeper edges.

    What a network draws is a little softer than the true chroma at its scale. Unsharp masking
    makes up for it; limited to the range of each pixel's 3 × 3 neighbors it adds no color that is
    not there, and so no fringe beside an edge. docs/model.md has what it is worth.
    """
    soft = F.avg_pool2d(x_0, 3, 1, 1, count_include_pad=False)
    low, high = -F.max_pool2d(-x_0, 3, 1, 1), F.max_pool2d(x_0, 3, 1, 1)
    return (x_0 + SHARPENING * (x_0 - soft)).clamp(low, high)


def chroma_of(x_0: torch.Tensor, ab_std: tuple[float, float]) -> NDArray[np.float32]:
    """ab (B, h, w, 2) in CIELAB units, `sharpened`, of x_0 (B, 2, h, w)."""
    ab = color.unstandardize_ab(sharpened(x_0), ab_std, axis=1).permute(0, 2, 3, 1)
    return np.ascontiguousarray(ab.cpu().numpy())
