"""Stage 4: color every test crop with the new weights → data/samples/."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from colorized import color, devices
from colorized.data import index
from colorized.data.dataset import Shard, open_shard
from colorized.inference.colorizer import ChromaSampler
from colorized.model.weights import RELEASED, load_weights
from colorized.options import SamplingOptions
from colorized.params import Params, Sample
from colorized.progress import track
from pipelines import stage


def main(params: Params) -> None:
    """Color the test split as a user's photographs are, one by one, and time it.

    The released weights color it, too, so that one sees whether training helped.
    """
    p = params.sample
    device = devices.open_device(params.train.device)
    colorizer = ChromaSampler(load_weights(stage.WEIGHTS, device))
    released = ChromaSampler(load_weights(RELEASED, device))
    options, theirs = sampling(colorizer.defaults, p), sampling(released.defaults, p)
    shard = open_shard(stage.LAB, "test")
    rows = index.holdout(stage.LAB, "test", p.pictures)
    shutil.rmtree(stage.SAMPLES, ignore_errors=True)
    stage.SAMPLES.mkdir(parents=True)
    shape = (len(rows), *shard.L.shape[1:], 3)
    colored, before, gray, true = (
        np.lib.format.open_memmap(stage.SAMPLES / f"{name}.npy", "w+", np.uint8, shape)
        for name in ("model", "released", "monochrome", "true")
    )
    seconds = []
    for i in track(range(len(rows)), "coloring", "crops"):
        L, true_ab = picture(shard, rows[i])
        started = time.perf_counter()
        colored[i] = color.recombine(L, colorizer.colorize(L, options.override(seed=p.seed + i)))
        seconds.append(time.perf_counter() - started)
        gray[i] = color.recombine(L, np.zeros_like(true_ab))
        true[i] = color.recombine(L, true_ab)
    for i in track(range(len(rows)), "coloring with the released weights", "crops"):
        L, _ = picture(shard, rows[i])
        before[i] = color.recombine(L, released.colorize(L, theirs.override(seed=p.seed + i)))

    count = min(p.diversity_pictures, len(rows))
    chosen = rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
    np.save(stage.SAMPLES / "draws.npy", np.stack(list(_draws(colorizer, shard, chosen, p))))
    # No output of the stage, which would else differ each time.
    timing = {"seconds_per_image": round(statistics.median(seconds), 4)}
    stage.TIMING.write_text(json.dumps(timing) + "\n", encoding="utf-8")
    print(f"{len(rows)} crops colored, {timing['seconds_per_image']} s each")


def _draws(
    colorizer: ChromaSampler, shard: Shard, rows: NDArray[np.int64], p: Sample
) -> Iterator[NDArray[np.float32]]:
    """Several colorings of each of these rows, to measure how much they differ."""
    options = sampling(colorizer.defaults, p)
    for row in track(rows, "drawing again", "crops"):
        repeated = np.repeat(picture(shard, row)[0][None], p.diversity_draws, axis=0)
        yield colorizer.draw(repeated, options)


def sampling(defaults: SamplingOptions, p: Sample) -> SamplingOptions:
    """The options of the weights, but for those that params.yaml gives.

    Every crop should have a seed of its own: they are draws of a distribution, which FID compares.
    """
    return defaults.override(
        sampler=p.sampler,
        steps=p.steps,
        guidance=p.guidance,
        temperature=p.temperature,
        seed=p.seed,
    )


def picture(shard: Shard, row: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """L* (S, S) and ab (S, S, 2) of one row."""
    batch = shard.batch(np.array([row]))
    return batch.lightness[0, 0].numpy(), batch.ab[0].permute(1, 2, 0).numpy()


if __name__ == "__main__":
    stage.run(main)
