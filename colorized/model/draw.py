"""Draws of chroma at the network's own scale: all parts of sampling put together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from colorized import color
from colorized.model import composition, sampling
from colorized.model.denoiser import Denoiser
from colorized.model.guidance import asked
from colorized.model.weights import ModelConfig
from colorized.options import SamplingOptions


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
    ask = asked(denoiser, options, sigmas)
    first = None
    for last in sampling.steps(ask, cond, sigmas, noise, options.sampler):
        first = first or last
    x_0 = composition.colors(first or last, last, options.sampler)
    return chroma_of(x_0, config.ab_std) * np.float32(options.saturation)


def chroma_of(x_0: torch.Tensor, ab_std: tuple[float, float]) -> NDArray[np.float32]:
    """ab (B, h, w, 2) in CIELAB units of x_0 (B, 2, h, w)."""
    ab = color.unstandardize_ab(x_0, ab_std, axis=1).permute(0, 2, 3, 1)
    return np.ascontiguousarray(ab.cpu().numpy())
