"""Sampling the chroma of a photograph from its lightness.

The network works at the scale it was trained on: lightness is resized so that its shorter side is
the weights' `work_size`, chroma is sampled there and enlarged to the size of the scan. The
lightness of the scan itself is not changed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from colorized.color import resample, upsampling
from colorized.inference.candidates import Candidates, pick
from colorized.inference.hints import Hints, Known
from colorized.inference.steering import Steering
from colorized.model import composition, sampling
from colorized.model.draw import chroma_of, draw_chroma
from colorized.model.guidance import asked
from colorized.model.unet import STRIDE
from colorized.model.weights import Weights
from colorized.options import SamplingOptions

MAX_ASPECT = 8
"""Largest aspect ratio for the network; longer photographs are squeezed to it."""

MAX_BATCH = 8
"""Colorings drawn at once."""

# Corrections of the hinted chroma for the change that enlarging causes.
_SETTLING = 2

Image: TypeAlias = NDArray[np.float32]
OnStep: TypeAlias = Callable[[int, int, Image], None]


class ChromaSampler:
    """Colors photographs with one set of weights.

    `weights` are of `load_weights`, already on the device to work on. Their options are `defaults`.
    """

    def __init__(self, weights: Weights) -> None:
        self.denoiser = weights.denoiser
        self.config = weights.config
        self.defaults = weights.config.sampling
        self.work_size = weights.config.work_size
        self.device = next(weights.denoiser.parameters()).device
        if self.device.type != "mps":
            self.denoiser.network.to(memory_format=torch.channels_last)

    def colorize(
        self,
        lightness: Image,
        options: SamplingOptions | None = None,
        *,
        hints: Hints | None = None,
        on_step: OnStep | None = None,
    ) -> Image:
        """Draw the chroma of one photograph.

        Parameters
        ----------
        lightness
            L* (H, W), 0 … 100.
        options
            By default those of the weights.
        hints
            Colors that are known.
        on_step
            Called after evaluation i = 1 … n with (i, n, ab), the present estimate (h, w, 2)
            before saturation. What it raises ends the sampling.

        Returns
        -------
        ndarray
            ab (H, W, 2), CIELAB units, not yet fitted to the gamut.
        """
        options = options or self.defaults
        guide = self.guide(lightness)
        first = None if on_step is None else lambda i, n, ab: on_step(i, n, ab[0])
        ab = self._draw(guide, [options.seed], options, hints, first)[0]
        return self.enlarge(ab * np.float32(options.saturation), lightness, guide)

    def candidates(
        self,
        lightness: Image,
        count: int,
        options: SamplingOptions | None = None,
        *,
        hints: Hints | None = None,
        on_step: OnStep | None = None,
    ) -> Candidates:
        """Draw several colorings of one photograph, and pick typical and different ones.

        For more than one, twice as many are drawn, with the seeds `options.seed`,
        `options.seed` + 1, …, and `candidates.pick` picks `count` of them. `on_step` gets ab
        (K, h, w, 2) of the K ≤ `MAX_BATCH` colorings being drawn; the rest is as in `colorize`.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        options = options or self.defaults
        pool = 1 if count == 1 else 2 * count
        seeds = [(options.seed + k) % 2**63 for k in range(pool)]
        ab = self._draw(self.guide(lightness), seeds, options, hints, on_step)
        picked = pick(ab, seeds, count)
        return dataclasses.replace(picked, ab=picked.ab * np.float32(options.saturation))

    def guide_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the guide of a picture: see `guide`."""
        h, w = working_size(height, width, self.work_size)
        return upsampling.guide_size(h // 2, w // 2, height, width)

    def guide(self, lightness: Image) -> Image:
        """L* (H, W) at a few hundred pixels, which gives the same colors as the photograph itself.

        A scan that does not fit into memory is shrunk to `guide_size` in strips, then colored, then
        enlarged in strips by an `upsampling.Enlarger`.
        """
        height, width = lightness.shape
        size = self.guide_size(height, width)
        # Conversion to linear light and back would lose precision.
        return lightness if size == (height, width) else resample.resize_lightness(lightness, *size)

    def shrink(self, lightness: Image) -> Image:
        """L* (H, W) at the network's own scale."""
        guide = self.guide(lightness)
        height, width = guide.shape
        return resample.resize_lightness(guide, *working_size(height, width, self.work_size))

    def enlarge(self, ab: Image, lightness: Image, guide: Image | None = None) -> Image:
        """Chroma at the network's scale (h, w, 2) → (H, W, 2), along the edges of L* (H, W).

        `guide` is computed unless it is given.
        """
        height, width = lightness.shape
        guide = self.guide(lightness) if guide is None else guide
        return upsampling.Enlarger(guide, ab, height, width).rows(0, height, lightness)

    @torch.inference_mode()
    def _draw(
        self,
        guide: Image,
        seeds: Sequence[int],
        options: SamplingOptions,
        hints: Hints | None,
        on_step: OnStep | None,
    ) -> Image:
        """One draw for each seed, (K, h, w, 2), for a guide; the encoder runs once."""
        sigmas = sampling.noise_levels(options, self.config.few_step_sigmas)
        small = self.shrink(guide)
        known = hints.rasterize(guide) if hints else None
        L = torch.from_numpy(small)[None, None].to(self.device)
        cond = self.denoiser.encode(L)
        denoiser = asked(self.denoiser, options, sigmas)
        steering = None
        if known is not None:
            size = (small.shape[0] // 2, small.shape[1] // 2)
            steering = _steering(known, guide, size, self.config.ab_std)
            denoiser = steering.steer(denoiser)
        shape = (1, 2, small.shape[0] // 2, small.shape[1] // 2)
        evaluations = itertools.count(1)
        total = len(sigmas) * -(-len(seeds) // MAX_BATCH)
        drawn: list[Image] = []
        for start in range(0, len(seeds), MAX_BATCH):
            # One generator each, so that a seed gives the same colors alone and among others.
            some = seeds[start : start + MAX_BATCH]
            generators = [torch.Generator().manual_seed(seed) for seed in some]
            noise = sampling.noise_source(shape, generators, options.temperature, self.device)
            run = sampling.steps(
                denoiser,
                tuple(c.expand(len(generators), *c.shape[1:]) for c in cond),
                sigmas,
                noise,
                options.sampler,
            )
            first = None
            for step in run:
                first = first or step
                if on_step is not None:
                    on_step(next(evaluations), total, chroma_of(step.x0_hat, self.config.ab_std))
            x_0 = composition.colors(first or step, step, options.sampler)
            if steering is not None:  # composed, the known colors are mixed with others again
                x_0 = steering.correct(x_0)
            drawn.extend(chroma_of(x_0, self.config.ab_std))
        if known is not None:
            drawn = [_settled(ab, guide, known) for ab in drawn]
        return np.stack(drawn)

    def draw(self, lightness: Image, options: SamplingOptions | None = None) -> Image:
        """Draw the chroma of pictures at the network's own scale: see `draw_chroma`."""
        return draw_chroma(self.denoiser, self.config, lightness, options or self.defaults)


def _steering(
    known: Known,
    guide: Image,
    size: tuple[int, int],
    units: Sequence[float] = (1.0, 1.0),
) -> Steering:
    """Steering at the network's scale (h, w), of chroma in these units."""
    share, ab = _gathered(known.share, known.ab, size)
    L = resample.resize_lightness(guide, *size)
    return Steering(share, (ab / np.array(units)).astype(np.float32), L)


def _settled(ab: Image, guide: Image, known: Known) -> Image:
    """Correct chroma (h, w, 2) so that it has the known colors after enlarging, too."""
    size = (ab.shape[0], ab.shape[1])
    steering = _steering(known, guide, size)
    for _ in range(_SETTLING):
        enlarged = upsampling.Enlarger(guide, ab, *guide.shape).rows(0, len(guide), guide)
        _, error = _gathered(known.share, known.ab - enlarged, size)
        error = np.ascontiguousarray(error.transpose(2, 0, 1))
        ab = ab + steering.spread(torch.from_numpy(error)).numpy().transpose(1, 2, 0)
    return ab


def _gathered(share: Image, ab: Image, size: tuple[int, int]) -> tuple[Image, Image]:
    """The known share of each pixel of (h, w), and the mean chroma of that share."""
    small = resample.resize(share, *size).clip(0, 1)
    weighted = resample.resize(ab * share[..., None], *size)
    return small, weighted / np.maximum(small, 1e-6)[..., None]


def working_size(height: int, width: int, work_size: int) -> tuple[int, int]:
    """Height and width for the network: shorter side `work_size`, both multiples of 16.

    The longer side is rounded, so the aspect ratio may change by a few percent, and limited to
    `MAX_ASPECT` times the shorter one.
    """
    ratio = min(max(height, width) / min(height, width), MAX_ASPECT)
    longer = round(work_size * ratio / STRIDE) * STRIDE
    return (work_size, longer) if height <= width else (longer, work_size)
