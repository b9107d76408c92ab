"""Stage 4: color every test crop with the new weights → data/samples/."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import colorized
from colorized import atomic, color, devices
from colorized.data import index
from colorized.data.dataset import Shard, open_shard
from colorized.inference.colorizer import ChromaSampler
from colorized.model.weights import RELEASED, load_weights
from colorized.options import SamplingOptions
from colorized.params import Params, Sample
from colorized.progress import track
from pipelines import stage


def main(params: Params) -> None:
    """Color and time the test split one by one, as photographs are, with the new weights.

    The released weights color it, too, to show whether training helped.
    """
    p = params.sample
    device = devices.open_device(params.train.device)
    colorizer = ChromaSampler(load_weights(stage.WEIGHTS, device))
    options = sampling(colorizer.defaults, p)
    shard = open_shard(stage.LAB, "test")
    rows = index.holdout(stage.LAB, "test", p.pictures)
    shutil.rmtree(stage.SAMPLES, ignore_errors=True)
    stage.SAMPLES.mkdir(parents=True)
    seconds = _color(colorizer, shard, rows, options, stage.SAMPLES / "model.npy", "coloring")
    shutil.copy(_before(shard, rows, p, device), stage.SAMPLES / "released.npy")
    gray, true = (_array(stage.SAMPLES / f"{n}.npy", shard, rows) for n in ("monochrome", "true"))
    for i, row in enumerate(rows):
        L, true_ab = picture(shard, row)
        gray[i] = color.recombine(L, np.zeros_like(true_ab))
        true[i] = color.recombine(L, true_ab)

    count = min(p.diversity_pictures, len(rows))
    chosen = rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
    np.save(stage.SAMPLES / "draws.npy", np.stack(list(_draws(colorizer, shard, chosen, p))))
    # Not an output of the stage, because it differs each time.
    timing = {"seconds_per_image": round(statistics.median(seconds), 4)}
    stage.TIMING.write_text(json.dumps(timing) + "\n", encoding="utf-8")
    print(f"{len(rows)} crops colored, {timing['seconds_per_image']} s each")


def _array(path: Path, shard: Shard, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A new memory-mapped file of one RGB picture per row, (N, S, S, 3)."""
    shape = (len(rows), *shard.L.shape[1:], 3)
    return np.lib.format.open_memmap(path, "w+", np.uint8, shape)


def _color(
    colorizer: ChromaSampler,
    shard: Shard,
    rows: NDArray[np.int64],
    options: SamplingOptions,
    path: Path,
    what: str,
) -> list[float]:
    """Color each row with its own seed; the seconds that each took."""
    images, seconds = _array(path, shard, rows), []
    for i in track(range(len(rows)), what, "crops"):
        L, _ = picture(shard, rows[i])
        started = time.perf_counter()
        images[i] = color.recombine(
            L, colorizer.colorize(L, options.override(seed=options.seed + i))
        )
        seconds.append(time.perf_counter() - started)
    return seconds


def _before(shard: Shard, rows: NDArray[np.int64], p: Sample, device: torch.device) -> Path:
    """The crops colored with the released weights, cached between trainings."""
    # Of everything that they depend on, including the code.
    key = hashlib.sha256(RELEASED.read_bytes())
    key.update(f"{p} {device}".encode())
    key.update(np.ascontiguousarray(shard.L[rows]).tobytes())
    for code in sorted(Path(colorized.__file__).parent.rglob("*.py")):
        key.update(code.read_bytes())
    path = stage.BEFORE / f"{key.hexdigest()[:16]}.npy"
    if not path.exists():
        colorizer = ChromaSampler(load_weights(RELEASED, device))
        options = sampling(colorizer.defaults, p)
        with atomic.replacing_folder(stage.BEFORE) as folder:
            what = "coloring with the released weights"
            _color(colorizer, shard, rows, options, folder / path.name, what)
    return path


def _draws(
    colorizer: ChromaSampler, shard: Shard, rows: NDArray[np.int64], p: Sample
) -> Iterator[NDArray[np.float32]]:
    """Several colorings of each of these rows, to measure their diversity."""
    options = sampling(colorizer.defaults, p)
    for row in track(rows, "drawing again", "crops"):
        repeated = np.repeat(picture(shard, row)[0][None], p.diversity_draws, axis=0)
        yield colorizer.draw(repeated, options)


def sampling(defaults: SamplingOptions, p: Sample) -> SamplingOptions:
    """The options of the weights, overridden by those that params.yaml gives.

    Every crop should have its own seed, because FID compares independent draws.
    """
    given = p.model_dump(include={"sampler", "steps", "guidance", "temperature", "seed"})
    return defaults.override(**given)


def picture(shard: Shard, row: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """L* (S, S) and ab (S, S, 2) of one row."""
    batch = shard.batch(np.array([row]))
    return batch.lightness[0, 0].numpy(), batch.ab[0].permute(1, 2, 0).numpy()


if __name__ == "__main__":
    stage.run(main)
