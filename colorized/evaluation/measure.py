"""Metrics of colored test crops, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from colorized.data.dataset import Shard, chroma_8bit
from colorized.evaluation import inception, metrics
from colorized.model.vlb import vlb_per_picture
from colorized.model.weights import Weights
from colorized.progress import Progress

Images = NDArray[np.uint8]
"""RGB (N, S, S, 3)."""


def features(
    sets: Mapping[str, Images], cache: Path, device: torch.device
) -> dict[str, NDArray[np.float32]]:
    """Inception features (N, 2048) of sets of pictures; those kept in the folder are not redone."""
    extractor = inception.InceptionExtractor(device=device)
    with Progress("Inception features", "pictures", sum(map(len, sets.values()))) as shown:
        found = {}
        for name, images in sets.items():
            done = shown.done
            found[name] = inception.cached_features(
                extractor, list(images), cache, progress=shown.advance
            )
            shown.update(done + len(images))
    return found


def distances(
    model: NDArray[np.floating],
    true: NDArray[np.floating],
    subsets: int,
    subset_size: int,
) -> dict[str, float]:
    """FID and KID of the features of colored crops from those of the same crops' true colors.

    KID, the paired one, is the mean over random subsets of crops, and `kid_std` its deviation.
    """
    rng = np.random.default_rng(0)
    size = min(subset_size, len(true))
    drawn = (rng.choice(len(true), size, replace=False) for _ in range(subsets))
    kids = [metrics.paired_kid(model[rows], true[rows]) for rows in drawn]
    fid = metrics.frechet_distance(model, true)
    return {"fid": fid, "kid": float(np.mean(kids)), "kid_std": float(np.std(kids))}


def per_picture(colored: Images, true: Images) -> dict[str, float]:
    """Colorfulness, PSNR in dB and CIEDE2000, means over the crops."""

    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    ours, real = (mean(map(metrics.colorfulness, images)) for images in (colored, true))
    return {
        "colorfulness": ours,
        "colorfulness_real": real,
        "delta_colorfulness": abs(ours - real),
        "psnr": mean(map(metrics.psnr, colored, true)),
        "delta_e": mean(map(metrics.delta_e, colored, true)),
    }


def lightness_error(colored: Images, shard: Shard, rows: NDArray[np.int64]) -> float:
    """Largest change of L* in any pixel of the crops, which are these rows of the shard."""
    L = (shard.batch(np.array([row])).lightness[0, 0].numpy() for row in rows)
    return max(map(metrics.lightness_error, colored, L))


def bound(
    weights: Weights, shard: Shard, photographs: NDArray[np.str_], pictures: int, draws: int
) -> dict[str, float]:
    """The variational bound in bits per dimension, on evenly spaced crops, and its standard error.

    `photographs` says which photograph each row of the shard is a crop of: crops of one are alike,
    so that the standard error counts photographs. Raises ValueError when the crops are of a single
    photograph.
    """
    rows = np.linspace(0, len(shard) - 1, min(pictures, len(shard))).astype(np.int64)
    denoiser, generator = weights.denoiser, torch.Generator().manual_seed(0)
    device = next(denoiser.parameters()).device
    found = []
    with torch.inference_mode(), Progress("variational bound", "crops", len(rows)) as shown:
        for few in np.array_split(rows, -(-len(rows) // 8)):
            batch = shard.batch(few)
            cond = denoiser.encode(batch.lightness.to(device))
            ab8 = chroma_8bit(batch).to(device)
            found.append(vlb_per_picture(denoiser, weights.config, ab8, cond, generator, draws))
            shown.advance(len(few))
    bits = torch.cat(found).numpy()
    files = photographs[rows]
    means = np.array([bits[files == name].mean() for name in np.unique(files)])
    if len(means) < 2:
        raise ValueError("the bound's standard error needs at least 2 test photographs")
    error = means.std(ddof=1) / np.sqrt(len(means))
    return {"vlb_bits_per_dim": float(means.mean()), "vlb_standard_error": float(error)}
