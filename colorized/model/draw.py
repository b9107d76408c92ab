"""Draws of chroma at the network's own scale: encoder, guidance and sampler put together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from colorized import color
from colorized.model import sampling
from colorized.model.denoiser import Denoiser
from colorized.model.guidance import guided


@torch.inference_mode()
def draw_chroma(
    denoiser: Denoiser,
    lightness: NDArray[np.float32],
    *,
    steps: int,
    seed: int,
    sampler: str = "dpm_solver_pp_2m",
    guidance: float = 1.0,
    temperature: float = 1.0,
) -> NDArray[np.float32]:
    """Draw the chroma of pictures at the network's own scale.

    Parameters
    ----------
    lightness
        L* (B, H, W), 0 … 100; H and W multiples of 16.
    steps
        Times at which the network is asked.
    seed
        Of the noise, which is drawn for the batch as a whole.
    sampler
        A key of `sampling.SAMPLERS`.
    guidance
        Weight of the condition, see `guidance.guided`. 1 is the model of P(ab | L); any other
        asks the network twice at some of the times.
    temperature
        Deviation of the noise that sampling begins with. Below 1, draws keep nearer to what is
        most likely, and so to one another.

    Returns
    -------
    ndarray
        ab (B, H/2, W/2, 2), CIELAB units.

    Raises
    ------
    ValueError
        For an unknown sampler, `steps` outside 1 … T, or another H or W.
    """
    device = next(denoiser.parameters()).device
    L = torch.from_numpy(np.ascontiguousarray(lightness, dtype=np.float32))[:, None]
    cond = denoiser.encode(L.to(device))
    generator = torch.Generator().manual_seed(seed)
    B, _, H, W = L.shape
    x_T = temperature * torch.randn((B, 2, H // 2, W // 2), generator=generator)
    x_0 = sampling.sample(
        guided(denoiser, guidance),
        cond,
        x_T.to(device),
        denoiser.schedule,
        steps,
        generator,
        sampler,
    )
    return chroma_of(denoiser, x_0)


def chroma_of(denoiser: Denoiser, x_0: torch.Tensor) -> NDArray[np.float32]:
    """ab (B, h, w, 2) in CIELAB units, of x_0 (B, 2, h, w)."""
    ab = color.unstandardize_ab(x_0, denoiser.ab_std, axis=1).permute(0, 2, 3, 1)
    return np.ascontiguousarray(ab.cpu().numpy())
