r"""An energy that lets chroma change only at the edges of lightness.

For the chroma x of neighboring pixels p and q, eight to each pixel,

    E(x) = Σ_{p,q} w_pq (x_p - x_q)²,      w_pq = 1 / (1 + (|L_p - L_q| / σ)^α) + w_0,

couples pixels strongly where lightness is even, and weakly across an edge: Levin, Lischinski,
Weiss, *Colorization using Optimization*, 2004. Its gradient is 2 A x with a sparse symmetric A, so
that the sum of E and another quadratic is minimized by solving a linear system.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Half of the eight neighbors (the other half are the same pairs), and their weights: diagonal ones
# are farther away.
_NEIGHBORS = ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.7), (1, -1, 0.7))


class Edges:
    """The weights w_pq of a picture's lightness.

    Parameters
    ----------
    L
        L* (H, W), 0 … 100.
    sigma
        Difference in L* at which w_pq is halved.
    alpha
        Steepness of its fall beyond that.
    floor
        w_0, the least weight.
    """

    def __init__(self, L: Tensor, sigma: float, alpha: float, floor: float) -> None:
        self._weights = []
        for down, right, share in _NEIGHBORS:
            p, q = _pairs(L, down, right)
            weight = 1 / (1 + ((p - q).abs() / sigma) ** alpha) + floor
            self._weights.append(share * weight)

    def flow(self, x: Tensor) -> Tensor:
        """A x, half the gradient of E; x (…, H, W)."""
        out = torch.zeros_like(x)
        for (down, right, _), weight in zip(_NEIGHBORS, self._weights, strict=True):
            p, q = _pairs(x, down, right)
            difference = weight * (p - q)
            into_p, into_q = _pairs(out, down, right)
            into_p += difference
            into_q -= difference
        return out

    def solver(self, diagonal: Tensor) -> Callable[[Tensor], Tensor]:
        """What solves A x + m x = b for x, with m > 0 (H, W), and x and b (…, H, W), float64.

        Rows meet none but the ones beside them, so A + m is block tridiagonal. It is factored
        once, by Gauss elimination of whole rows, or of columns where these are shorter.
        """
        weights = [weight.cpu().double() for weight in self._weights]
        center = diagonal.clone()
        for (dy, dx, _), weight in zip(_NEIGHBORS, weights, strict=True):
            for pixels in _pairs(center, dy, dx):
                pixels += weight
        across, down, falling, rising = weights
        wide = center.shape[1] > center.shape[0]
        if wide:
            across, down, falling, rising = down.T, across.T, falling.T, rising.T
        # What a row meets of itself, and of the next one.
        own = torch.diag_embed(center.T if wide else center)
        own -= torch.diag_embed(across, 1) + torch.diag_embed(across, -1)
        beside = -torch.diag_embed(down) - torch.diag_embed(falling, 1)
        beside -= torch.diag_embed(rising, -1)
        inverses, passed = [own[0].inverse()], []
        for block, upper in zip(own[1:], beside, strict=True):
            passed.append(inverses[-1] @ upper)
            inverses.append((block - upper.mT @ passed[-1]).inverse())
        # Products this small take numpy a fifth of the time.
        K, G = [m.numpy() for m in inverses], [m.numpy() for m in passed]

        def solve(b: Tensor) -> Tensor:
            pictures = b.reshape(-1, *diagonal.shape)
            rows = (pictures.permute(2, 0, 1) if wide else pictures.transpose(0, 1)).numpy().copy()
            for y in range(len(G)):
                rows[y + 1] -= rows[y] @ G[y]
            rows[-1] = rows[-1] @ K[-1]
            for y in reversed(range(len(G))):
                rows[y] = rows[y] @ K[y] - rows[y + 1] @ G[y].T
            x = torch.from_numpy(rows)
            return (x.permute(1, 2, 0) if wide else x.transpose(0, 1)).reshape(b.shape)

        return solve


def _pairs(x: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Views of pixels p of x (…, H, W) and of their neighbors q, which lie up or to the left."""
    H, W = x.shape[-2:]
    p = x[..., down:, max(right, 0) : W + min(right, 0)]
    q = x[..., : H - down, max(-right, 0) : W - max(right, 0)]
    return p, q


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], target: Tensor, x: Tensor, iterations: int
) -> Tensor:
    """Nearly the solution of apply(x) = target, begun at x; each (H, W) of (…, H, W) by itself.

    `apply` is linear, symmetric and positive (Hestenes, Stiefel, 1952).
    """
    tiny = torch.finfo(x.dtype).tiny
    residual = target - apply(x)
    direction, norm = residual, _dot(residual, residual)
    for _ in range(iterations):
        applied = apply(direction)
        step = norm / _dot(direction, applied).clamp(min=tiny)
        x = x + step * direction
        residual = residual - step * applied
        before, norm = norm, _dot(residual, residual)
        direction = residual + norm / before.clamp(min=tiny) * direction
    return x


def _dot(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).sum((-2, -1), keepdim=True)
