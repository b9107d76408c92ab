"""Train the released weights: `python -m pipelines.release PICTURES WORK`.

PICTURES holds the folders `scenes`, `objects` and `photos` of color photographs. Shards go to
WORK/lab, checkpoints to WORK/checkpoints, and the weights to WORK/colorized.safetensors. The
embedded photographs are not trained on: they measure the result. Run it again to go on after a
stop.

Training grows with the pictures: most steps see small ones, which cost little, and the last see
them at the scale at which the network is used; a phase of no steps is left out. `--init FILE …`
goes on from weights of this network, or from the mean of several, which with `--steps 0 0 0` is the
result.
In several processes: `torchrun --standalone --nproc-per-node N -m pipelines.release …`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from colorized.data import shards, sources
from colorized.data.dataset import open_shard
from colorized.devices import use_bfloat16
from colorized.model.imagenet import load_imagenet_encoder
from colorized.model.weights import ModelConfig, load_tensors, load_weights, save_weights
from colorized.training import fit
from colorized.training.distributed import Processes, open_processes
from colorized.training.loop import TrainSettings, TrainState


def _crops(
    train: int, min_scale: float, val_share: float, test_share: float
) -> sources.CropSettings:
    return sources.CropSettings(
        image_size=192,
        crops={"train": train, "val": 1, "test": 1},
        min_scale=min_scale,
        val_share=val_share,
        test_share=test_share,
        seed=0,
        min_chroma=2.0,
        lookalike_bits=8,
    )


# Crops of each photograph, the smallest, and shares of the photographs held back, for each kind of
# picture. Small pictures are kept whole; training cuts its own crops.
SETS = {
    "photos": _crops(10, 0.6, 0.03, 0.22),
    "scenes": _crops(1, 1.0, 0.02, 0.06),
    "objects": _crops(1, 1.0, 0.01, 0.002),
}

# The objects come with a validation set of their own, by name.
HELD_BACK_PREFIX = "val-"
SCALES = (64, 64), (96, 32), (160, 24)
"""Crop and batch size of each phase."""
WORK_SIZE = 160
AB_STD = (12.0, 18.0)
"""About the root mean square of a* and b* over the training crops, CIELAB units."""


class Phase(NamedTuple):
    """A stretch of training at one scale; `cools`: the learning rate falls to 0 in it.

    `minutes`, if any, take the place of `steps`.
    """

    crop_size: int
    batch_size: int
    steps: int
    cools: bool = False
    minutes: float = 0.0


def settings(
    phase: Phase, device: torch.device, learning_rate: float = 1e-3, seed: int = 0
) -> TrainSettings:
    """What a phase trains with."""
    return TrainSettings(
        steps=phase.steps,
        batch_size=phase.batch_size,
        crop_size=phase.crop_size,
        min_crop=0.7,
        learning_rate=learning_rate,
        warmup_steps=300,
        cooldown_steps=phase.steps if phase.cools else 0,
        weight_decay=0.01,
        clip_norm=1.0,
        ema_decay=0.998,
        condition_dropout=0.05,
        # An object of one color covers more pixels of a larger crop.
        noise_shift=10.0 * phase.crop_size / 96,
        encoder_lr_scale=0.2,
        bfloat16=use_bfloat16("auto", device),
        seed=phase.crop_size + seed,
        minutes=phase.minutes,
    )


def build_shards(pictures: Path, lab: Path, scenes: int = 1) -> None:
    """Cut the crops of every set and put them one after another into one folder of shards.

    The scenes of the training split stand there so many times.
    """
    for name, settings in SETS.items():
        paths = [
            path
            for path in sources.list_photographs(pictures / name)
            if not path.name.startswith(HELD_BACK_PREFIX)
        ]
        source = sources.photographs(paths, pictures)
        report = shards.build_shards(source, lab / name, settings)
        print(f"{name}: {report.photographs}, {len(report.rejects)} left out", flush=True)
    for split, times in ("train", scenes), ("val", 1):
        names = [name for name in SETS for _ in range(times if name == "scenes" else 1)]
        for kind in ("L", "ab"):
            parts = [np.load(lab / n / f"{split}_{kind}.npy", mmap_mode="r") for n in names]
            shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
            joined = np.lib.format.open_memmap(
                lab / f"{split}_{kind}.npy", mode="w+", dtype=np.uint8, shape=shape
            )
            np.concatenate(parts, out=joined)
            joined.flush()


def main() -> None:
    """Build the shards, train, write the weights."""
    parser = argparse.ArgumentParser(description="Train the released weights.")
    parser.add_argument("pictures", type=Path, help="holds scenes/, objects/ and photos/")
    parser.add_argument("work", type=Path, help="for shards, checkpoints and the weights")
    parser.add_argument("--steps", type=int, nargs=3, default=(5_000, 5_600, 3_500))
    parser.add_argument(
        "--minutes", type=float, nargs=3, help="in place of steps", default=(0,) * 3
    )
    parser.add_argument("--init", type=Path, nargs="+", default=(), help="weights to go on from")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0, help="of crops and noise")
    parser.add_argument("--scenes", type=int, default=1, help="times a scene is seen for another")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    processes = open_processes(options.device)
    try:
        run(options, processes)
    finally:
        processes.close()


def run(options: argparse.Namespace, processes: Processes) -> None:
    """What `main` does, in one of the processes."""
    device, lab = processes.device, options.work / "lab"
    phases = [
        Phase(*scale, steps, scale == SCALES[-1], minutes)
        for scale, steps, minutes in zip(SCALES, options.steps, options.minutes, strict=True)
        if steps
    ]
    if not phases and not options.init:
        raise ValueError("--steps: all are 0")
    if phases and processes.main and not (lab / "done").exists():
        build_shards(options.pictures, lab, options.scenes)
        (lab / "done").touch()
    processes.share(None)  # the others wait for the shards

    config = ModelConfig(
        channels=(64, 112, 128),
        time_channels=128,
        schedule="cosine",
        T=1000,
        ab_std=AB_STD,
        work_size=WORK_SIZE,
    )
    torch.manual_seed(0)  # of fresh layers
    denoiser = config.build()
    load_imagenet_encoder(denoiser.network.encoder)
    inits = []
    for init in options.init:
        loaded = load_weights(init)
        config = dataclasses.replace(config, sampling=loaded.config.sampling)
        inits.append(loaded.denoiser.network.state_dict())
        load_tensors(denoiser.network, inits[-1], str(init))  # names what does not fit
    if inits:
        mean = {name: sum(i[name] for i in inits) / len(inits) for name in inits[0]}
        denoiser.network.load_state_dict(mean)
    denoiser.to(device)

    def log(step: int, numbers: Mapping[str, float]) -> None:
        line = json.dumps({"step": step} | {k: round(v, 5) for k, v in numbers.items()})
        print(line, flush=True)
        with open(options.work / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    tensors = denoiser.network.state_dict()
    so_far: dict[str, Any] | None = None
    recipe = [settings(p, device, options.learning_rate, options.seed) for p in phases]
    for number, phase in enumerate(recipe, 1):
        state = TrainState(denoiser, config, phase, processes)
        if so_far is not None:
            state.load_state_dict({**so_far, "step": 0, "seconds": 0.0})
        values = dataclasses.asdict(phase)
        if processes.main:
            print(f"phase {number}: {json.dumps(values)}", flush=True)
        fit.fit(
            state,
            open_shard(lab, "train"),
            open_shard(lab, "val"),
            options.work / "checkpoints" / f"{number}-{fit.fingerprint(values, [])}",
            validate_every=500,
            checkpoint_every=500,
            log=log,
        )
        so_far, tensors = state.state_dict(), state.ema.network.state_dict()
    if not processes.main:
        return
    path = options.work / "colorized.safetensors"
    about = {
        "data": sorted(SETS),
        "train": [dataclasses.asdict(phase) for phase in recipe],
    }
    options.work.mkdir(parents=True, exist_ok=True)
    save_weights(path, tensors, config, about, packed=True)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    try:
        main()
    except (ModuleNotFoundError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
