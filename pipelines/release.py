"""Train the released weights: `python -m pipelines.release PICTURES WORK`.

PICTURES holds the folders `scenes`, `objects` and `photos` of color photographs. Shards go to
WORK/lab, checkpoints to WORK/checkpoints, and the weights to WORK/colorized.safetensors. The
embedded photographs are not trained on: they measure the result. Run it again to go on after a
stop.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from colorized import checkpoint, fit, shards, sources
from colorized.checkpoint import ModelConfig
from colorized.dataset import open_shard
from colorized.devices import open_device, use_bfloat16
from colorized.pretrained import load_imagenet_encoder
from colorized.training import TrainSettings, TrainState


def _crops(train: int, val_share: float, test_share: float) -> sources.CropSettings:
    return sources.CropSettings(
        image_size=128,
        crops={"train": train, "val": 1, "test": 1},
        min_scale=0.5,
        val_share=val_share,
        test_share=test_share,
        seed=0,
        min_chroma=2.0,
        lookalike_bits=8,
    )


# Crops of each photograph and shares of the photographs held back, for each kind of picture.
SETS = {
    "photos": _crops(8, 0.03, 0.22),
    "scenes": _crops(1, 0.02, 0.06),
    "objects": _crops(1, 0.01, 0.002),
}

# The objects come with a validation set of their own, by name.
HELD_BACK_PREFIX = "val-"
WORK_SIZE = 128
AB_STD = (12.0, 18.0)
"""About the root mean square of a* and b* over the training crops, CIELAB units."""


def settings(steps: int, device: torch.device) -> TrainSettings:
    """96-pixel crops of 70 to 100 % of a picture show things at the size of `WORK_SIZE`."""
    return TrainSettings(
        steps=steps,
        batch_size=32,
        crop_size=96,
        min_crop=0.7,
        learning_rate=1e-3,
        warmup_steps=300,
        cooldown_steps=3_000,
        weight_decay=0.01,
        clip_norm=1.0,
        ema_decay=0.998,
        condition_dropout=0.05,
        noise_shift=10.0,
        encoder_lr_scale=0.2,
        bfloat16=use_bfloat16("auto", device),
        seed=1,
    )


def build_shards(pictures: Path, lab: Path) -> None:
    """Cut the crops of every set and put them one after another into one folder of shards."""
    for name, settings in SETS.items():
        paths = [
            path
            for path in sources.list_photographs(pictures / name)
            if not path.name.startswith(HELD_BACK_PREFIX)
        ]
        source = sources.photographs(paths, pictures)
        report = shards.build_shards(source, lab / name, settings)
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


def main() -> None:
    """Build the shards, train, write the weights."""
    parser = argparse.ArgumentParser(description="Train the released weights.")
    parser.add_argument("pictures", type=Path, help="holds scenes/, objects/ and photos/")
    parser.add_argument("work", type=Path, help="for shards, checkpoints and the weights")
    parser.add_argument("--steps", type=int, default=10_000)
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
    state = TrainState(denoiser.to(device), settings(options.steps, device))
    values = dataclasses.asdict(state.settings)

    def log(step: int, numbers: Mapping[str, float]) -> None:
        line = json.dumps({"step": step} | {k: round(v, 5) for k, v in numbers.items()})
        print(line, flush=True)
        with open(options.work / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    fit.fit(
        state,
        open_shard(lab, "train"),
        open_shard(lab, "val"),
        options.work / "checkpoints" / fit.fingerprint(values, []),
        validate_every=500,
        checkpoint_every=500,
        log=log,
    )
    path = options.work / "colorized.safetensors"
    about = {"data": sorted(SETS), "train": values}
    checkpoint.save_weights(path, state.ema.network.state_dict(), config, about)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
