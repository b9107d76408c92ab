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
from colorized.checkpoint import load_weights
from colorized.colorizer import Colorizer
from colorized.dataset import open_shard
from colorized.params import Params
from pipelines import stage


def main(params: Params) -> None:
    """Color the test split as a user's photographs are, one by one, and time it."""
    p = params.sample
    colorizer = Colorizer(load_weights(stage.WEIGHTS, devices.open_device(params.train.device)))
    shard = open_shard(stage.LAB, "test")
    batch = shard.batch(slice(None))
    lightness = batch.lightness[:, 0].numpy()
    true_ab = batch.ab.permute(0, 2, 3, 1).numpy()

    colored, seconds = [], []
    for i in track(range(len(shard)), description="coloring"):
        started = time.perf_counter()
        # A seed of its own for each crop: they are draws of a distribution, which FID compares.
        ab = colorizer.colorize(
            lightness[i],
            steps=p.steps,
            seed=p.seed + i,
            sampler=p.sampler,
            guidance=p.guidance,
        )
        colored.append(color.recombine(lightness[i], ab))
        seconds.append(time.perf_counter() - started)

    count = min(p.diversity_pictures, len(shard))
    chosen = np.linspace(0, len(shard) - 1, count).astype(np.int64)
    draws: list[NDArray[np.float32]] = []
    for row in track(chosen, description="drawing again"):
        repeated = np.repeat(lightness[row][None], p.diversity_draws, axis=0)
        draws.append(
            colorizer.draw(
                repeated, steps=p.steps, seed=p.seed, sampler=p.sampler, guidance=p.guidance
            )
        )

    shutil.rmtree(stage.SAMPLES, ignore_errors=True)
    stage.SAMPLES.mkdir(parents=True)
    arrays = {
        "model": np.stack(colored),
        "monochrome": _recombine_all(lightness, np.zeros_like(true_ab)),
        "true": _recombine_all(lightness, true_ab),
        "draws": np.stack(draws),
    }
    for name, array in arrays.items():
        np.save(stage.SAMPLES / f"{name}.npy", array)
    nfe = p.steps * (1 if p.guidance == 1 else 2)
    timing = {"nfe": nfe, "seconds_per_image": round(statistics.median(seconds), 4)}
    (stage.SAMPLES / "timing.json").write_text(json.dumps(timing) + "\n", encoding="utf-8")
    print(f"{len(colored)} crops colored, {timing['seconds_per_image']} s each")


def _recombine_all(L: NDArray[np.float32], ab: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.stack([color.recombine(L[i], ab[i]) for i in range(len(L))])


if __name__ == "__main__":
    stage.run(main)
