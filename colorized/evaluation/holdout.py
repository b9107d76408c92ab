"""The validation pictures for promotion, and the measurement of a model on them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colorized import color
from colorized.data import index
from colorized.data.dataset import open_shard
from colorized.evaluation import inception, metrics
from colorized.evaluation.promotion import Measured, Protocol, Reference
from colorized.inference.colorizer import ChromaSampler
from colorized.model.weights import Weights
from colorized.progress import Progress, track

SPLIT = "val"
"""Models are chosen on validation photographs and reported on those of the test split."""

Images = list[NDArray[np.uint8]]


class Holdout:
    """A fixed choice of validation crops in a folder of shards.

    Parameters
    ----------
    pictures
        Crops to measure on, at most.
    draws
        Times each is colored, with other noise.
    sampling
        `sampler`, `steps`, `guidance` and `temperature`; None is what a model's weights say.
    cache
        Folder of Inception features that were computed before.
    device
        Where those that are not there are computed.
    """

    def __init__(
        self,
        lab: Path,
        pictures: int,
        draws: int,
        seed: int,
        sampling: dict[str, Any],
        cache: Path,
        device: torch.device | str = "cpu",
    ) -> None:
        self.sampling, self.cache = sampling, cache
        self._extractor = inception.InceptionExtractor(device=device)
        self.shard = open_shard(lab, SPLIT)
        self.rows = index.holdout(lab, SPLIT, pictures)
        files = {int(line["row"]): line["file"] for line in index.read_index(lab, SPLIT)}
        self.photographs = np.array([files[int(row)] for row in self.rows])
        digest = hashlib.sha256()
        for array in (self.shard.L, self.shard.ab):
            digest.update(np.ascontiguousarray(array[self.rows]).tobytes())
        count = len(self.rows)
        self.protocol = Protocol(
            data_sha256=digest.hexdigest(),
            pictures=count,
            image_size=self.shard.size,
            # No noise is used twice.
            seeds=tuple(seed + k * count for k in range(draws)),
            extractor_sha256=inception.EXTRACTOR_SHA256,
            **sampling,
        )
        batch = self.shard.batch(self.rows)
        self.lightness = batch.lightness[:, 0].numpy()
        self.ab = batch.ab.permute(0, 2, 3, 1).numpy()

    def reference(self) -> Reference:
        """The true and the gray pictures."""
        true = [color.recombine(L, ab) for L, ab in zip(self.lightness, self.ab, strict=True)]
        gray = [color.recombine(L, np.zeros((*L.shape, 2), np.float32)) for L in self.lightness]
        return Reference(
            self._features(true, "true colors"),
            self._features(gray, "no colors"),
            self.photographs,
            _colorfulness(true),
        )

    def measure(self, weights: Weights, name: str) -> Measured:
        """Color all pictures once for each seed of the protocol; `name` is for the progress."""
        colorizer = ChromaSampler(weights)
        options = colorizer.defaults.override(**self.sampling)
        features, colorfulness = [], []
        for k, seed in enumerate(self.protocol.seeds):
            images = []
            what = f"{name}, draw {k + 1} of {len(self.protocol.seeds)}"
            for i, L in enumerate(track(list(self.lightness), what, "crops")):
                ab = colorizer.colorize(L, options.override(seed=seed + i))
                if not np.isfinite(ab).all():
                    return Measured(np.zeros((0, 0, 0), np.float16), 0.0)
                images.append(color.recombine(L, ab))
            features.append(self._features(images, what).astype(np.float16))
            colorfulness.append(_colorfulness(images))
        return Measured(np.stack(features), float(np.mean(colorfulness)))

    def _features(self, images: Images, what: str) -> NDArray[np.float32]:
        with Progress(f"{what}: Inception features", "pictures", len(images)) as shown:
            return inception.cached_features(
                self._extractor, images, self.cache, progress=shown.advance
            )


def _colorfulness(images: Images) -> float:
    return float(np.mean([metrics.colorfulness(image) for image in images]))
