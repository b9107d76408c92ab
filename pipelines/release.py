"""Train the released weights: `python -m pipelines.release PICTURES WORK`.

PICTURES holds the folders `scenes`, `objects` and `photos` of color photographs. Shards go to
WORK/lab, checkpoints to WORK/checkpoints, and the weights to WORK/colorized.safetensors. The
embedded photographs are not trained on: they measure the result. Run it again to go on after a
stop; a phase that is done is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from colorized import checkpoint, fit, sources
from colorized.checkpoint import ModelConfig
from colorized.dataset import open_shard
from colorized.devices import open_device, use_bfloat16
from colorized.pretrained import load_imagenet_encoder
from colorized.training import TrainSettings, TrainState

# Crops of each photograph and shares of the photographs held back, for each kind of picture.
SETS = {
    "photos": sources.CropSettings(128, {"train": 8, "val": 1, "test": 1}, 0.5, 0.03, 0.22, 0),
    "scenes": sources.CropSettings(128, {"train": 1, "val": 1, "test": 1}, 0.5, 0.02, 0.06, 0),
    "objects": sources.CropSettings(128, {"train": 1, "val": 1, "test": 1}, 0.5, 0.01, 0.002, 0),
}

# The objects come with a validation set of their own, by name.
HELD_BACK_PREFIX = "val-"
WORK_SIZE = 128
AB_STD = (12.0, 18.0)
"""About the root mean square of a* and b* over the training crops, CIELAB units."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of the training; it starts from the state in which the one before it ended."""

    name: str
    steps: int
    batch_size: int
    crop_size: int
    learning_rate: float
    warmup_steps: int
    cooldown_steps: int


# 96-pixel crops of 70 to 100 % of a picture show things at the size they have at `WORK_SIZE`.
PHASES = (Phase("96px", 10_000, 32, 96, 1e-3, 300, 3_000),)


def build_shards(pictures: Path, lab: Path) -> None:
    """Cut the crops of every set and put them one after another into one folder of shards."""
    for name, settings in SETS.items():
        paths = [
            path
            for path in sources.list_photographs(pictures / name)
            if not path.name.startswith(HELD_BACK_PREFIX)
        ]
        report = sources.build_shards(paths, lab / name, settings, pictures)
        print(f"{name}: {report.photographs}, {len(report.rejects)} left out", flush=True)
    for split in ("train", "val"):
        for kind in ("L", "ab"):
            parts = [np.load(lab / n / f"{split}_{kind}.npy", mmap_mode="r") for n in SETS]
            shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
            joined = np.lib.format.open_memmap(
                lab / f"{split}_{kind}.npy", mode="w+", dtype=np.uint8, shape=shape
            )
            np.concatenate(parts, out=joined)
            joined.flush()


def train_phase(state: TrainState, lab: Path, folder: Path, log: fit.Log) -> None:
    """Run or resume one phase; its last checkpoint is `folder/last.pt`."""
    fit.fit(
        state,
        open_shard(lab, "train"),
        open_shard(lab, "val"),
        folder,
        validate_every=500,
        checkpoint_every=500,
        log=log,
    )


def settings_of(phase: Phase, device: torch.device) -> TrainSettings:
    """What all phases share, and what this one has of its own."""
    return TrainSettings(
        steps=phase.steps,
        batch_size=phase.batch_size,
        crop_size=phase.crop_size,
        min_crop=0.7,
        learning_rate=phase.learning_rate,
        warmup_steps=phase.warmup_steps,
        cooldown_steps=phase.cooldown_steps,
        weight_decay=0.01,
        clip_norm=1.0,
        ema_decay=0.998,
        condition_dropout=0.05,
        noise_shift=10.0,
        encoder_lr_scale=0.2,
        bfloat16=use_bfloat16("auto", device),
        seed=1,
    )


def main() -> None:
    """Build the shards, train phase after phase, write the weights."""
    parser = argparse.ArgumentParser(description="Train the released weights.")
    parser.add_argument("pictures", type=Path, help="holds scenes/, objects/ and photos/")
    parser.add_argument("work", type=Path, help="for shards, checkpoints and the weights")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = open_device(options.device)
    lab = options.work / "lab"
    if not (lab / "done").exists():
        build_shards(options.pictures, lab)
        (lab / "done").touch()

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
    denoiser.to(device)
    previous: Path | None = None
    for phase in PHASES:
        folder = options.work / "checkpoints" / phase.name
        state = TrainState(denoiser, settings_of(phase, device))
        if previous is not None and not (folder / fit.LAST).exists():
            state.load_state_dict(checkpoint.load_checkpoint(previous / fit.LAST))
            state.step = 0
        started = time.perf_counter()

        def log(
            step: int, values: Mapping[str, float], name: str = phase.name, start: float = started
        ) -> None:
            row = {"phase": name, "step": step, "seconds": round(time.perf_counter() - start)}
            numbers = {key: round(value, 5) for key, value in values.items()}
            line = json.dumps(row | numbers)
            print(line, flush=True)
            with open(options.work / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(line + "\n")

        train_phase(state, lab, folder, log)
        denoiser, previous = state.denoiser, folder

    about = {"phases": [dataclasses.asdict(phase) for phase in PHASES], "data": sorted(SETS)}
    path = options.work / "colorized.safetensors"
    checkpoint.save_weights(path, state.ema.network.state_dict(), config, about)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
