"""Weights and a photograph's lightness → its colors.

The network works at the scale it was trained on, whatever the size of the scan: lightness is
resized so that its shorter side is the weights' `work_size`, chroma is drawn there and brought
back to the scan's own size. The lightness of the scan itself is never touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colorized import resample, sampling
from colorized.checkpoint import Weights
from colorized.unet import STRIDE

MAX_ASPECT = 8
"""Photographs longer than this many times their breadth are squeezed to it for the network."""

Image: TypeAlias = NDArray[np.float32]


class Colorizer:
    """Colors photographs with one set of weights.

    Parameters
    ----------
    weights
        From `load_weights`, already on the device to work on.
    """

    def __init__(self, weights: Weights) -> None:
        self.denoiser = weights.denoiser
        self.work_size = weights.config.work_size
        self.device = next(weights.denoiser.parameters()).device
        if self.device.type != "mps":
            self.denoiser.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def colorize(
        self,
        lightness: Image,
        *,
        steps: int,
        seed: int,
        sampler: str = "dpm_solver_pp_2m",
        on_step: Callable[[int, int], None] = lambda done, steps: None,
    ) -> Image:
        """Draw the chroma of one photograph.

        Parameters
        ----------
        lightness
            L* (H, W), 0 … 100.
        steps
            Network evaluations.
        seed
            Of the noise; the same seed gives the same colors.
        on_step
            Called with the number of evaluations done and to do, after each.

        Returns
        -------
        ndarray
            ab (H, W, 2), CIELAB units, not yet fitted to the gamut.
        """
        height, width = lightness.shape
        small = resample.resize_lightness(lightness, *working_size(height, width, self.work_size))
        ab = self.draw(small[None], steps=steps, seed=seed, sampler=sampler, on_step=on_step)[0]
        planes = [resample.resize(ab[..., c], height, width) for c in range(2)]
        return np.stack(planes, axis=-1)

    @torch.inference_mode()
    def draw(
        self,
        lightness: Image,
        *,
        steps: int,
        seed: int,
        sampler: str = "dpm_solver_pp_2m",
        on_step: Callable[[int, int], None] = lambda done, steps: None,
    ) -> Image:
        """Draw the chroma of pictures at the network's own scale.

        Picture i of a batch gets noise of its own, from (seed, i).

        Parameters
        ----------
        lightness
            L* (B, H, W), H and W multiples of 16.

        Returns
        -------
        ndarray
            ab (B, H/2, W/2, 2), CIELAB units.
        """
        if sampler not in sampling.SAMPLERS:
            raise ValueError(f"sampler must be one of {list(sampling.SAMPLERS)}, got {sampler!r}")
        L = torch.from_numpy(np.ascontiguousarray(lightness, dtype=np.float32))[:, None]
        B, _, H, W = L.shape
        generator = torch.Generator().manual_seed(seed)
        x_T = torch.randn((B, 2, H // 2, W // 2), generator=generator).to(self.device)
        schedule = self.denoiser.schedule
        times = sampling.timesteps(schedule, steps)
        cond = self.denoiser.encode(L.to(self.device))
        run = sampling.SAMPLERS[sampler]
        x_0 = x_T
        for done, step in enumerate(
            run(self.denoiser, cond, x_T, schedule, times, generator), start=1
        ):
            x_0 = step.x0_hat
            on_step(done, steps)
        std = torch.tensor(self.denoiser.ab_std, device=self.device).view(1, 2, 1, 1)
        ab: Tensor = (x_0 * std).permute(0, 2, 3, 1).float().cpu()
        return np.asarray(ab.numpy())


def working_size(height: int, width: int, work_size: int) -> tuple[int, int]:
    """Height and width for the network: shorter side `work_size`, both multiples of 16.

    The longer side is rounded, so the aspect ratio may change by a few percent, and limited to
    `MAX_ASPECT` times the shorter one.
    """
    ratio = min(max(height, width) / min(height, width), MAX_ASPECT)
    longer = round(work_size * ratio / STRIDE) * STRIDE
    return (work_size, longer) if height <= width else (longer, work_size)
