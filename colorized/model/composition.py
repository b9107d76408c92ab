"""The colors of a photograph, composed of its mean and of a draw.

The samplers `options.DRAWING` begin with the mean of all colorings and end with a draw. Each knows
something better. The mean gives one thing one color: a face is not red on one side, a coat not blue
and brown. But it is the same for every seed, and varies too little within things. A draw varies as
photographs do, and chooses; but parts of one thing choose for themselves.

So the colors of things are the mean's; a draw gives the tint of areas that are larger than things,
and what is finer. Of what that gives, more contrast between places some way apart: draws with noise
of low temperature vary less than true colors do, and noise that is strong enough makes patches.

A local mean is over a window, twice, which is nearly a Gaussian.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from colorized.model.sampling import Step
from colorized.options import DRAWING

DETAIL_WINDOW, AREA_WINDOW = 9, 39
"""What is finer than the first, or coarser than the second, is the draw's, pixels of chroma."""
CONTRAST, CONTRAST_WINDOW = 0.38, 19
"""Share by which `in_contrast` strengthens what is finer than this window, pixels of chroma."""
FINE, FINE_WINDOW = -0.25, 5
"""The same of what is finer than this one."""


def colors(first: Step, last: Step, sampler: str) -> Tensor:
    """What a sampler, one of `options.SAMPLERS`, comes to.

    Parameters
    ----------
    first, last
        Its first and its last evaluation; they may be the same.

    Returns
    -------
    Tensor
        x_0 (B, 2, h, w): of one that draws, composed of the two; of the others the last x̂_0.
    """
    if sampler not in DRAWING or first is last:
        return last.x0_hat
    return in_contrast(composed(first.x0_hat, last.x0_hat))


def composed(mean: Tensor, drawn: Tensor) -> Tensor:
    """Chroma (B, 2, h, w) that is the mean's where it is as large as things, else the draw's."""
    missing = mean - drawn
    return drawn + _blurred(missing, DETAIL_WINDOW) - _blurred(missing, AREA_WINDOW)


def in_contrast(x: Tensor) -> Tensor:
    """Chroma (B, 2, h, w) with more contrast between places some way apart, less in fine detail."""
    coarse = CONTRAST * (x - _blurred(x, CONTRAST_WINDOW))
    return x + coarse + FINE * (x - _blurred(x, FINE_WINDOW))


def _blurred(x: Tensor, window: int) -> Tensor:
    # Columns and rows by themselves take a sixth of the time.
    for size in ((window, 1), (1, window)) * 2:
        padding = (size[0] // 2, size[1] // 2)
        x = F.avg_pool2d(x, size, 1, padding, count_include_pad=False)
    return x
