"""LAB shards on disk → batches for training.

A shard is a pair of memory-mapped arrays, `{split}_L.npy` (N, S, S) and `{split}_ab.npy`
(N, S, S, 2), in OpenCV's 8-bit CIELAB. `batches` yields random crops of them as tensors; everything
random about batch number `step` follows from (seed, step) alone, so that a run that was
interrupted goes on with the very batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """L* (B, 1, S, S) in 0 … 100 and ab (B, 2, S, S) in CIELAB units, float32."""

    lightness: Tensor
    ab: Tensor


@dataclass(frozen=True)
class Shard:
    """Pictures in 8-bit CIELAB: L (N, S, S) and ab (N, S, S, 2), uint8, memory-mapped."""

    L: NDArray[np.uint8]
    ab: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.L)

    def batch(self, rows: NDArray[np.int64] | slice) -> Batch:
        """Whole pictures, in the order of `rows`."""
        L = torch.from_numpy(np.array(self.L[rows])).float()[:, None]
        ab = torch.from_numpy(np.array(self.ab[rows])).float()
        return Batch(L * (100 / 255), ab.permute(0, 3, 1, 2) - 128)


def open_shard(folder: Path, split: str) -> Shard:
    """Memory-map one split.

    Raises
    ------
    ValueError
        When an array is missing, damaged or empty, or the two do not belong together; names the
        file.
    """
    arrays = []
    for name in (f"{split}_L.npy", f"{split}_ab.npy"):
        path = folder / name
        try:
            arrays.append(np.lib.format.open_memmap(path, mode="r"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: not a readable LAB shard ({error})") from error
    L, ab = arrays
    fits = L.ndim == 3 and L.shape[1] == L.shape[2] and ab.shape == (*L.shape, 2)
    if not (L.dtype == ab.dtype == np.uint8 and fits and L.size):
        raise ValueError(
            f"{folder / split}_*.npy: L {L.dtype} {L.shape}, ab {ab.dtype} {ab.shape}; "
            "expected uint8 (N, S, S) and (N, S, S, 2), N ≥ 1"
        )
    return Shard(L, ab)


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of 0 … count - 1 that depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def batches(
    shard: Shard, batch_size: int, crop_size: int, min_crop: float, seed: int, first_step: int
) -> Iterator[Batch]:
    """Endless shuffled batches of random crops and flips, from step `first_step` on.

    Parameters
    ----------
    crop_size
        Side of the square crops, pixels.
    min_crop
        A crop shows between this share and the whole of the picture's side.
    first_step
        Number of the first batch; batch k holds entries k·B … (k+1)·B - 1 of the epochs' orders.
    """
    count = len(shard)
    step = first_step
    epoch, order = -1, np.empty(0, dtype=np.int64)
    while True:
        rows = np.empty(batch_size, dtype=np.int64)
        for i in range(batch_size):
            position = step * batch_size + i
            if position // count != epoch:
                epoch = position // count
                order = epoch_order(count, seed, epoch)
            rows[i] = order[position % count]
        generator = torch.Generator().manual_seed(step_seed(seed, step, "crop"))
        yield random_crops(shard.batch(rows), crop_size, min_crop, generator)
        step += 1


def random_crops(
    batch: Batch, crop_size: int, min_crop: float, generator: torch.Generator
) -> Batch:
    """One random square of each picture, flipped half of the time, resized bilinearly."""
    B = len(batch.lightness)
    scale = min_crop + (1 - min_crop) * torch.rand(B, generator=generator)
    center = (torch.rand(B, 2, generator=generator) * 2 - 1) * (1 - scale)[:, None]
    flip = torch.where(torch.rand(B, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(B, 2, 3)
    theta[:, 0, 0] = scale * flip
    theta[:, 1, 1] = scale
    theta[:, :, 2] = center
    grid = F.affine_grid(theta, [B, 3, crop_size, crop_size], align_corners=False)
    lab = torch.cat([batch.lightness, batch.ab], dim=1)
    lab = F.grid_sample(lab, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return Batch(lab[:, :1].contiguous(), lab[:, 1:].contiguous())


def step_seed(seed: int, step: int, purpose: str) -> int:
    """A 63-bit seed of its own for each (seed, step, purpose)."""
    words = np.random.SeedSequence([seed, step, *purpose.encode()]).generate_state(2, np.uint64)
    return int(words[0] >> np.uint64(1))
