"""Stage 4: color every test crop with the new weights → data/samples/."""

from __future__ import annotations

import json
import shutil
import statistics
import time

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from colorized import color, devices
from colorized.data import index
from colorized.data.dataset import Shard, open_shard
from colorized.inference.colorizer import ChromaSampler
from colorized.model.guidance import evaluations
from colorized.model.sampling import noise_levels
from colorized.model.weights import load_weights
from colorized.options import SamplingOptions
from colorized.params import Params, Sample
from pipelines import stage


def main(params: Params) -> None:
    """Color the test split as a user's photographs are, one by one, and time it."""
    p = params.sample
    colorizer = ChromaSampler(load_weights(stage.WEIGHTS, devices.open_device(params.train.device)))
    options = sampling(colorizer, p)
    shard = open_shard(stage.LAB, "test")
    rows = index.holdout(stage.LAB, "test", p.pictures)
    shutil.rmtree(stage.SAMPLES, ignore_errors=True)
    stage.SAMPLES.mkdir(parents=True)
    shape = (len(rows), *shard.L.shape[1:], 3)
    colored, gray, true = (
        np.lib.format.open_memmap(stage.SAMPLES / f"{name}.npy", "w+", np.uint8, shape)
        for name in ("model", "monochrome", "true")
    )
    seconds = []
    for i in track(range(len(rows)), description="coloring"):
        L, true_ab = picture(shard, rows[i])
        started = time.perf_counter()
        colored[i] = color.recombine(L, colorizer.colorize(L, options.override(seed=p.seed + i)))
        seconds.append(time.perf_counter() - started)
        gray[i] = color.recombine(L, np.zeros_like(true_ab))
        true[i] = color.recombine(L, true_ab)

    count = min(p.diversity_pictures, len(rows))
    chosen = rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
    draws: list[NDArray[np.float32]] = []
    for row in track(chosen, description="drawing again"):
        repeated = np.repeat(picture(shard, row)[0][None], p.diversity_draws, axis=0)
        draws.append(colorizer.draw(repeated, options))
    np.save(stage.SAMPLES / "draws.npy", np.stack(draws))
    sigmas = noise_levels(options, colorizer.config.few_step_sigmas)
    nfe = evaluations(sigmas, options.guidance)
    timing = {"nfe": nfe, "seconds_per_image": round(statistics.median(seconds), 4)}
    (stage.SAMPLES / "timing.json").write_text(json.dumps(timing) + "\n", encoding="utf-8")
    print(f"{len(rows)} crops colored, {timing['seconds_per_image']} s each")


def sampling(colorizer: ChromaSampler, p: Sample) -> SamplingOptions:
    """The options of the weights, but for those that params.yaml gives.

    Every crop should have a seed of its own: they are draws of a distribution, which FID compares.
    """
    return colorizer.defaults.override(
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
